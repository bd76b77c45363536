"""How a pixel moves during the exposure, from the few numbers that M2AENet's analyzer predicts for it.

The three kinds are those of M2AENet's table 5. All are interchangeable: each says how many channels it takes
(`channels`) and turns them into displacements at any number of instants, evenly spaced from the start of
the exposure (first) to its end (last). A displacement is where the content that is at this pixel at
mid-exposure is at that instant, minus here: (x, y) in pixels, x to the right, y down.

Legend: B batch, N instants, H and W height and width.
"""

from typing import Annotated, Protocol

import torch
from torch import Tensor

from deblur_lab.errors import ConfigurationError
from deblur_lab.ranges import Range


class Trajectory(Protocol):
    """What M2AENet asks of a kind of trajectory."""

    @property
    def channels(self) -> int:
        """Channels of `raw`: the numbers that the analyzer predicts for each pixel."""

    def __call__(self, raw: Tensor, instants: int) -> Tensor:
        """Turn `raw`, (B, channels, H, W), into displacements, (B, instants, 2, H, W), of the same type."""


class QuadraticTrajectory:
    """A quadratic through the displacements at the start and the end, and zero at mid-exposure (equation 4).

    `raw` holds the displacement at the start (x, y), then the one at the end (x, y).
    """

    channels = 4

    def __call__(self, raw: Tensor, instants: int) -> Tensor:
        """Turn `raw`, (B, 4, H, W), into displacements, (B, instants, 2, H, W).

        Raises:
            ConfigurationError: if `instants` is below 2.
        """
        start, end = _ends(raw)
        time = _times(raw, instants)
        return (start + end) / 2 * time.square() + (end - start) / 2 * time


class LinearTrajectory:
    """Straight at constant speed to either side of mid-exposure (equation 12).

    The two halves are independent: the path may bend at mid-exposure.
    `raw` holds the displacement at the start (x, y), then the one at the end (x, y).
    """

    channels = 4

    def __call__(self, raw: Tensor, instants: int) -> Tensor:
        """Turn `raw`, (B, 4, H, W), into displacements, (B, instants, 2, H, W).

        Raises:
            ConfigurationError: if `instants` is below 2.
        """
        start, end = _ends(raw)
        time = _times(raw, instants)
        return start * (-time).clamp_min(0) + end * time.clamp_min(0)


class LearnableTrajectory:
    """The displacement at each of N instants is predicted by itself (appendix B).

    `raw` holds x and y of the first instant, then of the second, and so on: 2N channels.

    Assumes:
        - At other numbers of instants than its own, displacements are interpolated linearly in time.
        - The prediction at mid-exposure is taken as it is: the paper predicts all N, and does not hold this
          one at zero as the other two kinds do.

    Args:
        instants: N, 9 in the paper.

    Raises:
        ConfigurationError: if `instants` is below 2.
    """

    def __init__(self, instants: Annotated[int, Range(2)] = 9) -> None:
        _check_instants(instants)
        self.instants = instants

    @property
    def channels(self) -> int:
        """2N."""
        return 2 * self.instants

    def __call__(self, raw: Tensor, instants: int) -> Tensor:
        """Turn `raw`, (B, 2N, H, W), into displacements, (B, instants, 2, H, W).

        Raises:
            ConfigurationError: if `instants` is below 2.
        """
        _check_instants(instants)
        predicted = raw.view(raw.shape[0], self.instants, 2, *raw.shape[-2:])
        if instants == self.instants:
            return predicted
        # Integers first, so that an instant which falls on a predicted one takes exactly that one.
        steps = torch.arange(instants, device=raw.device) * (self.instants - 1)
        before = (steps // (instants - 1)).clamp_max(self.instants - 2)
        share = (steps - before * (instants - 1)).to(raw.dtype).view(-1, 1, 1, 1) / (instants - 1)
        return predicted[:, before] * (1 - share) + predicted[:, before + 1] * share


def _ends(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Split (B, 4, H, W) into the displacements at the start and at the end, each (B, 1, 2, H, W)."""
    start, end = raw.unsqueeze(1).chunk(2, dim=2)
    return start, end


def _times(raw: Tensor, instants: int) -> Tensor:
    """Return N times evenly from -1, the start, over exactly 0, mid-exposure, to 1, the end: (N, 1, 1, 1)."""
    _check_instants(instants)
    steps = 2 * torch.arange(instants, device=raw.device) - (instants - 1)
    return steps.to(raw.dtype).view(-1, 1, 1, 1) / (instants - 1)


def _check_instants(instants: int) -> None:
    if instants < 2:
        raise ConfigurationError(
            f"instants is {instants}: give at least 2, the start and the end of the exposure"
        )
