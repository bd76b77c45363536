"""One photo that a person tries a network on: what is written of it, and what is shown."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import nn

from deblur_lab.images import quoted, read_rgb
from deblur_lab.images.photos import Photo, eight_bits, over_white, write_photo, written_kind
from deblur_lab.models import AIBNet, M2AENet
from deblur_lab.photo_jobs import FIGURE_ENDINGS, Figures, Job, restore_photo
from deblur_lab.restoring import Restorer, can_explain

SHOWN_PX = 2400
"""What is shown of a picture that is longer on a side is reduced to this; the file to keep never is."""

# Of the files in `Figures`, by the net that they are of: what each is called.
_OF_BLUR = {"blur": "Where it sees blur", "motion": "Which motion it sees"}
_OF_SUB_DECODERS = {
    "panel": "What each sub-decoder made of it",
    "features": "Feature maps of the last sub-decoder",
    "attention": "What the masks of its attention keep",
}


class Figure(NamedTuple):
    """A picture of what the net says of a photo.

    Attributes:
        title: What it shows.
        path: Its file, at most `SHOWN_PX` px on a side.
    """

    title: str
    path: Path


@dataclass(frozen=True)
class Tried:
    """What became of a photo.

    Attributes:
        size_px: Width and height of the photo, as displayed.
        before: The photo as a JPEG to look at.
        after: The restored one likewise, of the same size.
        restored: The restored photo with all its pixels and all that is kept of it.
        figures: What the net says of it; none of a net that says nothing.
        notes: What was not kept, a few words each.
    """

    size_px: tuple[int, int]
    before: Path
    after: Path
    restored: Path
    figures: tuple[Figure, ...]
    notes: tuple[str, ...]

    @property
    def reduced(self) -> bool:
        """Whether less is shown than there is."""
        return max(self.size_px) > SHOWN_PX


def try_photo(
    restorer: Restorer,
    source: Path,
    folder: Path,
    *,
    max_pixels: int,
    progress: Callable[[float], None] = lambda share: None,
) -> Tried:
    """Restore a photo as ``python -m deblur_lab.predict explain=true`` does, and make it fit to be shown.

    Args:
        restorer: With the net.
        source: The photo's file.
        folder: An empty one, for the results.
        max_pixels: A larger photo is refused from its header.
        progress: Told the share of the restoring that is done, in [0, 1].

    Raises:
        ImageError: The photo cannot be read, or memory does not suffice for it.
        DivergedError: The net returns values that are not finite.
        MachineError: Not even the smallest tile fits into memory, or a file cannot be written.
    """
    kind = written_kind(source)
    target = folder / f"{source.stem}-restored{'.jpg' if kind == 'jpeg' else '.png'}"
    figures = Figures(*(folder / f"{source.stem}{ending}" for ending in FIGURE_ENDINGS))
    job = Job(source, target, kind, figures if can_explain(restorer.net) else None)
    photo, restored = restore_photo(restorer, job, {"max_pixels": max_pixels, "jpeg_quality": 95}, progress)
    before, after = folder / "before.jpg", folder / "after.jpg"
    for path, picture in ((before, photo), (after, restored)):
        write_photo(path, _to_look_at(picture), "jpeg")
    drawn = tuple(
        Figure(title, _fit_to_show(path))
        for name, title in _titles(restorer.net).items()
        if (path := getattr(figures, name)).exists()
    )
    return Tried(photo.size, before, after, target, drawn, restored.notes)


def named(error: Exception, source: Path) -> str:
    """An error's line with the photo's name in place of the path, which is one of a temporary file."""
    return str(error).replace(quoted(source), quoted(source.name))


def figure_titles(net: nn.Module) -> tuple[str, ...]:
    """Of the figures that there may be of what a net says."""
    return tuple(_titles(net).values())


def _titles(net: nn.Module) -> Mapping[str, str]:
    if not can_explain(net):
        return {}
    if isinstance(net, AIBNet):
        return _OF_SUB_DECODERS
    unsaid = set()
    if isinstance(net, M2AENet):
        unsaid |= {"blur"} if not net.mask_predictors else set()
        unsaid |= {"motion"} if not net.analyzers else set()
    return {name: title for name, title in _OF_BLUR.items() if name not in unsaid}


def _to_look_at(photo: Photo) -> Photo:
    """8 bits over white, small enough, with the colour profile and nothing else of what is kept."""
    pixels = _reduced(np.ascontiguousarray(eight_bits(over_white(photo).pixels)))
    return replace(photo, pixels=pixels, alpha=None, exif=None, notes=())


def _reduced(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    scale = SHOWN_PX / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _fit_to_show(path: Path) -> Path:
    """A figure's file, or that of a smaller version of it."""
    # It is ours, and as large as the photo, which was not too large.
    pixels = read_rgb(path, max_pixels=sys.maxsize)
    if max(pixels.shape) <= SHOWN_PX:
        return path
    shown = path.with_suffix(".jpg")
    write_photo(shown, Photo(_reduced(pixels)), "jpeg")
    return shown
