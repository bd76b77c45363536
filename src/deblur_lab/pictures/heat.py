"""Feature maps as colours beside the picture that they are of: what a part of a network does to them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from deblur_lab.pictures.drawing import BACKGROUND, QUIET_TEXT, TEXT, Picture, enlarged, font, shortened

NARROWEST_COLUMN_PX = 360  # a heading has room in this
LARGEST_ENLARGED_PX = 1000  # a picture is not enlarged beyond this
LARGEST_COLUMN_PX = 800  # larger pictures are shown reduced

# Of what is seen, so many per cent are darker, and as many brighter, than the colours reach.
_CLIPPED_PERCENT = 0.5

Map = NDArray[np.float32]


class FeatureMap(NamedTuple):
    """How strong features are at each place.

    Attributes:
        name: what they are.
        values: (1, h, w), at least 0.
    """

    name: str
    values: Tensor


class FeatureRow(NamedTuple):
    """Maps that are compared with each other, and have one scale of colours.

    Attributes:
        title: what they show.
        maps: from left to right.
    """

    title: str
    maps: Sequence[FeatureMap]


def feature_figure(picture: Picture, rows: Sequence[FeatureRow], title: str = "") -> Picture:
    """Lay feature maps out in rows, each beginning with the picture.

    Each row has colours of its own, from dark to bright, whose ends stand in its heading: within a row, equal
    colours are equal values. Half a per cent at either end is clipped.

    Args:
        picture: (H, W, 3) uint8.
        rows: of maps of any size; they are stretched over the picture, each of their pixels a rectangle.
        title: one line above; shortened if it is too long.

    Returns:
        (height, width, 3) uint8.
    """
    shown = in_column(picture)
    column_px = max(shown.shape[1], NARROWEST_COLUMN_PX)
    text_px = max(15, round(column_px / 28))
    face, heading = font(text_px), font(1.2 * text_px)
    gap_px, line_px = max(4, text_px // 2), round(1.4 * text_px)
    columns = 1 + max((len(row.maps) for row in rows), default=0)
    row_px = shown.shape[0] + 3 * line_px + gap_px
    top = gap_px + (round(1.6 * line_px) if title else 0)
    whole = Image.new("RGB", (columns * (column_px + gap_px) + gap_px, top + len(rows) * row_px), BACKGROUND)
    draw = ImageDraw.Draw(whole)
    if title:
        draw.text((gap_px, gap_px), shortened(title, heading, whole.width - 2 * gap_px), TEXT, heading)
    for row in rows:
        maps = [_as_map(one.values) for one in row.maps]
        low, high = scale_of(maps)
        draw.text((gap_px, top), shortened(row.title, heading, column_px), TEXT, heading)
        bar = _bar(low, high, text_px)
        whole.paste(Image.fromarray(bar), (2 * gap_px + column_px, top + round(0.15 * line_px)))
        names_top = top + round(1.5 * line_px)
        pictures = [shown, *(_over(heat_colours(one, low, high), shown.shape) for one in maps)]
        for number, (name, part) in enumerate(
            zip(["the picture", *(m.name for m in row.maps)], pictures, strict=True)
        ):
            left = gap_px + number * (column_px + gap_px)
            draw.text((left, names_top), shortened(name, face, column_px), QUIET_TEXT, face)
            whole.paste(Image.fromarray(part), (left, names_top + line_px))
        top += row_px
    return np.asarray(whole)


def in_column(picture: Picture) -> Picture:
    """A picture as it stands in a column: enlarged or reduced, if it must be, by a whole factor."""
    height, width = picture.shape[:2]
    reduction = column_reduction(height, width)
    if reduction > 1:
        size = (-(-width // reduction), -(-height // reduction))
        reduced: Picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        return reduced
    return enlarged(picture, column_enlargement(height, width))


def column_enlargement(height: int, width: int) -> int:
    """The whole factor by which a picture of a size in px is enlarged to stand in a column."""
    wanted = math.ceil(NARROWEST_COLUMN_PX / width)
    return max(1, min(wanted, LARGEST_ENLARGED_PX // max(height, width)))


def column_reduction(height: int, width: int) -> int:
    """The whole factor by which it is reduced."""
    return math.ceil(max(height, width) / LARGEST_COLUMN_PX)


def scale_of(maps: Sequence[Map]) -> tuple[float, float]:
    """The values that the darkest and the brightest colour of maps with one scale stand for."""
    seen = np.concatenate([one.ravel() for one in maps]) if maps else np.zeros(1, np.float32)
    seen = seen[np.isfinite(seen)]
    if not seen.size:
        return 0.0, 1.0
    low, high = np.percentile(seen, (_CLIPPED_PERCENT, 100 - _CLIPPED_PERCENT))
    return float(low), float(high) if high > low else float(low) + 1e-12


def heat_colours(values: Map, low: float, high: float) -> Picture:
    """Colours of values, (H, W), dark for `low` and bright for `high`: (H, W, 3) uint8."""
    share = np.nan_to_num((values - low) / max(high - low, 1e-12)).clip(0, 1)
    coloured = cv2.applyColorMap((share * 255).round().astype(np.uint8), cv2.COLORMAP_INFERNO)
    colours: Picture = cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    return colours


def _as_map(values: Tensor) -> Map:
    found: Map = values[0].float().cpu().numpy()
    return found


def _over(colours: Picture, shape: tuple[int, ...]) -> Picture:
    size = (shape[1], shape[0])
    how = cv2.INTER_AREA if colours.shape[1] > size[0] else cv2.INTER_NEAREST
    over: Picture = cv2.resize(colours, size, interpolation=how).astype(np.uint8, copy=False)
    return over


def _bar(low: float, high: float, text_px: float) -> Picture:
    """The colours from dark to bright, with the values at their ends."""
    face = font(text_px)
    low_text, high_text = f"{low:.3g}", f"{high:.3g}  (mean of absolute values over channels)"
    wide, tall, space = round(7 * text_px), round(1.1 * text_px), round(0.5 * text_px)
    before = math.ceil(face.getlength(low_text)) + space
    after = math.ceil(face.getlength(high_text)) + space
    bar = Image.new("RGB", (before + wide + after, round(1.4 * text_px)), BACKGROUND)
    ramp = np.repeat(np.linspace(0, 1, wide, dtype=np.float32)[None], tall, axis=0)
    bar.paste(Image.fromarray(heat_colours(ramp, 0.0, 1.0)), (before, (bar.height - tall) // 2))
    draw = ImageDraw.Draw(bar)
    draw.text((0, bar.height / 2), low_text, TEXT, face, anchor="lm")
    draw.text((before + wide + space, bar.height / 2), high_text, TEXT, face, anchor="lm")
    return np.asarray(bar)
