"""How well a predicted probability of blur agrees with the true blur mask, pixel by pixel.

Images are tallied one by one, on any process; the tallies are then added up. Counts are whole numbers, and
sums of probabilities are rounded once, at their end, so that no score depends on the order of the images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CALIBRATION_BINS = 10
THRESHOLDS: tuple[float, ...] = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""At which masks are scored beside the network's own: 0.05, 0.1, ..., 0.95."""


@dataclass(frozen=True)
class BlurTally:
    """The pixels of an image, counted by what is predicted of them and what is true.

    Attributes:
        thresholds: those by which a pixel counts as predicted blurred, if its probability is greater.
        hits: by threshold, how many pixels are blurred, and predicted so.
        false_alarms: by threshold, how many are predicted blurred, but sharp.
        misses: by threshold, how many are blurred, but not predicted so.
        pixels: by tenth of the probability, how many pixels have it; the last tenth holds 1 too.
        blurred: by tenth, how many of these are blurred.
        predicted: by tenth, the sum of their probabilities.
    """

    thresholds: tuple[float, ...]
    hits: tuple[int, ...]
    false_alarms: tuple[int, ...]
    misses: tuple[int, ...]
    pixels: tuple[int, ...]
    blurred: tuple[int, ...]
    predicted: tuple[float, ...]


@dataclass(frozen=True)
class MaskScores:
    """How well a mask agrees with the true one; higher is better. NaN where nothing is left to divide by.

    Attributes:
        precision: share of the pixels predicted blurred that are: hits / (hits + false alarms).
        recall: share of the blurred pixels that are predicted so: hits / (hits + misses).
        f1: the harmonic mean of both: 2 hits / (2 hits + false alarms + misses).
        iou: intersection over union: hits / (hits + false alarms + misses).
    """

    precision: float
    recall: float
    f1: float
    iou: float


@dataclass(frozen=True)
class CalibrationBin:
    """Pixels of about the same probability, and how many of them are truly blurred.

    Attributes:
        low: the lowest probability of the bin, included.
        high: the highest, not included but for 1.
        pixels: how many pixels there are.
        predicted: the mean of their probabilities; NaN if there are none.
        blurred: the share of them that is blurred; NaN likewise.
    """

    low: float
    high: float
    pixels: int
    predicted: float
    blurred: float


def tally_blur(probability: Tensor, mask: Tensor, thresholds: Sequence[float] = THRESHOLDS) -> BlurTally:
    """Count the pixels of one image.

    A threshold is compared in float32, as networks compare it: 0.3 in float32 is not greater than 0.3.

    Args:
        probability: (1, H, W), in [0, 1], that a pixel is blurred.
        mask: (1, H, W), 1 = blurred; what lies between counts as blurred if it is above a half.
        thresholds: in any order.

    Raises:
        ValueError: the shapes differ.
    """
    if probability.shape != mask.shape:
        raise ValueError(
            f"the probability of blur must have the mask's shape, {tuple(mask.shape)}, "
            f"but has {tuple(probability.shape)}"
        )
    predicted = probability.detach().float().cpu().flatten()
    truth = (mask.detach().flatten() > 0.5).cpu().long()
    ordered = sorted(set(thresholds))
    # Pixels by how many of the thresholds they exceed, sharp ones and blurred ones apart.
    exceeded = torch.bucketize(predicted, torch.tensor(ordered, dtype=torch.float32))
    counts = torch.bincount(2 * exceeded + truth, minlength=2 * (len(ordered) + 1)).view(-1, 2).tolist()
    sharp_counts, blurred_counts = zip(*counts, strict=True)
    below = {threshold: number + 1 for number, threshold in enumerate(ordered)}

    bins = (predicted * CALIBRATION_BINS).long().clamp(0, CALIBRATION_BINS - 1)
    in_bins = torch.bincount(2 * bins + truth, minlength=2 * CALIBRATION_BINS).view(-1, 2)
    # NumPy adds in one order however many threads there are.
    sums = np.bincount(bins.numpy(), weights=predicted.double().numpy(), minlength=CALIBRATION_BINS)
    return BlurTally(
        tuple(thresholds),
        tuple(sum(blurred_counts[below[threshold] :]) for threshold in thresholds),
        tuple(sum(sharp_counts[below[threshold] :]) for threshold in thresholds),
        tuple(sum(blurred_counts[: below[threshold]]) for threshold in thresholds),
        tuple(in_bins.sum(1).tolist()),
        tuple(in_bins[:, 1].tolist()),
        tuple(sums.tolist()),
    )


def pool_blur(tallies: Sequence[BlurTally]) -> BlurTally:
    """The tally of all pixels of several images.

    Args:
        tallies: one or more, of the same thresholds.
    """
    thresholds = tallies[0].thresholds
    assert all(tally.thresholds == thresholds for tally in tallies)
    return BlurTally(
        thresholds,
        _added([tally.hits for tally in tallies]),
        _added([tally.false_alarms for tally in tallies]),
        _added([tally.misses for tally in tallies]),
        _added([tally.pixels for tally in tallies]),
        _added([tally.blurred for tally in tallies]),
        tuple(math.fsum(column) for column in zip(*(tally.predicted for tally in tallies), strict=True)),
    )


def mask_scores(tally: BlurTally, threshold: float) -> MaskScores:
    """The scores of the mask that one of a tally's thresholds gives."""
    at = tally.thresholds.index(threshold)
    hits, false_alarms, misses = tally.hits[at], tally.false_alarms[at], tally.misses[at]
    return MaskScores(
        _ratio(hits, hits + false_alarms),
        _ratio(hits, hits + misses),
        _ratio(2 * hits, 2 * hits + false_alarms + misses),
        _ratio(hits, hits + false_alarms + misses),
    )


def calibration(tally: BlurTally) -> list[CalibrationBin]:
    """What a tally's probabilities are worth, by tenth: of pixels at 0.7, seven in ten should be blurred."""
    rows = zip(tally.pixels, tally.predicted, tally.blurred, strict=True)
    return [
        CalibrationBin(
            number / CALIBRATION_BINS,
            (number + 1) / CALIBRATION_BINS,
            pixels,
            _ratio(predicted, pixels),
            _ratio(blurred, pixels),
        )
        for number, (pixels, predicted, blurred) in enumerate(rows)
    ]


def calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """The expected calibration error (Naeini et al. 2015, "Obtaining well calibrated probabilities").

    The distance between the mean probability and the share that is blurred, as a mean over the bins that is
    weighted by their pixels.

    Returns:
        From 0 to 1; lower is better. NaN without pixels.
    """
    pixels = sum(part.pixels for part in bins)
    return _ratio(
        math.fsum(part.pixels * abs(part.predicted - part.blurred) for part in bins if part.pixels), pixels
    )


def _added(rows: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(sum(column) for column in zip(*rows, strict=True))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
