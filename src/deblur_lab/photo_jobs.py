"""One photo restored into a file, with drawings of what the net says of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deblur_lab.errors import DivergedError, MachineError
from deblur_lab.images import ImageError, quoted, to_uint8, write_png
from deblur_lab.images.photos import (
    Kind,
    Photo,
    eight_bits,
    over_white,
    read_photo,
    restored_photo,
    shown,
    write_photo,
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
from deblur_lab.restorations import USUAL_THRESHOLD, mask_threshold
from deblur_lab.restoring import Explained, Restorer

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


def restore_photo(
    restorer: Restorer, job: Job, settings: Mapping[str, Any], progress: Callable[[float], None]
) -> tuple[Photo, Photo]:
    """Restore one photo and write it, and the figures if the job has such.

    Args:
        restorer: with the net.
        job: which photo, and the files to write.
        settings: `max_pixels` and `jpeg_quality` of ``conf/predict.yaml``.
        progress: told the share that is done, in [0, 1].

    Returns:
        The photo, and what was written, with notes on what was not kept.

    Raises:
        ImageError: the photo cannot be read, or memory does not suffice for it.
        DivergedError: the net returns values that are not finite.
        MachineError: not even the smallest tile fits into memory, or a file cannot be written.
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
    return photo, replace(restored, notes=photo.notes + notes)


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
