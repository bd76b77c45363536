"""How a picture becomes sharper from one sub-decoder to the next."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from deblur_lab.pictures.drawing import (
    BACKGROUND,
    QUIET_TEXT,
    TEXT,
    Colour,
    Picture,
    Run,
    draw_runs,
    font,
    shortened,
    wrapped,
)
from deblur_lab.pictures.heat import column_enlargement, column_reduction, heat_colours, in_column
from deblur_lab.pictures.panels import BETTER, NARROWEST_COLUMN_PX, WORSE

CROPS = 2
CROP_COLOURS: tuple[Colour, ...] = ((255, 106, 0), (64, 224, 255))

_CROP_SHARE = 0.25  # of the picture's shorter side
_SMALLEST_CROP_PX = 24
_LARGEST_CROP_PX = 128  # which is at least doubled


def sharpening_figure(
    blurry: Picture,
    restorations: Sequence[Picture],
    sharp: Picture | None = None,
    *,
    psnr_db: Sequence[float] | None = None,
    title: str = "",
) -> Picture:
    """Lay out what each sub-decoder made of a picture, with what changed, and enlarged crops below.

    Below each picture but the blurry one stands how far it is from the column to its left, on one scale of
    colours. The crops are where the last restored picture differs most from the blurry one.

    Args:
        blurry: (H, W, 3) uint8.
        restorations: of the sub-decoders, the first one's first; each as `blurry`.
        sharp: likewise, or None.
        psnr_db: of `blurry` and of each restoration, if they are known; gains over the column to the left are
            printed beside them.
        title: one line above the columns; shortened if it is too long.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ValueError: the sizes differ, or there is nothing restored.
    """
    pictures = [blurry, *restorations, *([] if sharp is None else [sharp])]
    if not restorations or any(one.shape != blurry.shape for one in pictures):
        raise ValueError(
            f"restored pictures of one size are expected, but there are {[one.shape for one in pictures]}"
        )
    names = ["blurry", *(f"after sub-decoder {number + 1}" for number in range(len(restorations)))]
    names += [] if sharp is None else ["sharp"]
    boxes = crop_boxes(blurry, restorations[-1])
    changes = _changes(pictures)
    # What is still missing at the end may be far more than what one sub-decoder changes.
    largest = max(1.0, float(np.percentile(np.stack(changes[: len(restorations)]), 99.5)))
    shown: list[Picture | None] = [None, *(heat_colours(one, 0.0, largest) for one in changes)]
    columns = [
        _column(name, _score_line(number, psnr_db, name), pictures[number], shown[number], boxes)
        for number, name in enumerate(names)
    ]
    note = (
        "How far each picture is from the one to its left, the mean over its colours: from none (black) to "
        f"{largest:.0f} of 255 levels and more (bright)."
    )
    return _lay_out(columns, note, title)


def crop_boxes(blurry: Picture, restored: Picture) -> list[tuple[int, int, int]]:
    """Where two pictures differ most: top, left and side in px of squares that do not overlap."""
    height, width = blurry.shape[:2]
    side = min(
        height, width, max(_SMALLEST_CROP_PX, round(_CROP_SHARE * min(height, width))), _LARGEST_CROP_PX
    )
    change = np.abs(restored.astype(np.float32) - blurry.astype(np.float32)).mean(axis=2)
    sums = np.pad(change.cumsum(axis=0, dtype=np.float64).cumsum(axis=1), ((1, 0), (1, 0)))
    sums = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    boxes: list[tuple[int, int, int]] = []
    for _ in range(CROPS):
        top, left = (int(place) for place in np.unravel_index(int(np.argmax(sums)), sums.shape))
        if not np.isfinite(sums[top, left]):
            break
        boxes.append((top, left, side))
        sums[max(0, top - side + 1) : top + side, max(0, left - side + 1) : left + side] = -np.inf
    return boxes


def _changes(pictures: Sequence[Picture]) -> list[NDArray[np.float32]]:
    """How far each picture but the first is from the one before."""
    return [
        np.abs(after.astype(np.float32) - before.astype(np.float32)).mean(axis=2)
        for before, after in pairwise(pictures)
    ]


class _Column(NamedTuple):
    name: str
    line: list[Run]
    picture: Picture
    change: Picture | None
    crops: Picture


def _column(
    name: str,
    line: list[Run],
    picture: Picture,
    change: Picture | None,
    boxes: Sequence[tuple[int, int, int]],
) -> _Column:
    """Enlarge what stands in a column, draw the boxes, and cut the crops out."""
    scale = column_enlargement(*picture.shape[:2]) / column_reduction(*picture.shape[:2])
    whole = Image.fromarray(in_column(picture))
    draw = ImageDraw.Draw(whole)
    stroke = max(2, round(max(whole.size) / 250))
    column_px = max(whole.width, NARROWEST_COLUMN_PX)
    crop_px = (column_px - stroke * (CROPS - 1)) // CROPS
    crops = Image.new("RGB", (column_px, crop_px), BACKGROUND)
    for number, ((top, left, side), colour) in enumerate(zip(boxes, CROP_COLOURS, strict=False)):
        edges = [round(scale * edge) for edge in (left, top, left + side, top + side)]
        draw.rectangle((edges[0], edges[1], edges[2] - 1, edges[3] - 1), outline=colour, width=stroke)
        part = Image.fromarray(np.ascontiguousarray(picture[top : top + side, left : left + side]))
        crop = part.resize((crop_px, crop_px), Image.Resampling.NEAREST)
        ImageDraw.Draw(crop).rectangle((0, 0, crop_px - 1, crop_px - 1), outline=colour, width=stroke)
        crops.paste(crop, (number * (crop_px + stroke), 0))
    grown = None if change is None else in_column(change)
    return _Column(name, line, np.asarray(whole), grown, np.asarray(crops))


def _score_line(number: int, psnr_db: Sequence[float] | None, name: str) -> list[Run]:
    if name == "sharp":
        return [("ground truth", QUIET_TEXT)]
    if psnr_db is None or number >= len(psnr_db) or math.isnan(psnr_db[number]):
        return []
    line: list[Run] = [(f"PSNR {psnr_db[number]:.2f} dB", TEXT)]
    if number > 0 and not math.isnan(psnr_db[number - 1]):
        gain = psnr_db[number] - psnr_db[number - 1]
        line.append((f"{gain:+.2f}", BETTER if gain >= 0 else WORSE))
    return line


def _lay_out(columns: Sequence[_Column], note: str, title: str) -> Picture:
    height = columns[0].picture.shape[0]
    column_px = columns[0].crops.shape[1]
    text_px = max(17, round(column_px / 28))
    face, heading = font(text_px), font(1.25 * text_px)
    gap_px, line_px = max(4, text_px // 2), round(1.4 * text_px)
    heading_top = gap_px + (round(1.6 * line_px) if title else 0)
    picture_top = heading_top + round((2.6 if any(column.line for column in columns) else 1.6) * line_px)
    change_top = picture_top + height + gap_px
    crops_top = change_top + height + gap_px
    width = len(columns) * (column_px + gap_px) + gap_px
    whole = Image.new("RGB", (width, crops_top + columns[0].crops.shape[0] + gap_px), BACKGROUND)
    draw = ImageDraw.Draw(whole)
    if title:
        draw.text((gap_px, gap_px), shortened(title, heading, width - 2 * gap_px), TEXT, heading)
    for number, column in enumerate(columns):
        left = gap_px + number * (column_px + gap_px)
        draw.text((left, heading_top), column.name, TEXT, heading)
        draw_runs(draw, left, heading_top + round(1.4 * line_px), column.line, face)
        whole.paste(Image.fromarray(column.picture), (left, picture_top))
        whole.paste(Image.fromarray(column.crops), (left, crops_top))
        if column.change is not None:
            whole.paste(Image.fromarray(column.change), (left, change_top))
    for number, words in enumerate(wrapped(note, face, column_px - gap_px)):
        draw.text((gap_px, change_top + number * line_px), words, QUIET_TEXT, face)
    return np.asarray(whole)
