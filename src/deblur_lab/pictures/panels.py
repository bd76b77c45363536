"""Panels: what a network was given, what it made of it, where it saw blur and which motion, side by side."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from deblur_lab.images import to_uint8
from deblur_lab.pictures.drawing import (
    BACKGROUND,
    QUIET_TEXT,
    TEXT,
    Colour,
    Picture,
    Run,
    draw_runs,
    enlarged,
    font,
    shortened,
)
from deblur_lab.pictures.figures import (
    PREDICTED,
    TRUE_OUTLINE,
    check_sizes,
    draw_motion,
    mask_overlay,
    motion_key,
)
from deblur_lab.pictures.objects import SeenMotion, seen_motion

NARROWEST_COLUMN_PX = 400  # the heading of a column has room in this
LARGEST_ENLARGED_PX = 1200  # a picture is not enlarged beyond this

BETTER: Colour = (104, 211, 145)
WORSE: Colour = (250, 128, 114)


def comparison_panel(
    blurry: Tensor,
    restored: Tensor,
    sharp: Tensor | None,
    mask: Tensor | None = None,
    probability: Tensor | None = None,
    motion: Tensor | None = None,
    title: str = "",
    scores: Mapping[str, Mapping[str, float]] | None = None,
    true_motion: Tensor | None = None,
    threshold: float = 0.5,
) -> Picture:
    """Lay an image out side by side: blurry, restored, sharp, blur mask, motion, true motion.

    Columns of what is not given are absent. Small pictures are enlarged by a whole factor, each pixel a
    square, so that what is seen is what was computed. Both columns of motion have one scale of colours.

    Args:
        blurry: (3, H, W) in [0, 1].
        restored: (3, H, W), clamped to [0, 1].
        sharp: (3, H, W) in [0, 1], or None.
        mask: (1, H, W), 1 = blurred; the true one.
        probability: (1, H, W) in [0, 1], predicted, that a pixel is blurred.
        motion: (N, 2, H, W), displacements in px over the exposure, x then y, from its start to its end;
            predicted.
        title: one line above the columns; shortened if it is too long.
        scores: of the columns "blurry" and "restored", by the names that a scoring protocol gives them;
            gains are printed where both have one, and NaN is not printed.
        true_motion: like `motion`, but the truth; or (2, 2, H, W), at the start and at the end alone.
        threshold: of the probability; what is likelier is outlined, and its motion drawn.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ValueError: the sizes differ, or the restored image holds NaN.
    """
    height, width = blurry.shape[-2:]
    check_sizes((height, width), restored, sharp, mask, probability, motion, true_motion)
    factor = enlargement(height, width)
    scores = scores or {}
    before, after = scores.get("blurry", {}), scores.get("restored", {})
    given = to_uint8(blurry)
    columns = [
        _Column("blurry", enlarged(given, factor), _score_lines(before, {})),
        _Column("restored", enlarged(to_uint8(restored), factor), _score_lines(after, before)),
    ]
    if sharp is not None:
        columns.append(_Column("sharp", enlarged(to_uint8(sharp), factor), [[("ground truth", QUIET_TEXT)]]))
    if mask is not None or probability is not None:
        columns.append(_blur_column(given, probability, mask, factor, threshold))
    moved = [
        (name, seen_motion(paths, where, over))
        for name, paths, where, over in (
            ("predicted motion", motion, probability, threshold),
            ("true motion", true_motion, mask, 0.5),
        )
        if paths is not None
    ]
    scale_px = max((seen.scale_px for _, seen in moved if seen.objects), default=1.0)
    for name, seen in moved:
        columns.append(_motion_column(name, enlarged(given, factor), seen, factor, factor, scale_px))
    return _lay_out(columns, title)


def explained_panel(
    photo: Picture,
    restored: Picture,
    probability: Tensor | None = None,
    motion: Tensor | None = None,
    *,
    reduction: int = 1,
    threshold: float = 0.5,
) -> Picture:
    """Lay a photo out side by side with what a network made of it and says of it.

    The columns are the photo, the restored photo, where blur is predicted, and which motion. Those of
    what the network does not say are absent. Small photos are enlarged as in `comparison_panel`.

    Args:
        photo: (H, W, 3) uint8.
        restored: (H, W, 3) uint8.
        probability: (1, H, W) in [0, 1], that a pixel is blurred.
        motion: (N, 2, H, W), displacements over the exposure in px of the photo before it was reduced.
        reduction: the factor by which the photo, and all else here, was reduced.
        threshold: of the probability; what is likelier is outlined, and its motion drawn.

    Returns:
        (height, width, 3) uint8.

    Raises:
        ValueError: the sizes differ.
    """
    check_sizes(photo.shape[:2], probability, motion)
    factor = enlargement(*photo.shape[:2])
    scale = f"shown reduced {reduction} times" if reduction > 1 else ""
    columns = [
        _Column("photo", enlarged(photo, factor), [[(scale, QUIET_TEXT)]]),
        _Column("restored", enlarged(restored, factor), []),
    ]
    if probability is not None:
        columns.append(_blur_column(photo, probability, None, factor, threshold))
    if motion is not None:
        seen = seen_motion(motion, probability, threshold)
        canvas = enlarged(photo, factor)
        columns.append(
            _motion_column("predicted motion", canvas, seen, factor, factor / reduction, seen.scale_px)
        )
    return _lay_out(columns, "")


def enlargement(height: int, width: int) -> int:
    """The whole factor by which a picture of a size in px is enlarged, so that what is drawn on it shows."""
    wanted = math.ceil(NARROWEST_COLUMN_PX / width)
    return max(1, min(wanted, LARGEST_ENLARGED_PX // max(height, width)))


class _Column(NamedTuple):
    name: str
    picture: Picture
    lines: list[list[Run]]
    scale_px: float | None = None  # of the wheel that stands in the heading


def _blur_column(
    picture: Picture, probability: Tensor | None, mask: Tensor | None, factor: int, threshold: float
) -> _Column:
    overlay = mask_overlay(picture, probability, mask, enlarge=factor, threshold=threshold)
    true: list[Run] = [("line: true mask", TRUE_OUTLINE)]
    if probability is None:
        return _Column("true blur", overlay, [true])
    lines: list[list[Run]] = [[(f"tint: predicted probability, line: over {threshold:g}", PREDICTED)]]
    if mask is not None:
        lines.append(true)
    return _Column("blur" if mask is not None else "predicted blur", overlay, lines)


def _motion_column(
    name: str, canvas: Picture, seen: SeenMotion, step_px: int, scale: float, scale_px: float
) -> _Column:
    drawn, magnification = draw_motion(canvas, seen, step_px=step_px, scale=scale, scale_px=scale_px)
    caption: list[list[Run]] = [[(seen.caption(magnification), QUIET_TEXT)]]
    return _Column(name, drawn, caption, scale_px if seen.objects else None)


def _score_lines(scores: Mapping[str, float], baseline: Mapping[str, float]) -> list[list[Run]]:
    """Two lines of scores, of the whole image and of its blurred part, with gains over a baseline."""
    whole: list[Run] = []
    blurred: list[Run] = []
    for key, value in scores.items():
        if math.isnan(value):
            continue
        unit, digits = (" dB", 2) if key.endswith("_db") else ("", 3)
        line = blurred if key.startswith("weighted_") else whole
        label = key.removeprefix("weighted_").removesuffix("_db").upper()
        line.append((f"{label} {value:.{digits}f}{unit}", TEXT))
        gain = value - baseline.get(key, math.nan)
        if not math.isnan(gain):
            line.append((f"{gain:+.{digits}f}", BETTER if gain >= 0 else WORSE))
    if blurred:
        blurred.insert(0, ("in blur:", QUIET_TEXT))
    return [line for line in (whole, blurred) if line]


def _lay_out(columns: list[_Column], title: str) -> Picture:
    picture_height, picture_width = columns[0].picture.shape[:2]
    column_px = max(picture_width, NARROWEST_COLUMN_PX)
    text_px = max(17, round(column_px / 28))
    gap_px = max(4, text_px // 2)
    line_px = round(1.4 * text_px)
    heading_font, text_font = font(1.25 * text_px), font(text_px)
    lines = max(len(column.lines) for column in columns)
    title_height = round(1.5 * line_px) if title else 0
    name_height = round(1.35 * line_px)
    top = gap_px + title_height + name_height + lines * line_px + gap_px // 2
    width = len(columns) * (column_px + gap_px) + gap_px
    panel = Image.new("RGB", (width, top + picture_height + gap_px), BACKGROUND)
    draw = ImageDraw.Draw(panel)
    if title:
        draw.text((gap_px, gap_px), shortened(title, heading_font, width - 2 * gap_px), TEXT, heading_font)
    for number, column in enumerate(columns):
        left = gap_px + number * (column_px + gap_px)
        draw.text((left, gap_px + title_height), column.name, TEXT, heading_font)
        for row, runs in enumerate(column.lines):
            draw_runs(draw, left, gap_px + title_height + name_height + row * line_px, runs, text_font)
        if column.scale_px is not None:
            key = motion_key(min(2.4 * line_px, top - title_height - 1.5 * gap_px), column.scale_px)
            at = (left + column_px - key.shape[1] - gap_px, top - key.shape[0] - gap_px // 2)
            panel.paste(Image.fromarray(key), at)
        panel.paste(Image.fromarray(column.picture), (left, top))
    return np.asarray(panel)
