"""How much of its attention each mask of a high-frequency selection keeps, as bars."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from deblur_lab.pictures.drawing import (
    BACKGROUND,
    QUIET_TEXT,
    TEXT,
    Colour,
    Picture,
    font,
    shortened,
    wrapped,
)

BAR: Colour = (255, 106, 0)
GROUND: Colour = (52, 54, 61)
TICK: Colour = (64, 224, 255)

_WIDTH_PX = 330  # of one chart
_TEXT_PX = 16


class BlockAttention(NamedTuple):
    """What the masks of one block keep.

    Attributes:
        name: of the block.
        attention: of each mask, the share in [0, 1] of the attention that lies in the entries which it keeps.
        entries: of each mask, the share in [0, 1] of the entries that it keeps.
        weights: lambda of equation 4, of each mask; may be negative.
    """

    name: str
    attention: Sequence[float]
    entries: Sequence[float]
    weights: Sequence[float]


def attention_figure(rows: Sequence[Sequence[BlockAttention]], title: str = "") -> Picture:
    """Draw a small chart for each block: a bar for each mask, all from 0 to 100 %.

    A bar is the share of the attention that a mask keeps, a tick in it the share of the entries: a bar that
    reaches far beyond its tick is of a mask that keeps what matters.

    Args:
        rows: of blocks; a row is of one sub-decoder.
        title: one line above.

    Returns:
        (height, width, 3) uint8.
    """
    face, heading = font(_TEXT_PX), font(1.2 * _TEXT_PX)
    gap, line = round(0.8 * _TEXT_PX), round(1.4 * _TEXT_PX)
    columns = max((len(row) for row in rows), default=1)
    bars = max((len(block.attention) for row in rows for block in row), default=0)
    width = columns * (_WIDTH_PX + 2 * gap) + 2 * gap
    note = wrapped(
        "Bars: the share of a block's attention, before masking, that lies in the entries which mask i "
        "keeps, the mean over rows. Ticks: the share of the entries, i / (i + 1). "
        "Weight: the learned lambda of what the mask lets through (equation 4).",
        face,
        width - 4 * gap,
    )
    row_px = round(1.7 * line) + bars * line + 2 * gap
    top = 2 * gap + (round(1.8 * line) if title else 0)
    height = top + len(rows) * row_px + len(note) * line + 2 * gap
    whole = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(whole)
    if title:
        draw.text((2 * gap, 2 * gap), shortened(title, heading, width - 4 * gap), TEXT, heading)
    for row in rows:
        for number, block in enumerate(row):
            _draw_chart(draw, block, (2 * gap + number * (_WIDTH_PX + 2 * gap), top), line)
        top += row_px
    for words in note:
        draw.text((2 * gap, top), words, QUIET_TEXT, face)
        top += line
    return np.asarray(whole)


def _draw_chart(draw: ImageDraw.ImageDraw, block: BlockAttention, at: tuple[int, int], line: int) -> None:
    face, heading = font(_TEXT_PX), font(1.1 * _TEXT_PX)
    left, top = at
    draw.text((left, top), shortened(block.name, heading, _WIDTH_PX), TEXT, heading)
    top += round(1.6 * line)
    if not block.attention:
        draw.text((left, top), "no masks", QUIET_TEXT, face)
        return
    begin, end = left + face.getlength("8  "), left + 0.43 * _WIDTH_PX
    for number, (attention, entries, weight) in enumerate(
        zip(block.attention, block.entries, block.weights, strict=True)
    ):
        middle, tall = top + (number + 0.5) * line, 0.36 * line
        draw.text((left, middle), f"{number + 1}", QUIET_TEXT, face, anchor="lm")
        draw.rectangle((begin, middle - tall, end, middle + tall), GROUND)
        reach = begin + (end - begin) * min(1.0, max(0.0, attention))
        if reach > begin:
            draw.rectangle((begin, middle - tall, reach, middle + tall), BAR)
        tick = begin + (end - begin) * min(1.0, max(0.0, entries))
        draw.line((tick, middle - tall, tick, middle + tall), TICK, 3)
        draw.text((end + 8, middle), f"{attention:.1%}   weight {weight:.3g}", TEXT, face, anchor="lm")
