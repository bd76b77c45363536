"""A person's own photographs, under the names that people give them."""

import numpy as np
import pytest
import torch
from PIL import Image

from deblur_lab.checkpoints import load_net
from deblur_lab.images import read_rgb, to_tensor, to_uint8
from tests.commands.processes import forked, python_m

NAME = "Foto (1) [raw] a=b, it's 写真 ü.v2"


@pytest.fixture
def checkpoint(trained):
    return trained / "run" / "checkpoints" / "last.ckpt"


@pytest.fixture
def photo(tmp_path):
    """An odd-sized JPEG in a folder with an odd name."""
    path = tmp_path / "meine Fotos = [2024]" / f"{NAME}.JPG"
    path.parent.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (8, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((47, 61), Image.Resampling.BICUBIC).save(path, "JPEG", quality=95)
    return path


def test_a_photo_in_tiles_with_what_the_network_sees(tmp_path, photo, checkpoint):
    output = tmp_path / "wieder {scharf} ${x}"
    tiles = ["tile_px=40", "overlap_px=8", "explain=true"]
    said = python_m(
        "deblur_lab.predict",
        f"checkpoint={checkpoint}",
        f"input={photo}",
        f"output={output}",
        *tiles,
        cwd=tmp_path,
    ).succeeded()
    assert "1 of 1 restored" in said.stdout
    assert {path.name for path in output.iterdir()} == {f"{NAME}.png", f"{NAME}.explained.png"}
    assert Image.open(output / f"{NAME}.png").size == (47, 61)
    assert Image.open(output / f"{NAME}.explained.png").size == (3 * 47, 61)
    # An untrained net hardly changes a picture, tiled or not.
    restored = read_rgb(output / f"{NAME}.png").astype(int)
    assert np.abs(restored - read_rgb(photo)).mean() < 20


def test_a_photo_at_once_is_what_the_network_makes_of_it(tmp_path, photo, checkpoint):
    forked(
        "deblur_lab.predict", f"checkpoint={checkpoint}", f"input={photo}", "output=out", cwd=tmp_path
    ).succeeded()
    net, _ = load_net(checkpoint)
    with torch.inference_mode():
        expected = to_uint8(net(to_tensor(read_rgb(photo))[None])[0])
    np.testing.assert_array_equal(read_rgb(tmp_path / "out" / f"{NAME}.png"), expected)


def test_a_folder_keeps_its_layout_and_one_bad_picture_spoils_no_other(tmp_path, photo, checkpoint):
    folder = photo.parent
    (folder / "below").mkdir()
    Image.new("L", (20, 9), 90).save(folder / "below" / "gray.png")
    Image.new("RGBA", (1, 1), (9, 9, 9, 255)).save(folder / "dot.webp")
    (folder / "notes.txt").write_text("no picture")
    arguments = [f"checkpoint={checkpoint}", f"input={folder}"]
    forked("deblur_lab.predict", *arguments, "output=all", cwd=tmp_path).succeeded()
    made = {str(path.relative_to(tmp_path / "all")) for path in (tmp_path / "all").rglob("*.png")}
    assert made == {f"{NAME}.png", "below/gray.png", "dot.png"}
    assert Image.open(tmp_path / "all" / "below" / "gray.png").size == (20, 9)

    (folder / "broken.jpg").write_bytes(photo.read_bytes()[:300])
    (folder / "empty.png").touch()
    ended = forked("deblur_lab.predict", *arguments, "output=some", cwd=tmp_path)
    told = ended.failed(3, more_lines=2)
    assert "3 of 5 restored" in ended.stdout
    assert told.startswith("2 could not be restored:\n")
    assert "broken.jpg" in told
    assert "empty.png" in told
    assert len(list((tmp_path / "some").rglob("*.png"))) == 3


def test_photos_that_would_overwrite_each_other_or_themselves_are_refused(tmp_path, photo, checkpoint):
    folder = photo.parent
    Image.new("RGB", (9, 9)).save(folder / f"{NAME}.png")
    told = forked(
        "deblur_lab.predict", f"checkpoint={checkpoint}", f"input={folder}", "output=out", cwd=tmp_path
    ).failed(3)
    assert "would both be written to" in told
    photo.unlink()
    one, many = (f"input={path}" for path in (folder / f"{NAME}.png", folder))
    for source in (one, many):
        told = forked(
            "deblur_lab.predict", f"checkpoint={checkpoint}", source, f"output={folder}", cwd=tmp_path
        ).failed(2)
        assert "overwrit" in told
    assert Image.open(folder / f"{NAME}.png").size == (9, 9)


def test_what_was_restored_before_is_not_restored_again(tmp_path, photo, checkpoint):
    for output in ("restored", tmp_path / photo.parent.name / "restored"):
        ended = forked(
            "deblur_lab.predict", f"checkpoint={checkpoint}", "input=.", f"output={output}", cwd=photo.parent
        ).succeeded()
        assert "1 of 1 restored" in ended.stdout
