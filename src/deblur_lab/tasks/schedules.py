"""Learning-rate schedules that PyTorch lacks."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from deblur_lab.ranges import Count, Natural, Share


def warmup_cosine(
    optimizer: Optimizer, *, total_steps: Count, final_ratio: Share = 0.0, warmup_steps: Natural = 0
) -> LambdaLR:
    """A linear rise over `warmup_steps`, then half a cosine down to `final_ratio` at `total_steps`.

    Without warm-up it is PyTorch's ``CosineAnnealingLR`` with ``eta_min = final_ratio * lr`` (SGDR, eq. 5),
    and stays at the end's value past `total_steps`, where that one rises again.

    Args:
        optimizer: whose learning rates are peaks.
        total_steps: optimizer steps of the whole training.
        final_ratio: last learning rate over the peak, in [0, 1].
        warmup_steps: optimizer steps of the rise, fewer than `total_steps`.

    Raises:
        ValueError: a step count or the ratio is out of range.
    """
    if not 0 <= final_ratio <= 1:
        raise ValueError(f"final_ratio={final_ratio}: a number from 0 to 1 is expected")
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_steps={warmup_steps}: a number from 0 to below total_steps={total_steps} is expected"
        )

    def ratio(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        share = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
        return final_ratio + (1 - final_ratio) * (1 + math.cos(math.pi * share)) / 2

    return LambdaLR(optimizer, ratio)
