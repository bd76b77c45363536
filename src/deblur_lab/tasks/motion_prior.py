"""UFPNet's motion prior from nothing: a normalizing flow that learns motion kernels by their likelihood."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from deblur_lab.data.kernels import connected_shares
from deblur_lab.models import UFPNet
from deblur_lab.ranges import Count, Natural
from deblur_lab.tasks.measuring import MeasuringTask
from deblur_lab.tasks.training import Batch, OptimizerFactory, SchedulerFactory

_SAMPLES_SEED = 0


class FlowPrior(MeasuringTask):
    """Trains the flow of a UFPNet, and nothing else of it, on simulated kernels (`data.MotionKernels`).

    Fang et al. 2023, section 3.2: the flow maps kernels to standard normal codes; what is minimised is the
    negative logarithm of the likelihood, here in bits for each entry of a kernel.

    Validation and test measure:

    - ``nll_bits``: the same of kernels that were not trained on. As it is a density's, of entries that are
      nearly all next to nothing, it is far below zero.
    - ``independent_nll_bits``: what is to be beaten: of the best prior that knows nothing of how entries go
      together, independent Gaussians fit to the logits of these very kernels.
    - ``sample_sum``: the mean sum of kernels that are decoded from standard normal codes; 1 is right, though
      nothing tells the flow so.
    - ``sample_sum_error``: the mean absolute difference of these sums from 1.
    - ``sample_connected``: which share of their mass lies in one piece (`data.kernels.connected_shares`).
    - ``connected``: the same of the simulated kernels.

    Args:
        net: a UFPNet.
        optimizer: makes the optimizer from the flow's parameters (a partial, in YAML).
        scheduler: makes the schedule from the optimizer; stepped once an optimizer step.
        samples: kernels that are decoded to be judged.
        compile_blocks: as in `TrainingTask`.
        max_skipped_steps: as in `TrainingTask`.
    """

    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("val/nll_bits", "min")

    net: UFPNet

    def __init__(
        self,
        net: UFPNet,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        samples: Count = 256,
        compile_blocks: bool = False,
        max_skipped_steps: Natural = 20,
    ) -> None:
        super().__init__(net, optimizer, scheduler, compile_blocks, max_skipped_steps)
        self.samples = samples

    def frozen_parts(self) -> Sequence[nn.Module]:
        """All but the flow."""
        return [part for part in self.net.children() if part is not self.net.flow]

    def losses(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The negative log-likelihood of a batch's kernels, in bits for each entry."""
        loss = self.net.flow.log_likelihood(batch["kernel"]).mean() / -_nats(self.net.flow.entries)
        return loss, {"nll_bits": loss}

    @torch.no_grad()
    def sampled(self, count: int) -> Tensor:
        """Kernels decoded from standard normal codes, always the same: (count, K, K) in [0, 1]."""
        flow = self.net.flow
        generator = torch.Generator().manual_seed(_SAMPLES_SEED)
        code = torch.randn(count, flow.entries, generator=generator).to(self.device)
        side = self.net.kernel_size_px
        return flow.decode(code).view(count, side, side)

    def no_sums(self) -> Tensor:
        """Row 0: likelihood, the logits' determinant, connected mass, count; then the logits and squares."""
        return torch.zeros(3, self.net.flow.entries, dtype=torch.float64)

    def sums_of(self, batch: Batch) -> Tensor:
        """As `no_sums`."""
        likelihood = self.net.flow.log_likelihood(batch["kernel"]).double().cpu()
        kernels = batch["kernel"].double().cpu()
        alpha = float(self.net.flow.alpha)
        low, high = alpha + (1 - 2 * alpha) * kernels, alpha + (1 - 2 * alpha) * (1 - kernels)
        logits = low.log() - high.log()
        determinants = math.log(1 - 2 * alpha) - low.log() - high.log()
        side = self.net.kernel_size_px
        connected = torch.from_numpy(connected_shares(kernels.view(-1, side, side).numpy()))
        own = self.no_sums()
        own[0, 0], own[0, 1], own[0, 2] = likelihood.sum(), determinants.sum(), connected.sum()
        own[0, 3] = len(kernels)
        own[1], own[2] = logits.sum(0), logits.square().sum(0)
        return own

    def measures_of(self, sums: Tensor) -> Mapping[str, float]:
        """Those of the class's text."""
        nats = _nats(self.net.flow.entries)
        likelihood, determinant, connected, count = sums[0, :4].tolist()
        variance = (sums[2] / count - (sums[1] / count).square()).clamp_min(1e-12)
        independent = 0.5 * (2 * math.pi * math.e * variance).log().sum() - determinant / count
        samples = self.sampled(self.samples).float().cpu()
        totals = samples.sum((1, 2))
        return {
            "nll_bits": -likelihood / count / nats,
            "independent_nll_bits": float(independent) / nats,
            "sample_sum": float(totals.mean()),
            "sample_sum_error": float((totals - 1).abs().mean()),
            "sample_connected": float(connected_shares(samples.numpy()).mean()),
            "connected": connected / count,
        }


def _nats(entries: int) -> float:
    """How many nats one bit in each entry is."""
    return entries * math.log(2)
