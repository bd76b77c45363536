"""Curves for people: how scores change with the share of the pixels that a network computes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from deblur_lab.console import SCORE_TITLES

Colour = tuple[int, int, int]

WIDTH_PX, HEIGHT_PX = 620, 440
MARGIN_LEFT_PX, MARGIN_RIGHT_PX, MARGIN_TOP_PX, MARGIN_BOTTOM_PX = 84, 28, 74, 64
ACROSS = 2  # plots in a row
TITLE_PX = 46  # of a dataset, above its plots
FINER = 3  # drawn so many times larger, then reduced: smooth lines

PAPER: Colour = (255, 255, 255)
INK: Colour = (32, 34, 40)
QUIET_INK: Colour = (110, 114, 124)
GRID: Colour = (228, 230, 234)
SELECTED: Colour = (204, 80, 0)
DILATED: Colour = (60, 110, 190)

_LINES = (
    ("selected_share", "selected by the mask", SELECTED),
    ("dilated_share", "with their eight neighbours", DILATED),
)


def threshold_curves(by_dataset: Mapping[str, Sequence[Mapping[str, Any]]]) -> NDArray[np.uint8]:
    """Plot each score against the share of pixels selected, and against that with neighbours, by threshold.

    A plot a score, two in a row, under the dataset's name; scores that do not exist are left out. The numbers
    at the dots are thresholds.

    Args:
        by_dataset: by its name, for each threshold `threshold`, `selected_share`, `dilated_share` and
            `scores`, as `deblur_lab.callbacks.Scores` gathers them.

    Returns:
        (height, width, 3) uint8.
    """
    rows = []
    for dataset, points in by_dataset.items():
        names = list(dict.fromkeys(name for point in points for name in point["scores"]))
        plots = [
            _plot(SCORE_TITLES.get(name, name), points, [point["scores"][name] for point in points])
            for name in names
            if all(math.isfinite(point["scores"][name]) for point in points)
        ]
        if plots:
            # Those of the blurred pixels, which the mask is about, come first.
            plots = plots[len(plots) // 2 :] + plots[: len(plots) // 2] if len(plots) == 4 else plots
            rows.append((dataset, plots))
    heights = [TITLE_PX + -(-len(plots) // ACROSS) * HEIGHT_PX for _, plots in rows]
    width = min(ACROSS, max((len(plots) for _, plots in rows), default=1)) * WIDTH_PX
    canvas = Image.new("RGB", (width, sum(heights) or HEIGHT_PX), PAPER)
    draw = ImageDraw.Draw(canvas)
    top = 0
    for (dataset, plots), height in zip(rows, heights, strict=True):
        draw.text((MARGIN_LEFT_PX, top + 14), f"{dataset}: scores at several thresholds", INK, _font(22))
        for place, plot in enumerate(plots):
            row, column = divmod(place, ACROSS)
            canvas.paste(plot, (column * WIDTH_PX, top + TITLE_PX + row * HEIGHT_PX))
        top += height
    return np.asarray(canvas)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) that span from low to high.

    >>> ticks(0.13, 0.94)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = max(high - low, 1e-9) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= 0.999 * rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]


def _plot(title: str, points: Sequence[Mapping[str, Any]], values: Sequence[float]) -> Image.Image:
    """One score against the shares, (HEIGHT_PX, WIDTH_PX)."""
    image = Image.new("RGB", (WIDTH_PX * FINER, HEIGHT_PX * FINER), PAPER)
    draw = ImageDraw.Draw(image)
    percents = {key: [100 * point[key] for point in points] for key, _, _ in _LINES}
    # A hundredth of a dB, or a ten-thousandth, is no difference to be drawn large.
    least = 0.05 if "dB" in title else 0.002
    middle, spread = (min(values) + max(values)) / 2, max(max(values) - min(values), least)
    across = ticks(0, max(max(shares) for shares in percents.values()))
    up = ticks(middle - 0.6 * spread, middle + 0.6 * spread)
    left, right = MARGIN_LEFT_PX * FINER, (WIDTH_PX - MARGIN_RIGHT_PX) * FINER
    top, bottom = MARGIN_TOP_PX * FINER, (HEIGHT_PX - MARGIN_BOTTOM_PX) * FINER

    def place(percent: float, value: float) -> tuple[float, float]:
        x = left + (percent - across[0]) / (across[-1] - across[0]) * (right - left)
        return x, bottom - (value - up[0]) / (up[-1] - up[0]) * (bottom - top)

    font, small = _font(15 * FINER), _font(13 * FINER)
    for percent in across:
        x = place(percent, up[0])[0]
        draw.line((x, top, x, bottom), GRID, FINER)
        draw.text((x, bottom + 7 * FINER), f"{percent:g}", QUIET_INK, font, anchor="mt")
    digits = max(0, -math.floor(math.log10(up[1] - up[0]) + 1e-9))
    for value in up:
        y = place(across[0], value)[1]
        draw.line((left, y, right, y), GRID, FINER)
        draw.text((left - 8 * FINER, y), f"{value:.{digits}f}", QUIET_INK, font, anchor="rm")
    draw.line((left, top, left, bottom, right, bottom), INK, FINER)
    draw.text((left, 10 * FINER), title, INK, _font(18 * FINER))
    draw.text(((left + right) / 2, bottom + 34 * FINER), "share of the pixels (%)", INK, font, anchor="mt")
    where = float(left)
    for _, name, colour in _LINES:
        y = 50 * FINER
        draw.line((where, y, where + 22 * FINER, y), colour, 2 * FINER)
        draw.text((where + 28 * FINER, y), name, INK, font, anchor="lm")
        where += 28 * FINER + font.getlength(name) + 22 * FINER

    for key, _, colour in reversed(_LINES):
        places = [place(percent, value) for percent, value in zip(percents[key], values, strict=True)]
        if len(places) > 1:
            draw.line(places, colour, 2 * FINER, joint="curve")
        for x, y in places:
            radius = 4.5 * FINER
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour, PAPER, FINER)
    taken: list[tuple[float, float]] = []
    for point, percent, value in zip(points, percents["selected_share"], values, strict=True):
        x, y = place(percent, value)
        if all(abs(x - a) > 30 * FINER or abs(y - b) > 15 * FINER for a, b in taken):
            at = (x, y - 7 * FINER)
            halo = 2 * FINER
            draw.text(
                at, f"{point['threshold']:g}", SELECTED, small, "mb", stroke_width=halo, stroke_fill=PAPER
            )
            taken.append((x, y))
    return image.resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.LANCZOS)


def _font(size_px: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(round(size_px))
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow's wheels come with FreeType"
    return font
