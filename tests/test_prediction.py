import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deblur_lab import photo_jobs, prediction, restoring
from deblur_lab.errors import ConfigurationError, DataError, DivergedError, MachineError
from deblur_lab.images import read_rgb
from deblur_lab.models import M2AENet
from deblur_lab.photo_jobs import FIGURE_ENDINGS, Figures, Job
from deblur_lab.pictures import PREDICTED
from deblur_lab.prediction import pictures_in, planned
from deblur_lab.restoring import Restorer
from tests.images.test_files import picture
from tests.nets import Fade, small_aibnet, small_m2aenet

SETTINGS = {"max_pixels": 10**6, "jpeg_quality": 95}


def photos(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in names:
        kind = "JPEG" if Path(name).suffix.lower() in {".jpg", ".jpeg"} else "PNG"
        Image.fromarray(picture(8, 9)).save(folder / name, kind)
    return [folder / name for name in names]


def restore_all(jobs: list[Job], folder: Path, net: torch.nn.Module | None = None) -> None:
    restorer = Restorer(net or Fade(), torch.device("cpu"))
    prediction._restore_all(restorer, jobs, SETTINGS, folder)


def test_names_and_kinds_of_the_results(tmp_path):
    names = ("a.JPG", "b.jpeg", "c.PNG", "d.tif", "e", "f v1.2 final", "g.x.bmp")
    inputs = photos(tmp_path / "in", *names)

    def targets(form: str) -> list[str]:
        return [job.target.name for job in planned(inputs, tmp_path / "in", tmp_path / "out", form, False)]

    assert targets("auto") == ["a.JPG", "b.jpeg", "c.PNG", "d.png", "e.png", "f v1.2 final.png", "g.x.png"]
    assert targets("png") == ["a.png", "b.png", "c.PNG", "d.png", "e.png", "f v1.2 final.png", "g.x.png"]
    assert targets("jpeg") == ["a.JPG", "b.jpeg", "c.jpg", "d.jpg", "e.jpg", "f v1.2 final.jpg", "g.x.jpg"]
    (job,) = planned(inputs[:1], inputs[0], tmp_path / "out", "auto", True)
    figures = Figures(*(tmp_path / "out" / f"a{ending}" for ending in FIGURE_ENDINGS))
    assert job == Job(inputs[0], tmp_path / "out" / "a.JPG", "jpeg", figures)
    assert job.files == (tmp_path / "out" / "a.JPG", *figures)
    # What a file is counts, not what its name says.
    os.rename(inputs[0], inputs[2])
    (job,) = planned([inputs[2]], inputs[2], tmp_path / "out", "auto", False)
    assert (job.target.name, job.kind) == ("c.jpg", "jpeg")


def test_no_photo_is_overwritten_under_any_name(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    inputs = photos(source, "a.png", "b.png")
    out.mkdir()
    os.link(inputs[1], out / "a.png")
    with pytest.raises(
        ConfigurationError, match=r"output=.*out would overwrite .*b\.png: name another folder"
    ):
        planned(inputs, source, out, "auto", False)
    (out / "a.png").unlink()
    for kind in ("explained", "blur", "motion"):
        (out / f"a.{kind}.png").symlink_to(inputs[0])
        with pytest.raises(ConfigurationError, match=r"would overwrite .*a\.png"):
            planned(inputs, source, out, "auto", True)
        (out / f"a.{kind}.png").unlink()
    assert planned(inputs, source, out, "auto", False)
    with pytest.raises(ConfigurationError, match="is the input, which would be overwritten"):
        pictures_in(source, source)


@pytest.mark.parametrize("kind", ["explained", "blur", "motion"])
def test_a_photo_of_a_figures_name_is_refused(tmp_path, kind):
    inputs = photos(tmp_path / "in", "a.jpg", f"a.{kind}.png")
    with pytest.raises(DataError, match=rf"would both be written to .*a\.{kind}\.png: rename one"):
        planned(inputs, tmp_path / "in", tmp_path / "out", "auto", True)
    assert planned(inputs, tmp_path / "in", tmp_path / "out", "auto", False)


def test_what_cannot_be_restored_is_listed_and_the_rest_is_restored(tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    inputs = photos(source, "a.png", "b.png", "c.png")
    inputs[1].write_bytes(b"no picture")
    with pytest.raises(
        DataError, match=r"^1 could not be restored:\n       .*b\.png: not a picture"
    ) as caught:
        restore_all(planned(inputs, source, out, "auto", False), out)
    assert str(caught.value).count("\n") == 1
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "c.png"]
    assert np.abs(read_rgb(out / "a.png") - (picture(8, 9) * 0.5 + 63.75)).max() <= 0.51
    assert "2 of 3 restored, 1 failed, in 0." in capsys.readouterr().out


def test_a_full_disk_ends_it_and_leaves_nothing_half_written(tmp_path, capsys, little_space):
    source, out = tmp_path / "in", tmp_path / "out"
    inputs = photos(source, "a.png", "b.png")
    inputs[0].write_bytes(b"no picture")
    Image.new("RGB", (200, 200)).save(inputs[1])
    monkeypatched = Restorer(_Noise(), torch.device("cpu"))
    with pytest.raises(MachineError, match=r"b\.png cannot be written: File too large"):
        prediction._restore_all(monkeypatched, planned(inputs, source, out, "auto", False), SETTINGS, out)
    assert not list(out.iterdir())
    said = capsys.readouterr().out
    # What was met before is not lost.
    assert f"could not be restored: {inputs[0]}: not a picture" in said
    assert "0 of 2 restored, 1 failed, in 0." in said


class _Noise(torch.nn.Module):
    """What cannot be compressed."""

    def forward(self, blurry: torch.Tensor) -> torch.Tensor:
        return torch.rand_like(blurry)


def test_damaged_weights_name_the_photo(tmp_path):
    class Broken(torch.nn.Module):
        def forward(self, blurry: torch.Tensor) -> torch.Tensor:
            return blurry * torch.nan

    inputs = photos(tmp_path / "in", "a.png")
    with pytest.raises(DivergedError, match=r"a\.png: what the network makes of it is not finite"):
        restore_all(planned(inputs, inputs[0], tmp_path / "out", "auto", False), tmp_path / "out", Broken())


def test_a_lack_of_memory_for_a_photo_is_its_own_failure(tmp_path, monkeypatch):
    inputs = photos(tmp_path / "in", "a.png", "b.png")

    def greedy(photo: object) -> None:
        raise MemoryError

    monkeypatch.setattr(photo_jobs, "shown", greedy)
    with pytest.raises(
        DataError, match=r"2 could not be restored:\n.*not enough memory for its 9 x 8 pixels"
    ):
        restore_all(planned(inputs, tmp_path / "in", tmp_path / "out", "auto", False), tmp_path / "out")


def test_nothing_is_said_of_what_cannot_be_seen(tmp_path):
    rgba = np.concatenate([picture(64, 64), np.full((64, 64, 1), 255, np.uint8)], axis=2)
    rgba[:, :32, 3] = 0
    (tmp_path / "in").mkdir()
    Image.fromarray(rgba).save(tmp_path / "in" / "a.png")
    net = small_m2aenet()
    torch.nn.init.zeros_(net.mask_predictors["3"].decide[-1].weight)
    net.mask_predictors["3"].decide[-1].bias.data = torch.tensor([9.0, 0.0])  # blurred, all of it
    jobs = planned([tmp_path / "in" / "a.png"], tmp_path / "in", tmp_path / "out", "auto", True)
    restore_all(jobs, tmp_path / "out", net)
    panel = read_rgb(tmp_path / "out" / "a.explained.png").astype(int)
    column = panel.shape[1] // 4
    tint = np.abs(
        panel[-200:, 2 * column : 3 * column]
        - panel[-200:, 2 * column : 3 * column].mean(axis=2, keepdims=True)
    )
    left, right = tint[:, 40 : column // 2 - 40].mean(), tint[:, column // 2 + 40 : -40].mean()
    assert right > 10 * left
    assert right > 0.1 * max(PREDICTED)


def test_drawings_have_the_threshold_of_the_net(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(picture(64, 64)).save(tmp_path / "in" / "a.png")
    net = small_m2aenet()
    torch.nn.init.zeros_(net.mask_predictors["3"].decide[-1].weight)
    net.mask_predictors["3"].decide[-1].bias.data = torch.tensor([-0.4, 0.0])  # blurred with p = 0.4
    for threshold in (0.3, 0.5):
        net.threshold = threshold
        out = tmp_path / str(threshold)
        restore_all(planned([tmp_path / "in" / "a.png"], tmp_path / "in", out, "auto", True), out, net)
    blur, motion, panel = (
        [read_rgb(tmp_path / str(threshold) / f"a.{kind}.png") for threshold in (0.3, 0.5)]
        for kind in ("blur", "motion", "explained")
    )
    legend = blur[0].shape[0] - 64 * (1000 // 64)
    np.testing.assert_array_equal(blur[0][:-legend], blur[1][:-legend])  # all of it, so that nothing ends
    assert (blur[0][-legend:] != blur[1][-legend:]).any()
    chroma = [int(np.ptp(one, axis=2).max()) for one in motion]
    assert chroma[0] > 100 > chroma[1]
    left = 3 * panel[0].shape[1] // 4
    assert (panel[0][-300:, left:] != panel[1][-300:, left:]).any()


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ({}, ["a.blur.png", "a.explained.png", "a.motion.png", "a.png"]),
        ({"mask_aware": False}, ["a.explained.png", "a.motion.png", "a.png"]),
        ({"motion_aware": False}, ["a.blur.png", "a.explained.png", "a.png"]),
    ],
)
def test_what_the_net_says_is_drawn_over_the_whole_photo(tmp_path, monkeypatch, said, written):
    """Though the maps are kept reduced, and a photo's sides are no multiple of the factor."""
    monkeypatch.setattr(restoring, "EXPLAINED_PX", 40)
    (tmp_path / "in").mkdir()
    Image.fromarray(picture(58, 77)).save(tmp_path / "in" / "a.png")
    jobs = planned([tmp_path / "in" / "a.png"], tmp_path / "in", tmp_path / "out", "auto", True)
    restore_all(jobs, tmp_path / "out", M2AENet(4, [1, 1, 1], 1, [1, 0, 1], predictor_stages=[3], **said))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == written
    for kind in ("blur", "motion"):
        if f"a.{kind}.png" in written:
            figure = read_rgb(tmp_path / "out" / f"a.{kind}.png")
            factor = 1000 // 77
            assert figure.shape[1] == 77 * factor
            assert 58 * factor < figure.shape[0] < 70 * factor


def test_what_sub_decoders_do_is_drawn(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(picture(58, 77)).save(tmp_path / "in" / "a.png")
    rgba = np.concatenate([picture(58, 77), np.full((58, 77, 1), 255, np.uint8)], axis=2)
    rgba[:30, ..., 3] = 0
    Image.fromarray(rgba).save(tmp_path / "in" / "b.png")
    inputs = [tmp_path / "in" / name for name in ("a.png", "b.png")]
    jobs = planned(inputs, tmp_path / "in", tmp_path / "out", "auto", True)
    restore_all(jobs, tmp_path / "out", small_aibnet())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{name}.{kind}"
        for name in "ab"
        for kind in ("attention.png", "explained.png", "features.png", "png")
    ]
    # Nothing is shown where the photo is transparent.
    features = read_rgb(tmp_path / "out" / "b.features.png")
    column = features[80:, features.shape[1] // 3 + 20 : 2 * features.shape[1] // 3 - 20]
    assert column[20:60].max(axis=(0, 1)).sum() < column[220:260].max(axis=(0, 1)).sum()
