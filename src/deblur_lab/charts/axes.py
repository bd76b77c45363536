"""What charts are drawn on: scales, their marks, and text."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

COLOURS = 8
"""How many colours a page has for charts."""

WIDTH, LEFT, TOP, RIGHT = 460, 52, 30, 14


CHARACTER = 8.4
"""About how wide a character of a label is, in the units of a chart, on a phone too."""


def text(
    x: float, y: float, words: str, *, anchor: str = "start", kind: str = "", room: float = math.inf
) -> str:
    """A line of text, escaped.

    Args:
        x: where it begins, or ends, or has its middle.
        y: of its base line.
        words: the text.
        anchor: what `x` is: ``start``, ``end`` or ``middle``.
        kind: a class.
        room: how wide it may be; of a longer one the middle is cut out, and the whole is its title.
    """
    css = f' class="{kind}"' if kind else ""
    shown = words if len(words) * CHARACTER <= room else cut(words, int(room / CHARACTER))
    whole = "" if shown == words else f"<title>{html.escape(words)}</title>"
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{css}>{whole}{html.escape(shown)}</text>'


def cut(words: str, most: int) -> str:
    """A text without its middle, if it has more than so many characters.

    >>> cut("NAFNet (eval_best: runs/0/checkpoints/best.ckpt)", 20), cut("NAFNet", 20)
    ('NAFNet (ev…est.ckpt)', 'NAFNet')
    """
    if len(words) <= most:
        return words
    behind = max(1, (most - 1) // 2)
    return f"{words[: max(1, most - 1 - behind)].rstrip()}…{words[-behind:].lstrip()}"


def signed(value: float, digits: int) -> str:
    """A number with its sign; one that is shown as zero has none.

    >>> signed(0.5, 2), signed(-0.001, 2)
    ('+0.50', '0.00')
    """
    shown = f"{value:+.{digits}f}"
    return shown[1:] if float(shown) == 0 else shown


def colour(number: int) -> str:
    """The class of the colour of the `number`-th thing that a chart shows."""
    return f"c{number % COLOURS}"


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers from `low` to `high`, about as many as wanted.

    >>> ticks(0.0, 10.0), ticks(31.2, 31.9)
    ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], [31.2, 31.4, 31.6, 31.8])
    """
    if not high > low:
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 5) if factor * power >= rough * 0.7), 10 * power)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """Marks of a logarithmic scale: 1, 2 and 5 times powers of ten, or powers alone where there are many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 2 else (1, 3) if last - first <= 3 else (1,)
    marks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    return [mark for mark in marks if low * 0.999 <= mark <= high * 1.001]


@dataclass(frozen=True)
class Scale:
    """Places numbers on an axis.

    Attributes:
        low: the number at the begin.
        high: that at the end.
        begin: where the axis begins, in the chart's units.
        end: where it ends.
        logarithmic: whether equal factors are equally far.
    """

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The place of a number."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.begin + (value - low) / ((high - low) or 1) * (self.end - self.begin)

    @property
    def marks(self) -> list[float]:
        """Round numbers on the axis."""
        return decades(self.low, self.high) if self.logarithmic else ticks(self.low, self.high)


def scale_over(
    values: Sequence[float], begin: float, end: float, *, logarithmic: bool = False, margin: float = 0.04
) -> Scale:
    """A scale that all values lie on, with a margin on both sides.

    Args:
        values: at least one; over 0 for a logarithmic one.
        begin: where the axis begins.
        end: where it ends.
        logarithmic: whether equal factors are equally far.
        margin: a share of the range.
    """
    low, high = min(values), max(values)
    if logarithmic:
        factor = (high / low) ** margin if high > low else 1.5
        return Scale(low / factor, high * factor, begin, end, True)
    more = (high - low) * margin or abs(high) * 0.01 or 1.0
    return Scale(low - more, high + more, begin, end)


def frame(across: Scale | None, up: Scale | None, top: float, bottom: float) -> str:
    """Grid lines and the numbers at them; `across` runs from left to right, `up` from `bottom` to `top`."""
    drawn = ""
    if up is not None:
        for mark in up.marks:
            y = up(mark)
            drawn += f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" class="grid"/>'
            drawn += text(LEFT - 7, y + 4, f"{mark:g}", anchor="end")
    if across is not None:
        for mark in across.marks:
            x = across(mark)
            drawn += f'<path d="M{x:.1f} {top}V{bottom}" class="grid"/>'
            drawn += text(x, bottom + 17, brief(mark), anchor="middle")
    return drawn


def brief(value: float) -> str:
    """A number with k, M, G or T in the place of noughts.

    >>> brief(1500), brief(20), brief(4e9)
    ('1.5k', '20', '4G')
    """
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


def svg(title: str, height: float, inside: str, *, labelled: str = "", role: str = "img") -> str:
    """The element, with its title above what it shows.

    Args:
        title: stands above.
        height: of the whole.
        inside: the drawing.
        labelled: what is read aloud in its place; the title if empty.
        role: of the element; ``group`` where parts of it are to be reached by the keyboard.
    """
    label = html.escape(labelled or title)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="{role}" aria-label="{label}">'
        f"{text(0, 15, title, kind='title', room=WIDTH)}{inside}</svg>"
    )
