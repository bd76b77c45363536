"""Differences with their intervals, held against zero."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from deblur_lab.charts.axes import CHARACTER, RIGHT, TOP, WIDTH, frame, scale_over, signed, svg, text

_ROW = 40


@dataclass(frozen=True)
class Interval:
    """A difference.

    Attributes:
        label: of what.
        mean: in the middle, or about there.
        low: where the interval begins.
        high: where it ends.
    """

    label: str
    mean: float
    low: float
    high: float


def interval_chart(title: str, intervals: Sequence[Interval], digits: int) -> str:
    """A row a difference; those whose interval holds zero are drawn faint.

    Args:
        title: what stands above.
        intervals: of one quantity.
        digits: of the numbers, behind the point.

    Returns:
        The ``svg`` element; nothing of no intervals.
    """
    if not intervals:
        return ""
    bottom = TOP + _ROW * len(intervals)
    ends = [0.0, *(end for one in intervals for end in (one.low, one.high))]
    across = scale_over(ends, 8, WIDTH - RIGHT)
    drawn = frame(across, None, TOP, bottom)
    drawn += f'<path d="M{across(0):.1f} {TOP}V{bottom}" class="zero"/>'
    for number, one in enumerate(intervals):
        y = TOP + number * _ROW
        kind = "interval" if one.low > 0 or one.high < 0 else "interval open"
        shown = f"{signed(one.mean, digits)} [{signed(one.low, digits)}, {signed(one.high, digits)}]"
        room = WIDTH - RIGHT - 8 - CHARACTER * (len(shown) + 1)
        left, right, at = across(one.low), across(one.high), y + 28
        drawn += (
            f'<g class="{kind}"><title>{html.escape(one.label)}: {shown}</title>'
            f"{text(8, y + 15, one.label, kind='label', room=room)}"
            f"{text(WIDTH - RIGHT, y + 15, shown, anchor='end')}"
            f'<path d="M{left:.1f} {at}H{right:.1f}M{left:.1f} {at - 4}v8M{right:.1f} {at - 4}v8"/>'
            f'<circle cx="{across(one.mean):.1f}" cy="{at}" r="4"/></g>'
        )
    return svg(title, bottom + 24, drawn)
