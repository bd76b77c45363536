"""A recipe trains the same network however its batch is divided."""

import pytest
from PIL import Image

from tests.commands.conftest import arguments_of_trained, latest
from tests.commands.processes import forked
from tests.commands.runs import checkpoint_of, largest_difference, results_of, rows_of

# Gradients are added up in another order: the largest difference seen is 5e-7, while a step moves 1e-3.
ROUNDING = 2e-5


def arguments(datasets, *more):
    # With an average of the weights, whose parameters no device may wait for.
    return arguments_of_trained(datasets, "trainer.max_steps=6", "model.ema_decay=0.9", *more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, datasets):
    """A folder that holds `run`, trained by one process that takes its batches at once."""
    folder = tmp_path_factory.mktemp("whole")
    said = forked(
        "deblur_lab.train", *arguments(datasets, "evaluate=false"), "output=run", cwd=folder
    ).succeeded()
    assert "1 device(s) (cpu, 32-true) x 2 x 1 accumulated" in said.stdout
    return folder


def test_in_parts(tmp_path, datasets, whole):
    parts = arguments(datasets, "evaluate=false", "data.micro_batch_size=1")
    said = forked("deblur_lab.train", *parts, "output=run", cwd=tmp_path).succeeded()
    assert "1 device(s) (cpu, 32-true) x 1 x 2 accumulated" in said.stdout
    assert largest_difference(whole / "run", tmp_path / "run") < ROUNDING
    assert checkpoint_of(tmp_path / "run")["global_step"] == 6
    one, other = (rows_of(folder / "run" / "metrics.csv") for folder in (whole, tmp_path))
    for key in ("step", "train/lr"):
        assert [row[key] for row in one] == [row[key] for row in other]
    assert [bool(row["val/psnr_db"]) for row in one] == [bool(row["val/psnr_db"]) for row in other]


def test_on_two_devices(tmp_path, datasets, whole):
    two = arguments(datasets, "trainer.devices=2", "trainer.strategy=ddp")
    said = forked("deblur_lab.train", *two, "output=run", cwd=tmp_path).succeeded()
    assert "2 device(s) (cpu, 32-true) x 1 x 1 accumulated" in said.stdout
    # Only one of them speaks.
    assert said.stdout.count("trained to step 6") == 1
    assert said.stderr == ""
    assert largest_difference(whole / "run", tmp_path / "run") < ROUNDING
    # Three images on two devices: none is scored twice.
    assert scored(tmp_path, tmp_path / "run", datasets / "ReLoBlur", "alone") == scores_of(tmp_path / "run")


@pytest.fixture
def many_sizes(tmp_path, datasets):
    """Three pictures, each of its own size."""
    there = datasets / "folder" / "test"
    for kind in ("blurry", "sharp", "mask"):
        folder = tmp_path / "many sizes" / "test" / kind
        folder.mkdir(parents=True)
        files = sorted((there / kind).iterdir())
        for number, file in enumerate(files):
            with Image.open(file) as picture:
                width, height = picture.width - 7 * number, picture.height - 5 * (2 - number)
                picture.crop((number, 0, number + width, height)).save(folder / f"{number}.png")
    return tmp_path / "many sizes"


@pytest.mark.parametrize("devices", [2, 4])
def test_scores_do_not_depend_on_the_number_of_devices(tmp_path, many_sizes, trained, devices):
    """Three pictures of as many sizes: on two devices, one has more; on four, one has none."""
    several = [f"trainer.devices={devices}", "trainer.strategy=ddp"]
    alone = scored(tmp_path, trained / "run", many_sizes, "alone", "data=folder")
    assert scored(tmp_path, trained / "run", many_sizes, "several", "data=folder", *several) == alone
    assert [result["images"] for result in alone[0]] == [3]


def scored(tmp_path, run, root, output, *arguments):
    """What `evaluate` writes of a run's last checkpoint."""
    typed = ["data=reloblur", f"data.root={root}", "data.num_workers=0", "trainer=cpu", "pictures=0"]
    checkpoint = f"checkpoint={run / 'checkpoints' / 'last.ckpt'}"
    typed = latest(*typed, *arguments, f"output={output}", checkpoint)
    ended = forked("deblur_lab.evaluate", *typed, cwd=tmp_path).succeeded()
    assert ended.stdout.count("scores.json, scores.csv and pictures/ are in") == 1
    return scores_of(tmp_path / output)


def scores_of(folder):
    return results_of(folder), rows_of(folder / "scores.csv")
