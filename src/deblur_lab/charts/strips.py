"""Single values in strips, a strip a model, with a box of their quartiles."""

import html
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from deblur_lab.charts.axes import (
    CHARACTER,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    colour,
    frame,
    scale_over,
    svg,
    text,
)

_STRIP = 50
# Of more values, so many are drawn, evenly by rank, with the extremes.
_MOST_DOTS = 150
_GOLDEN = 0.618034


@dataclass(frozen=True)
class Strip:
    """The values of one model.

    Attributes:
        label: of the model.
        colour: a number; None: that of what is no model.
        values: a name and a value an image.
    """

    label: str
    colour: int | None
    values: Sequence[tuple[str, float]]


def strip_chart(title: str, strips: Sequence[Strip], digits: int, unit: str = "") -> str:
    """Strips of values over one axis: dots with names, quartiles as a box, the median as a line.

    Each strip can be reached by the keyboard, and says what it shows; a page may let the arrow keys go from
    dot to dot, whose names and values are their titles.

    Args:
        title: what stands above.
        strips: those of no values are left out.
        digits: of the values, behind the point.
        unit: of the values.

    Returns:
        The ``svg`` element; nothing if no strip is left.
    """
    strips = [strip for strip in strips if strip.values]
    if not strips:
        return ""
    bottom = TOP + _STRIP * len(strips)
    every = [value for strip in strips for _, value in strip.values]
    across = scale_over(every, 8, WIDTH - RIGHT)
    drawn = frame(across, None, TOP, bottom)
    for number, strip in enumerate(strips):
        drawn += _strip(strip, TOP + number * _STRIP, across, digits, unit)
    return svg(title, bottom + 24, drawn, role="group")


def _strip(strip: Strip, top: float, across: Scale, digits: int, unit: str) -> str:
    ranked = sorted(strip.values, key=lambda pair: pair[1])
    values = [value for _, value in ranked]

    def shown(value: float) -> str:
        return f"{value:.{digits}f}{unit}"

    low, middle, high = values[0], values[0], values[0]
    if len(values) > 1:
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    said = (
        f"{strip.label}: {len(values)} images, median {shown(middle)}, "
        f"quartiles {shown(low)} and {shown(high)}, "
        f"lowest {shown(values[0])} ({ranked[0][0]}), highest {shown(values[-1])} ({ranked[-1][0]})"
    )
    y = top + 33
    kind = "input" if strip.colour is None else colour(strip.colour)
    box = (
        f'<rect x="{across(low):.1f}" y="{y - 12}" height="24" '
        f'width="{max(1.0, across(high) - across(low)):.1f}" '
        f'rx="3" class="box"/><path d="M{across(middle):.1f} {y - 12}v24" class="median"/>'
    )
    last = len(ranked) - 1
    kept = range(last + 1)
    if last >= _MOST_DOTS:
        kept_at = dict.fromkeys(round(at * last / (_MOST_DOTS - 1)) for at in range(_MOST_DOTS))
        chosen = [(at, ranked[at]) for at in kept_at]
    else:
        chosen = [(at, ranked[at]) for at in kept]
    dots = "".join(
        # Beside each other, as a dot's place within the strip means nothing.
        f'<circle cx="{across(value):.1f}" cy="{y + (at * _GOLDEN % 1 - 0.5) * 18:.1f}" r="3.2">'
        f"<title>{html.escape(name)}: {shown(value)}</title></circle>"
        for at, (name, value) in chosen
    )
    more = f", {_MOST_DOTS} of {len(values)} drawn" if len(values) > _MOST_DOTS else ""
    told = f"median {shown(middle)}{more}"
    room = WIDTH - RIGHT - 8 - CHARACTER * (len(told) + 1)
    label = text(8, top + 15, strip.label, kind="label", room=room)
    label += text(WIDTH - RIGHT, top + 15, told, anchor="end")
    return (
        f'<g class="strip {kind}" tabindex="0" role="img" aria-label="{html.escape(said)}">'
        f'<rect x="{LEFT - LEFT}" y="{top + 1}" width="{WIDTH}" height="{_STRIP - 2}" class="back"/>'
        f"{label}{box}{dots}</g>"
    )
