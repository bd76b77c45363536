"""What runs are compared by, and means and spreads of it over seeds."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deblur_lab.scored_results import Scored, seed_of


@dataclass(frozen=True)
class Measure:
    """A number that runs are compared by.

    Attributes:
        title: with its unit.
        digits: behind the point.
        better: 1 where more is better, -1 where less is, 0 where it is no merit.
        of: finds it in a result of ``scores.json``; None where it is not there.
    """

    title: str
    digits: int
    better: int
    of: Callable[[Mapping[str, Any]], float | None]


def _inside(*keys: str) -> Callable[[Mapping[str, Any]], float | None]:
    def find(result: Mapping[str, Any]) -> float | None:
        node: Any = result
        for key in keys:
            node = node.get(key) if isinstance(node, Mapping) else None
        return node if isinstance(node, int | float) else None

    return find


# In the order of a table's columns. Three digits of PSNR, as the papers have.
MEASURES: Mapping[str, Measure] = {
    "psnr_db": Measure("PSNR (dB)", 3, 1, _inside("scores", "psnr_db")),
    "ssim": Measure("SSIM", 4, 1, _inside("scores", "ssim")),
    "weighted_psnr_db": Measure("weighted PSNR (dB)", 3, 1, _inside("scores", "weighted_psnr_db")),
    "weighted_ssim": Measure("weighted SSIM", 4, 1, _inside("scores", "weighted_ssim")),
    "blur_iou": Measure("blur IoU", 3, 1, _inside("blur_detection", "iou")),
    "blur_f1": Measure("blur F1", 3, 1, _inside("blur_detection", "f1")),
    "epe_px": Measure("motion error (px)", 3, -1, _inside("motion", "epe_px")),
    "zero_epe_px": Measure("error of no motion (px)", 3, 0, _inside("motion", "zero_epe_px")),
    "orientation_error_deg": Measure(
        "orientation error (°)", 1, -1, _inside("motion", "orientation_error_deg")
    ),
}


def measure_of(name: str) -> Measure:
    """One of `MEASURES`, or a score of somebody's own protocol, of which we do not know what is better."""
    own = Measure(name, 3 if name.endswith("_db") else 4, 0, _inside("scores", name))
    return MEASURES.get(name, own)


@dataclass(frozen=True)
class Spread:
    """Several values of one number.

    Attributes:
        mean: of them.
        deviation: their sample standard deviation; None of a single one.
        count: how many there are.
    """

    mean: float
    deviation: float | None
    count: int


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and sample standard deviation; None of no values."""
    if not values:
        return None
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation, len(values))


def over_seeds(column: str, alike: Sequence[Scored]) -> Spread | None:
    """Runs of one seed are one value, their mean: repeated they say nothing of the spread over seeds."""
    values: dict[str, list[float]] = {}
    for run, result in alike:
        value = measure_of(column).of(result)
        if value is not None:
            values.setdefault(seed_of(run), []).append(value)
    return spread([statistics.fmean(same) for same in values.values()])


def spread_of(column: str, results: Sequence[Mapping[str, Any]]) -> Spread | None:
    """Mean and deviation of a measure over results, of those that have it."""
    values = [measure_of(column).of(result) for result in results]
    return spread([value for value in values if value is not None])


def place_of(
    row: object, rows: Sequence[object], value: Callable[[Any], float | None], measure: Measure
) -> int | None:
    """The place of one of several rows, as `places` has it.

    Args:
        row: one of them.
        rows: of a table.
        value: of a row; None of one that has none or is not compared.
        measure: that they are compared by.
    """
    at = next(number for number, one in enumerate(rows) if one is row)
    return places([value(one) for one in rows], measure)[at]


def places(values: Sequence[float | None], measure: Measure) -> list[int | None]:
    """1 for the best by a measure, 2 for the second, in the digits that are shown; None for all others.

    Equal ones share a place. A single value is no best, the lesser of two no second.

    Args:
        values: of the rows of a table; None of those that have none or are not compared.
        measure: which says what is better; where it does not, there are no places.

    >>> places([30.0, None, 31.0, 31.0001, 29.0], MEASURES["psnr_db"])
    [2, None, 1, 1, None]
    >>> places([30.0, 31.0], MEASURES["psnr_db"]), places([30.0], MEASURES["psnr_db"])
    ([None, 1], [None])
    """
    rounded = [None if value is None else round(value, measure.digits) for value in values]
    known = sorted((value for value in rounded if value is not None), reverse=measure.better > 0)
    if measure.better == 0 or len(known) < 2:
        return [None] * len(values)
    order = list(dict.fromkeys(known))[: 2 if len(known) > 2 else 1]
    return [order.index(value) + 1 if value in order else None for value in rounded]
