"""Curves over steps, several on one chart."""

from collections.abc import Sequence
from dataclasses import dataclass

from deblur_lab.charts.axes import LEFT, RIGHT, TOP, WIDTH, colour, frame, scale_over, svg, text

_HEIGHT = 190
# A longer curve is noise, in which a running mean over a tenth of it shows the trend.
_NOISY_POINTS = 40
# More points than this cannot be told apart.
_MOST_POINTS = 240


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        label: what it is of.
        colour: a number; curves of one model share it.
        points: (x, y) in the order of x.
    """

    label: str
    colour: int
    points: Sequence[tuple[float, float]]


def line_chart(title: str, lines: Sequence[Line], under: str, labels: Sequence[str] = ()) -> str:
    """Curves over one axis; a long one is drawn as its running mean, alone on a chart with itself behind it.

    Args:
        title: what stands above.
        lines: those of no points are left out; one of a single point is a dot, beside others.
        under: what the horizontal axis is.
        labels: of the first curve's points, each of which is then marked.

    Returns:
        The ``svg`` element; nothing if no curve is left.
    """
    lines = [line for line in lines if line.points]
    if all(len(line.points) < 2 for line in lines):
        return ""
    bottom = TOP + _HEIGHT
    smooth = [_smoothed(line.points) for line in lines]
    shown = [point for points in smooth for point in points]
    if len(lines) == 1:
        shown += [*lines[0].points]
    across = scale_over([x for x, _ in shown], LEFT, WIDTH - RIGHT, margin=0)
    up = scale_over([y for _, y in shown], bottom, TOP)

    def path(points: Sequence[tuple[float, float]], kind: str) -> str:
        if len(points) == 1:
            (x, y), *_ = points
            return f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3"/>'
        places = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        return f'<polyline points="{places}" class="{kind}"/>'

    drawn = frame(across, up, TOP, bottom)
    for line, points in zip(lines, smooth, strict=True):
        behind = path(_thinned(line.points), "raw") if len(lines) == 1 and points is not line.points else ""
        drawn += f'<g class="series {colour(line.colour)}">{behind}{path(_thinned(points), "")}</g>'
    drawn += _labelled(labels, [(across(x), up(y)) for x, y in lines[0].points], bottom)
    drawn += text(WIDTH - RIGHT, bottom + 33, under, anchor="end")
    what = f"{title}: {', '.join(dict.fromkeys(line.label for line in lines))}"
    return svg(title, bottom + 40, drawn, labelled=what)


def _smoothed(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    if len(points) <= _NOISY_POINTS:
        return points
    values, reach = [y for _, y in points], len(points) // 20
    windows = (values[max(0, at - reach) : at + reach + 1] for at in range(len(values)))
    return [(x, sum(window) / len(window)) for (x, _), window in zip(points, windows, strict=True)]


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    if len(points) <= _MOST_POINTS:
        return points
    last = len(points) - 1
    return [points[round(at * last / (_MOST_POINTS - 1))] for at in range(_MOST_POINTS)]


def _labelled(labels: Sequence[str], places: Sequence[tuple[float, float]], bottom: float) -> str:
    """Labels with marks at their places; those that would stand on each other are one."""
    if not labels:
        return ""
    drawn = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="c0"/>' for x, y in places)
    groups: list[tuple[str, float, float]] = []
    for label, (x, y) in zip(labels, places, strict=True):
        before = groups[-1] if groups else None
        if before and abs(before[1] - x) < 9 * len(before[0]) and abs(before[2] - y) < 14:
            groups[-1] = (f"{before[0]}, {label}", before[1], before[2])
        else:
            groups.append((label, x, y))
    for label, x, y in groups:
        # Below and to the right, where a curve that rises leaves room, but not across an axis.
        side, across = ("start", x + 8) if x < WIDTH * 0.8 else ("end", x)
        drawn += text(across, y + 15 if y < bottom - 20 else y - 3, label, anchor=side)
    return drawn
