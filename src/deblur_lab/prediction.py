"""A person's own pictures, restored."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from deblur_lab.callbacks.findings import USUAL_THRESHOLD
from deblur_lab.checkpoints import load_net
from deblur_lab.command_line import folder_for
from deblur_lab.config import plain
from deblur_lab.console import say
from deblur_lab.deblurring import training_patch_px
from deblur_lab.errors import ConfigurationError, DataError, DivergedError, MachineError
from deblur_lab.images import PICTURE_SUFFIXES, ImageError, quoted, to_uint8, write_png
from deblur_lab.images.files import remove_unfinished
from deblur_lab.images.photos import (
    JPEG_SUFFIXES,
    Kind,
    Photo,
    eight_bits,
    over_white,
    read_photo,
    restored_photo,
    shown,
    write_photo,
    written_kind,
)
from deblur_lab.inside import Insight
from deblur_lab.pictures import (
    FeatureMap,
    FeatureRow,
    Picture,
    attention_figure,
    blur_figure,
    explained_panel,
    feature_figure,
    motion_figure,
    sharpening_figure,
)
from deblur_lab.restoring import Explained, Restorer, can_explain, converter, device_named
from deblur_lab.tasks import mask_threshold, require_masks

FIGURE_ENDINGS = (".explained.png", ".blur.png", ".motion.png", ".features.png", ".attention.png")
"""Of the files in `Figures`, after the photo's name."""


@dataclass(frozen=True)
class Job:
    """One photo to restore.

    Attributes:
        source: Its file.
        target: The file of the restored photo.
        kind: Of that file.
        figures: The files of what the net says of it, if that is wanted.
    """

    source: Path
    target: Path
    kind: Kind
    figures: "Figures | None"

    @property
    def files(self) -> tuple[Path, ...]:
        """All that may be written."""
        return (self.target, *(self.figures or ()))


class Figures(NamedTuple):
    """The files of what the net says of a photo; those of what it does not say are not written.

    Attributes:
        panel: The photo, the restored one, blur and motion side by side; of an AIBNet the photo, and what
            each sub-decoder made of it.
        blur: Where blur is predicted, over the photo.
        motion: Which motion is, likewise.
        features: Feature maps of an AIBNet.
        attention: What the masks of an AIBNet keep.
    """

    panel: Path
    blur: Path
    motion: Path
    features: Path
    attention: Path


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
                    photo = _restore(restorer, job, settings, advance)
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


def _restore(
    restorer: Restorer, job: Job, settings: Mapping[str, Any], progress: Callable[[float], None]
) -> Photo:
    """Restore one photo and write it.

    Returns:
        What was written, with notes on what was not kept.
    """
    photo = read_photo(job.source, max_pixels=settings["max_pixels"])
    try:
        pixels, explained = shown(photo), None
        if job.figures is None:
            pixels = restorer.restore(pixels, progress)
        else:
            explained = restorer.explain(pixels, progress)
            pixels = explained.pixels
        restored = restored_photo(photo, pixels)
        _make_folder(job.target.parent)
        notes = write_photo(job.target, restored, job.kind, jpeg_quality=settings["jpeg_quality"])
        if explained is not None and job.figures is not None:
            own = mask_threshold(restorer.net)
            threshold = USUAL_THRESHOLD if own is None else own
            _write_figures(job.figures, photo, restored, explained, threshold)
    except DivergedError as error:
        raise DivergedError(f"{quoted(job.source)}: {error}") from error
    except MemoryError as error:
        width, height = photo.size
        raise ImageError(
            f"{quoted(job.source)}: there is not enough memory for its {width} x {height} pixels"
        ) from error
    return replace(restored, notes=photo.notes + notes)


def _write_figures(
    files: Figures, photo: Photo, restored: Photo, explained: Explained, threshold: float
) -> None:
    """Write what the net says of a photo, side by side and each by itself over the whole photo."""
    reduction = explained.reduction
    before, after = _reduced(photo, reduction), _reduced(restored, reduction)
    probability, motion = explained.probability, explained.motion
    visible = None
    if photo.alpha is not None:
        # Where nothing is seen, the net was shown something, but has nothing to say.
        size = (before.shape[1], before.shape[0])
        opaque = np.ascontiguousarray(photo.alpha > 0).astype(np.float32)
        visible = torch.from_numpy(cv2.resize(opaque, size, interpolation=cv2.INTER_AREA))
        probability = None if probability is None else probability * visible
        motion = None if motion is None else motion * visible
    if explained.insight is not None:
        _write_insight(files, before, after, explained.insight, visible)
        return
    panel = explained_panel(before, after, probability, motion, reduction=reduction, threshold=threshold)
    write_png(files.panel, panel)
    whole = _reduced(photo, 1)
    if probability is not None:
        write_png(files.blur, blur_figure(whole, probability, reduction=reduction, threshold=threshold))
    if motion is not None:
        figure = motion_figure(whole, motion, probability, reduction=reduction, threshold=threshold)
        write_png(files.motion, figure)


def _write_insight(
    files: Figures, before: Picture, after: Picture, insight: Insight, visible: Tensor | None
) -> None:
    """Write what the sub-decoders of a net did to a photo."""
    earlier = [to_uint8(restored) for restored in insight.restorations[:-1]]
    if visible is not None:
        # As the photo: over white where nothing is seen.
        unseen = visible.numpy() == 0
        for picture in earlier:
            picture[unseen] = 255
    write_png(files.panel, sharpening_figure(before, [*earlier, after]))
    rows = [
        FeatureRow(
            row.title,
            [one if visible is None else FeatureMap(one.name, one.values * visible) for one in row.maps],
        )
        for row in insight.rows
    ]
    if rows:
        write_png(files.features, feature_figure(before, rows))
    kept = [row for row in insight.kept if row]
    if kept:
        write_png(files.attention, attention_figure(kept))


def _reduced(photo: Photo, reduction: int) -> NDArray[np.uint8]:
    """8-bit RGB over white, smaller by a whole factor, rounded up."""
    pixels = np.ascontiguousarray(eight_bits(over_white(photo).pixels))
    if reduction == 1:
        return pixels.astype(np.uint8, copy=False)
    width, height = (-(-side // reduction) for side in photo.size)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{quoted(folder)} cannot be made: {error.strerror or error}") from error
