"""A person's own pictures, restored."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from deblur_lab.checkpoints import load_net
from deblur_lab.command_line import folder_for
from deblur_lab.config import plain
from deblur_lab.console import say
from deblur_lab.deblurring import training_patch_px
from deblur_lab.errors import ConfigurationError, DataError
from deblur_lab.images import PICTURE_SUFFIXES, quoted
from deblur_lab.images.files import remove_unfinished
from deblur_lab.images.photos import (
    JPEG_SUFFIXES,
    Kind,
    written_kind,
)
from deblur_lab.photo_jobs import FIGURE_ENDINGS, Figures, Job, restore_photo
from deblur_lab.restorations import require_masks
from deblur_lab.restoring import Restorer, can_explain, converter, device_named


@dataclass
class Tally:
    """What became of the photos so far.

    Attributes:
        restored: How many were.
        failures: A line for each that could not be.
        pixels: Of those that were.
        seconds: That they took.
    """

    restored: int = 0
    failures: list[str] = field(default_factory=list)
    pixels: int = 0
    seconds: float = 0.0

    def line(self, total: int, folder: Path) -> str:
        """The closing summary."""
        failed = f", {len(self.failures)} failed" if self.failures else ""
        speed = f" ({self.pixels / 1e6 / self.seconds:.2g} megapixels a second)" if self.restored else ""
        where = f", in {quoted(folder)}" if self.restored else ""
        return f"{self.restored} of {total} restored{failed}, in {self.seconds:.1f} s{speed}{where}"


def predict(config: DictConfig) -> None:
    """Restore a photo, or all photos of a folder, into another folder.

    Args:
        config: ``conf/predict.yaml``, composed and checked (`deblur_lab.command_line.run`).

    Raises:
        ConfigurationError: a setting does not fit the net or the photos.
        CheckpointError: the checkpoint cannot be used.
        DataError: there is no picture, or some could not be restored (after all others are).
        MachineError: memory, the disk or the device do not suffice.
    """
    settings = plain(config)
    source, output = Path(settings["input"]), Path(settings["output"])
    inputs = pictures_in(source, output)
    jobs = planned(inputs, source, output, settings["format"], settings["explain"])
    device = device_named(settings["device"])
    net, record = load_net(Path(settings["checkpoint"]), tuple(settings["trusted_packages"]))
    net.to(device)
    masking = {"threshold": settings["threshold"], "pruning": settings["pruning"]}
    require_masks(net, quoted(Path(settings["checkpoint"])), **masking)
    for key, value in masking.items():
        if value is not None:
            setattr(net, key, value)
    if settings["explain"] and not can_explain(net):
        raise ConfigurationError(f"explain=true: {type(net).__name__} cannot say where it sees blur")
    restorer = Restorer(net, device, tile_px=settings["tile_px"], overlap_px=settings["overlap_px"], say=say)
    with _local_converter(net, settings, record), _output_folder(output):
        _restore_all(restorer, jobs, settings, output)


def pictures_in(source: Path, output: Path) -> list[Path]:
    """The picture that `source` is, or those below the folder that it is, in order of their paths.

    What lies in the folder `output` was restored by an earlier call, and is left out.

    Raises:
        DataError: it does not exist, or holds no picture.
        ConfigurationError: it is the output as well.
    """
    if not source.exists():
        raise DataError(f"input={quoted(source)} does not exist")
    if source.is_file():
        return [source]
    written = output.absolute()
    if written == source.absolute():
        raise ConfigurationError(
            f"output={quoted(output)} is the input, which would be overwritten: name another"
        )
    found = sorted(
        path
        for path in source.rglob("*")
        if path.suffix.lower() in PICTURE_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
        and written not in path.absolute().parents
    )
    if not found:
        raise DataError(f"input={quoted(source)} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
    return found


def planned(inputs: Sequence[Path], source: Path, folder: Path, form: str, explain: bool) -> list[Job]:
    """Where each restored photo goes: the same place below `folder`, under its name.

    Args:
        inputs: The photos.
        source: The folder in which they lie, or the one photo.
        folder: For the results.
        form: "png", "jpeg", or "auto": JPEG for what is one, else PNG.
        explain: Whether there are pictures of what the net says.

    Raises:
        DataError: two files would have the same name.
        ConfigurationError: a photo would be overwritten.
    """
    jobs = []
    for path in inputs:
        kind: Kind = written_kind(path) if form == "auto" else "jpeg" if form == "jpeg" else "png"
        target = folder / (path.relative_to(source) if path != source else path.name)
        figures = Figures(*(_named(target, ending) for ending in FIGURE_ENDINGS)) if explain else None
        if target.suffix.lower() not in (JPEG_SUFFIXES if kind == "jpeg" else {".png"}):
            target = _named(target, ".jpg" if kind == "jpeg" else ".png")
        jobs.append(Job(path, target, kind, figures))
    _refuse_collisions(jobs, folder)
    return jobs


def _named(path: Path, suffix: str) -> Path:
    """The file's name with another ending; a dot that is part of the name stays."""
    known = path.suffix.lower() in PICTURE_SUFFIXES | JPEG_SUFFIXES
    return path.with_name((path.stem if known else path.name) + suffix)


def _refuse_collisions(jobs: Sequence[Job], folder: Path) -> None:
    photos = {identity: job.source for job in jobs if (identity := _identity(job.source)) is not None}
    taken: dict[Path, Path] = {}
    collisions: dict[tuple[Path, Path], str] = {}
    for job in jobs:
        for target in job.files:
            if target in taken:
                # Of two photos one line, though more than one of their files would collide.
                collisions.setdefault(
                    (taken[target], job.source),
                    f"{quoted(taken[target])} and {quoted(job.source)} would both be written to "
                    f"{quoted(target)}: rename one",
                )
                continue
            taken[target] = job.source
            overwritten = photos.get(_identity(target) or (-1, -1))
            if overwritten is not None:
                raise ConfigurationError(
                    f"output={quoted(folder)} would overwrite {quoted(overwritten)}: name another folder"
                )
    if collisions:
        raise DataError("\n       ".join(collisions.values()))


def _identity(path: Path) -> tuple[int, int] | None:
    """By what a file is told from others, whatever its name is; None if there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino


@contextmanager
def _output_folder(folder: Path) -> Iterator[None]:
    """The folder for the results, proven writable; gone again if nothing was written into it."""
    new = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder_for(str(folder), "")
    remove_unfinished(folder)
    try:
        yield
    finally:
        below = sorted(folder.rglob("*"), reverse=True) if new else []
        for made in (*(path for path in below if path.is_dir()), *new):
            if not any(made.iterdir()):
                made.rmdir()


@contextmanager
def _local_converter(net: nn.Module, settings: Mapping[str, Any], record: dict[str, Any]) -> Iterator[None]:
    """The test-time local converter, if it is asked for."""
    on = settings["tlc"] in ("on", True)
    size_px = (settings["tlc_size_px"] or training_patch_px(record)) if on else None
    with converter(net, size_px):
        if on:
            say(
                f"test-time local converter on ({size_px} px patches): it is for pictures like those that "
                "the net was trained on; where coloured mosaics show up, switch it off (tlc=off)"
            )
        yield


def _restore_all(restorer: Restorer, jobs: Sequence[Job], settings: Mapping[str, Any], folder: Path) -> None:
    tally, started = Tally(), time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns) as progress:
            restorer.say = partial(progress.console.print, markup=False, highlight=False, soft_wrap=True)
            bar = progress.add_task("restoring", total=len(jobs))
            for number, job in enumerate(jobs):

                def advance(share: float, done: int = number) -> None:
                    progress.update(bar, completed=done + share)

                try:
                    _, photo = restore_photo(restorer, job, settings, advance)
                except DataError as error:
                    tally.failures.append(str(error))
                else:
                    tally.restored += 1
                    tally.pixels += photo.size[0] * photo.size[1]
                    for note in photo.notes:
                        restorer.say(f"{quoted(job.source.name)}: {note}")
                advance(1)
    except BaseException:
        for line in tally.failures:
            say(f"could not be restored: {line}")
        raise
    finally:
        # However it ends: what is counted is written whole.
        tally.seconds = time.monotonic() - started
        say(tally.line(len(jobs), folder))
    if tally.failures:
        raise DataError(
            f"{len(tally.failures)} could not be restored:\n       " + "\n       ".join(tally.failures)
        )
