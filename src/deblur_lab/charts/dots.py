"""Cost against quality: a dot a model, its area by the number of parameters."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from deblur_lab.charts.axes import (
    CHARACTER,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    brief,
    colour,
    cut,
    frame,
    scale_over,
    svg,
    text,
)

_HEIGHT = 300
_LARGEST_PX = 22.0
_SMALLEST_PX = 4.0
# Characters of a label; a longer one would have no room beside its dot.
_LONGEST = 24


@dataclass(frozen=True)
class Dot:
    """A model.

    Attributes:
        label: of it.
        colour: a number; None: it was printed elsewhere, and is drawn hollow.
        cost: multiply-adds.
        quality: a score.
        size: parameters; None where they are not known.
    """

    label: str
    colour: int | None
    cost: float
    quality: float
    size: float | None


def dot_chart(title: str, dots: Sequence[Dot], under: str, digits: int) -> str:
    """Dots over a logarithmic axis of costs.

    Args:
        title: what stands above.
        dots: at least two, of costs over 0.
        under: what the horizontal axis is.
        digits: of the scores, behind the point.

    Returns:
        The ``svg`` element; nothing of less than two dots.
    """
    if len(dots) < 2:
        return ""
    bottom = TOP + _HEIGHT
    across = scale_over([dot.cost for dot in dots], LEFT, WIDTH - RIGHT, logarithmic=True, margin=0.22)
    up = scale_over([dot.quality for dot in dots], bottom, TOP, margin=0.14)
    largest = max((dot.size or 0 for dot in dots), default=0) or 1
    drawn = frame(across, up, TOP, bottom)
    places = [(across(dot.cost), up(dot.quality), _radius(dot, largest)) for dot in dots]
    order = sorted(range(len(dots)), key=lambda at: -places[at][2])  # small ones are not hidden
    for at in order:
        dot, (x, y, radius) = dots[at], places[at]
        size = "" if dot.size is None else f", {brief(dot.size)} parameters"
        told = f"{dot.label}: {dot.quality:.{digits}f}, {brief(dot.cost)} multiply-adds{size}"
        kind = "printed" if dot.colour is None else colour(dot.colour)
        drawn += (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="bubble {kind}">'
            f"<title>{html.escape(told)}</title></circle>"
        )
    taken = [(x - r, y - r, x + r, y + r) for x, y, r in places]
    for at in sorted(range(len(dots)), key=lambda at: (dots[at].colour is None, places[at][1])):
        dot, (x, y, radius) = dots[at], places[at]
        others = taken[:at] + taken[at + 1 :]
        label = cut(dot.label, _LONGEST)
        left, base = _free(label, x, y, radius, others, bottom)
        taken.append(_box(label, left, base))
        kind = "label printed" if dot.colour is None else "label"
        drawn += text(left, base, dot.label, kind=kind, room=CHARACTER * (_LONGEST + 0.5))
    drawn += text(WIDTH - RIGHT, bottom + 33, under, anchor="end")
    return svg(title, bottom + 40, drawn)


def _box(label: str, left: float, base: float) -> tuple[float, float, float, float]:
    """About where a label stands: left, top, right, bottom."""
    return left, base - 10, left + CHARACTER * len(label), base + 3


def _free(
    label: str,
    x: float,
    y: float,
    radius: float,
    others: Sequence[tuple[float, float, float, float]],
    bottom: float,
) -> tuple[float, float]:
    """A place for a dot's label, left end and base line, that covers as little as can be."""
    width = CHARACTER * len(label)
    beside = (x + radius + 5, x - radius - 5 - width)
    middle = min(max(LEFT, x - width / 2), WIDTH - width)
    tried = [(left, y + 4 + down) for down in (0, -11, 11, -22, 22, -33, 33) for left in beside]
    tried += [(middle, y - radius - 5), (middle, y + radius + 13)]

    def covered(place: tuple[float, float]) -> float:
        left, top, right, low = _box(label, *place)
        outside = 1e6 if left < LEFT or right > WIDTH or top < TOP - 8 or low > bottom else 0.0
        return outside + sum(
            max(0.0, min(right, one[2]) - max(left, one[0])) * max(0.0, min(low, one[3]) - max(top, one[1]))
            for one in others
        )

    return min(tried, key=covered)


def _radius(dot: Dot, largest: float) -> float:
    """The area is in proportion to the size, and no dot is too small to be seen."""
    return _SMALLEST_PX if not dot.size else max(_SMALLEST_PX, _LARGEST_PX * math.sqrt(dot.size / largest))
