"""Small line charts as SVG, to stand in an HTML page."""

import html
from collections.abc import Iterator, Sequence

_WIDTH, _HEIGHT, _LEFT, _TOP = 420, 160, 58, 26
# A longer curve is noise, in which a running mean over a tenth of it shows the trend.
_NOISY_POINTS = 40


def line_chart(
    title: str, points: Sequence[tuple[float, float]], ends: tuple[str, str], labels: Sequence[str] = ()
) -> str:
    """A curve, with its extremes written at the axes; a long one is drawn faint, with its running mean.

    Args:
        title: what stands above it.
        points: (x, y), in the order of x.
        ends: what is written below the first and the last x.
        labels: of the points, each of which is then marked; none: they are not.

    Returns:
        The ``svg`` element; nothing of less than two points.
    """
    if len(points) < 2:
        return ""
    xs, values = [point[0] for point in points], [point[1] for point in points]
    low, high, first, last = min(values), max(values), xs[0], xs[-1]
    bottom = _TOP + _HEIGHT

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / ((last - first) or 1)
        return _LEFT + across * _WIDTH, _TOP + (high - y) / ((high - low) or 1) * _HEIGHT

    def line(shown: Sequence[float], kind: str) -> str:
        path = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in zip(xs, shown, strict=True))
        return f'<polyline points="{path}" class="{kind}"/>'

    noisy = len(values) > _NOISY_POINTS
    drawn = line(values, "raw" if noisy else "")
    if noisy:
        reach = len(values) // 20
        windows = (values[max(0, at - reach) : at + reach + 1] for at in range(len(values)))
        drawn += line([sum(window) / len(window) for window in windows], "")
    for label, x, y in _labelled(labels, [place(*point) for point in points]):
        # Below and to the right, where a curve that rises leaves room, but not across an axis.
        side, across = ("start", x + 8) if x < _LEFT + _WIDTH * 0.8 else ("end", x)
        down = y + 15 if y < bottom - 20 else y - 3
        drawn += f'<text x="{across:.1f}" y="{down:.1f}" text-anchor="{side}">{html.escape(label)}</text>'
    if labels:
        places = [place(*point) for point in points]
        drawn += "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places)
    title, start, end = (html.escape(text) for text in (title, *ends))
    return (
        f'<svg viewBox="0 0 {_LEFT + _WIDTH + 12} {bottom + 26}" role="img" aria-label="{title}">'
        f'<text x="{_LEFT}" y="14" class="title">{title}</text>'
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{_LEFT + _WIDTH}" class="axis"/>'
        f'<text x="{_LEFT - 6}" y="{_TOP + 5}" text-anchor="end">{high:.4g}</text>'
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">{low:.4g}</text>'
        f'<text x="{_LEFT}" y="{bottom + 18}">{start}</text>'
        f'<text x="{_LEFT + _WIDTH}" y="{bottom + 18}" text-anchor="end">{end}</text>'
        f"{drawn}</svg>"
    )


def _labelled(
    labels: Sequence[str], places: Sequence[tuple[float, float]]
) -> Iterator[tuple[str, float, float]]:
    """Labels with their places; those that would stand on each other are one."""
    text, x, y = "", 0.0, 0.0
    for label, (next_x, next_y) in zip(labels, places, strict=False):
        if text and abs(next_x - x) < 9 * len(text) and abs(next_y - y) < 14:
            text += f", {label}"
            continue
        if text:
            yield text, x, y
        text, x, y = label, next_x, next_y
    if text:
        yield text, x, y
