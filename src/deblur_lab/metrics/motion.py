"""How far predicted displacements are from the true ones, where a picture is blurred.

Images are tallied one by one, on any process; the tallies are then added up, rounded once, at their end, so
that no score depends on the order of the images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

MOVING_PX = 0.25
"""Content moves if it is farther than this from its place at either end of the exposure; less is not seen."""


@dataclass(frozen=True)
class MotionTally:
    """Errors of an image's displacements, summed over its blurred pixels.

    Attributes:
        pixels: how many there are.
        error_px: sum of their end-point errors.
        zero_error_px: sum of the errors that no motion at all would have.
        moving_pixels: how many of them show content that moves; others were only covered for a while.
        moving_error_px: as `error_px`, over these.
        moving_zero_error_px: as `zero_error_px`, over these.
        oriented_pixels: how many blurred pixels have an orientation: their content is not back where it was.
        orientation_error_deg: sum over these of the angles between predicted and true orientation.
    """

    pixels: int
    error_px: float
    zero_error_px: float
    moving_pixels: int
    moving_error_px: float
    moving_zero_error_px: float
    oriented_pixels: int
    orientation_error_deg: float


@dataclass(frozen=True)
class MotionScores:
    """Mean end-point errors over pixels; lower is better. NaN where there are none.

    Attributes:
        epe_px: over the blurred pixels.
        zero_epe_px: of predicting no motion, over the same.
        moving_epe_px: over the blurred pixels whose content moves.
        moving_zero_epe_px: of predicting no motion, over these.
        orientation_error_deg: the angle, from 0 to 90 degrees, between the predicted and the true line from
            the start to the end of the exposure, over the blurred pixels whose content ends elsewhere than it
            began. Chance, and one direction everywhere where true ones are of all kinds, give 45.
        pixels: how many blurred pixels there are.
    """

    epe_px: float
    zero_epe_px: float
    moving_epe_px: float
    moving_zero_epe_px: float
    orientation_error_deg: float
    pixels: int


def tally_motion(motion: Tensor, start: Tensor, end: Tensor, mask: Tensor) -> MotionTally:
    """Sum an image's end-point errors over its blurred pixels.

    The error of a pixel is the mean of the distances, in px, between the predicted and the true displacement
    at the start of the exposure and at its end. A blurred picture is the same if time runs backwards, so that
    no network can tell the start from the end: each pixel has the smaller of the errors of both directions.
    That is generous: one fixed motion of the right length, the same everywhere, comes to about 0.7 of the
    error of no motion where true directions are of all kinds. Whether the direction is told, the error of the
    orientation says.

    Args:
        motion: (N, 2, H, W), predicted displacements from mid-exposure, in px, x then y, at N >= 2 instants
            from the start to the end, of which the first and the last count.
        start: (2, H, W), the true displacement at the start.
        end: (2, H, W), that at the end.
        mask: (1, H, W), 1 = blurred; pixels above a half count.

    Raises:
        ValueError: the shapes do not fit.
    """
    shapes = (tuple(motion.shape[1:]), tuple(start.shape), tuple(end.shape), (2, *mask.shape[1:]))
    if motion.ndim != 4 or len(motion) < 2 or len(set(shapes)) > 1:
        raise ValueError(
            f"displacements (N, 2, H, W), true ones (2, H, W) and a mask (1, H, W) are expected, not "
            f"{tuple(motion.shape)}, {tuple(start.shape)}, {tuple(end.shape)} and {tuple(mask.shape)}"
        )
    inside = mask[0] > 0.5
    first, last, true_first, true_last = (
        displacement[:, inside.to(displacement.device)].detach().cpu().double().numpy()
        for displacement in (motion[0], motion[-1], start, end)
    )
    forward = (_length(first - true_first) + _length(last - true_last)) / 2
    backward = (_length(first - true_last) + _length(last - true_first)) / 2
    error = np.minimum(forward, backward)
    zero_error = (_length(true_first) + _length(true_last)) / 2
    moving = np.maximum(_length(true_first), _length(true_last)) > MOVING_PX
    chord, true_chord = last - first, true_last - true_first
    oriented = _length(true_chord) > 2 * MOVING_PX
    angles = _angles_deg(chord[:, oriented], true_chord[:, oriented])
    # NumPy adds in one order however many threads there are.
    return MotionTally(
        len(error),
        float(error.sum()),
        float(zero_error.sum()),
        int(moving.sum()),
        float(error[moving].sum()),
        float(zero_error[moving].sum()),
        len(angles),
        float(angles.sum()),
    )


def motion_scores(tallies: Sequence[MotionTally]) -> MotionScores:
    """Mean errors over all blurred pixels of several images."""
    pixels = sum(tally.pixels for tally in tallies)
    moving = sum(tally.moving_pixels for tally in tallies)
    return MotionScores(
        _mean([tally.error_px for tally in tallies], pixels),
        _mean([tally.zero_error_px for tally in tallies], pixels),
        _mean([tally.moving_error_px for tally in tallies], moving),
        _mean([tally.moving_zero_error_px for tally in tallies], moving),
        _mean(
            [tally.orientation_error_deg for tally in tallies],
            sum(tally.oriented_pixels for tally in tallies),
        ),
        pixels,
    )


def _length(displacements: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, K) to (K,)."""
    return np.asarray(np.hypot(displacements[0], displacements[1]))


def _angles_deg(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """The angles between lines along (2, K), from 0 to 90; what has no length lies at 45 to all."""
    lengths = _length(one) * _length(other)
    cosines = np.abs((one * other).sum(axis=0)) / np.where(lengths > 0, lengths, 1)
    return np.where(lengths > 0, np.degrees(np.arccos(cosines.clip(0, 1))), 45.0)


def _mean(sums: Sequence[float], count: int) -> float:
    return math.fsum(sums) / count if count else math.nan
