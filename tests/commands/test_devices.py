"""A recipe trains the same network however its batch is divided."""

import pytest

from tests.commands.conftest import arguments_of_trained
from tests.commands.processes import forked, python_m
from tests.commands.runs import checkpoint_of, largest_difference, results_of, rows_of

# Gradients are added up in another order: the largest difference seen is 5e-7, while a step moves 1e-3.
ROUNDING = 2e-5


def arguments(datasets, *more):
    # With an average of the weights, whose parameters no device may wait for.
    return [*arguments_of_trained(datasets), "trainer.max_steps=6", "model.ema_decay=0.9", *more]


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
    said = python_m("deblur_lab.train", *two, "output=run", cwd=tmp_path).succeeded()
    assert "2 device(s) (cpu, 32-true) x 1 x 1 accumulated" in said.stdout
    # Only one of them speaks.
    assert said.stdout.count("trained to step 6") == 1
    assert largest_difference(whole / "run", tmp_path / "run") < ROUNDING
    # Three images on two devices: none is scored twice.
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    root = f"data.root={datasets / 'ReLoBlur'}"
    alone = ["data=reloblur", root, "data.num_workers=0", "trainer=cpu", "pictures=0", "output=alone"]
    forked("deblur_lab.evaluate", f"checkpoint={checkpoint}", *alone, cwd=tmp_path).succeeded()
    assert results_of(tmp_path / "run") == results_of(tmp_path / "alone")
    assert rows_of(tmp_path / "run" / "scores.csv") == rows_of(tmp_path / "alone" / "scores.csv")
