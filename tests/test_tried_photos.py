"""One photo that a network is tried on."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from deblur_lab import tried_photos
from deblur_lab.errors import DataError
from deblur_lab.images import read_photo, to_tensor
from deblur_lab.restoring import Restorer
from deblur_lab.tried_photos import figure_titles, named, try_photo
from tests.images.test_photos import png16
from tests.nets import small_aibnet, small_m2aenet, small_nafnet

CPU = torch.device("cpu")


def scene(width: int, height: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


def test_all_pixels_are_kept_and_few_are_shown(tmp_path, results, monkeypatch):
    monkeypatch.setattr(tried_photos, "SHOWN_PX", 40)
    path = tmp_path / "deep.v2.png"
    path.write_bytes(png16(scene(70, 50).astype(np.uint16) * 257))
    net = small_nafnet()
    shares = []
    tried = try_photo(Restorer(net, CPU), path, results, max_pixels=3500, progress=shares.append)

    assert tried.restored.name == "deep.v2-restored.png"
    kept = read_photo(tried.restored).pixels
    with torch.no_grad():
        expected = net(to_tensor(read_photo(path).pixels)[None])[0].clamp(0, 1).permute(1, 2, 0).numpy()
    assert kept.dtype == np.uint16
    assert np.abs(kept - expected * 65535).max() < 0.6
    assert (tried.size_px, tried.reduced, tried.figures) == ((70, 50), True, ())
    shown = [np.asarray(Image.open(file)).astype(float) for file in (tried.before, tried.after)]
    assert [picture.shape for picture in shown] == [(29, 40, 3)] * 2
    for picture, pixels in zip(shown, (read_photo(path).pixels, kept), strict=True):
        smaller = cv2.resize(pixels.astype(np.float32) / 257, (40, 29), interpolation=cv2.INTER_AREA)
        assert np.abs(picture - smaller).mean() < 4  # a JPEG's
    assert np.abs(shown[0] - shown[1]).mean() > 5
    assert shares[-1] == 1


def test_a_jpeg_stays_one_and_what_is_transparent_is_white(tmp_path, results):
    Image.fromarray(scene(30, 20)).save(tmp_path / "a.jpg")
    assert try_photo(Restorer(small_nafnet(), CPU), tmp_path / "a.jpg", results, max_pixels=600).restored == (
        results / "a-restored.jpg"
    )
    clear = Image.fromarray(scene(30, 20)).convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    tried = try_photo(Restorer(small_nafnet(), CPU), tmp_path / "clear.png", results, max_pixels=600)
    assert Image.open(tried.restored).mode == "RGBA"
    assert np.asarray(Image.open(tried.after)).min() > 250


@pytest.mark.parametrize("make", [small_m2aenet, small_aibnet])
def test_what_the_net_says_is_drawn_no_larger_than_is_shown(tmp_path, results, monkeypatch, make):
    monkeypatch.setattr(tried_photos, "SHOWN_PX", 90)
    Image.fromarray(scene(64, 48)).save(tmp_path / "photo.png")
    net = make()
    tried = try_photo(Restorer(net, CPU), tmp_path / "photo.png", results, max_pixels=64 * 48)
    assert [figure.title for figure in tried.figures] == list(figure_titles(net))
    assert len({figure.path for figure in tried.figures}) == len(tried.figures) >= 2
    for figure in tried.figures:
        assert max(Image.open(figure.path).size) == 90


def test_titles_are_of_what_there_may_be():
    net = small_m2aenet()
    assert figure_titles(net) == ("Where it sees blur", "Which motion it sees")
    net.analyzers = type(net.analyzers)()
    assert figure_titles(net) == ("Where it sees blur",)
    assert figure_titles(small_nafnet()) == ()


def test_what_is_wrong_is_told_of_the_name_alone(tmp_path, results):
    path = tmp_path / "photo.png"
    Image.fromarray(scene(64, 48)).save(path)
    with pytest.raises(DataError) as caught:
        try_photo(Restorer(small_nafnet(), CPU), path, results, max_pixels=3071)
    said = named(caught.value, path)
    assert said == "photo.png: 64 x 48 pixels are more than max_pixels=3071, the largest that is decoded"
    assert list(results.iterdir()) == []
