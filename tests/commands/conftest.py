"""Datasets and a trained run, made once for all test processes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from deblur_lab.data.synthesize import Settings, synthesize
from tests.commands.processes import TINY, python_m

STEPS = 16


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Makes a folder, or waits for the test process that makes it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder, unfinished = shared / name, shared / f"{name}.unfinished"
        with FileLock(shared / f"{name}.lock"):
            if not folder.exists():
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                fill(unfinished)
                unfinished.rename(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def datasets(made_once) -> Path:
    """`ReLoBlur`, `GoPro` (as published) and `folder`, each of six training and three test pairs."""

    def fill(folder: Path) -> None:
        for name, layout in {"ReLoBlur": "reloblur", "GoPro": "gopro", "folder": "folder"}.items():
            synthesize(
                Settings(
                    folder / name,
                    layout,
                    train_scenes=6,
                    test_scenes=3,
                    size_px=(96, 80),
                    num_workers=0,
                )
            )

    return made_once("datasets", fill)


@pytest.fixture(scope="session")
def trained(made_once, datasets) -> Path:
    """A folder that holds `run`, a finished run of `STEPS` steps on ReLoBlur, and what it said."""

    def fill(folder: Path) -> None:
        ended = python_m("deblur_lab.train", *arguments_of_trained(datasets), "output=run", cwd=folder)
        (folder / "stdout").write_text(ended.succeeded().stdout, encoding="utf-8")

    return made_once("trained", fill)


def arguments_of_trained(datasets: Path, *others: str) -> list[str]:
    """What `trained` was started with, but for where it writes, and with others added or put in place."""
    arguments = [
        "data=reloblur",
        f"data.root={datasets / 'ReLoBlur'}",
        *TINY,
        f"trainer.max_steps={STEPS}",
        "val_every_steps=4",
        "checkpoint_every_steps=5",
        *others,
    ]
    return latest(*arguments)


def latest(*arguments: str) -> list[str]:
    """Of arguments that set the same, the last ones: to give a setting twice is a mistake."""
    return list({argument.partition("=")[0]: argument for argument in arguments}.values())


@pytest.fixture
def own_run(trained, tmp_path) -> Path:
    """A copy of the trained run, to spoil."""
    return Path(shutil.copytree(trained / "run", tmp_path / "run"))
