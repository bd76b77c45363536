"""Ranges of numbers, for the signatures of what a configuration builds.

>>> def sharpen(strength: Share = 0.5) -> None: ...

An annotation changes nothing by itself: `deblur_lab.config` reads it, to tell a person that a setting is out
of range before anything is built. What is built by hand is checked by its own constructor.
"""

import math
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Range:
    """The finite numbers between two bounds, which count as inside.

    Args:
        low: the lower bound.
        high: the upper bound.
        open_low: the lower bound is outside.
        open_high: the upper bound is outside.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return math.isfinite(value) and above and below

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"more than {self.low:g}" if self.open_low else f"{self.low:g} or more"
        if self.open_low and self.open_high:
            return f"a number between {self.low:g} and {self.high:g}"
        low = f"above {self.low:g}" if self.open_low else f"from {self.low:g}"
        return f"a number {low} to {'below ' if self.open_high else ''}{self.high:.10g}"


Count = Annotated[int, Range(1)]
"""1 or more."""
Natural = Annotated[int, Range(0)]
"""0 or more."""
Seed = Annotated[int, Range(0, 2**32 - 1)]
"""What NumPy and PyTorch both take."""
Share = Annotated[float, Range(0, 1)]
"""From nothing to all."""
OpenShare = Annotated[float, Range(0, 1, open_low=True, open_high=True)]
"""More than nothing, less than all."""
Weight = Annotated[float, Range(0)]
"""0 or more: of a term in a sum."""
Positive = Annotated[float, Range(0, open_low=True)]
"""More than 0."""
Seconds = Annotated[float, Range(0)]
"""0 or more: of waiting."""
