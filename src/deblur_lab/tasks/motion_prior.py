"""UFPNet's motion prior from nothing: a normalizing flow that learns motion kernels by their likelihood."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from deblur_lab.data.kernels import connected_shares
from deblur_lab.models import UFPNet
from deblur_lab.ranges import Count, Natural
from deblur_lab.tasks.sums import summed
from deblur_lab.tasks.training import Batch, OptimizerFactory, SchedulerFactory, TrainingTask

_SAMPLES_SEED = 0


class FlowPrior(TrainingTask):
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

    restores: ClassVar[bool] = False
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
        self._sums: Tensor | None = None
        self._batches = 0

    def frozen_parts(self) -> Sequence[nn.Module]:
        """All but the flow."""
        return [part for part in self.net.children() if part is not self.net.flow]

    def losses(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The negative log-likelihood of a batch's kernels, in bits for each entry."""
        loss = self.net.flow.log_likelihood(batch["kernel"]).mean() / -_nats(self.net.flow.entries)
        return loss, {"nll_bits": loss}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Lightning's; adds up what the measures are made of."""
        self._add(batch["kernel"])

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Lightning's; adds up what the measures are made of."""
        self._add(batch["kernel"])

    def on_validation_epoch_end(self) -> None:
        """Lightning's; logs ``val/<measure>``."""
        self._log("val", int(sum(self.trainer.num_val_batches)))

    def on_test_epoch_end(self) -> None:
        """Lightning's; logs ``test/<measure>``."""
        self._log("test", int(sum(self.trainer.num_test_batches)))

    @torch.no_grad()
    def sampled(self, count: int) -> Tensor:
        """Kernels decoded from standard normal codes, always the same: (count, K, K) in [0, 1]."""
        flow = self.net.flow
        generator = torch.Generator().manual_seed(_SAMPLES_SEED)
        code = torch.randn(count, flow.entries, generator=generator).to(self.device)
        side = self.net.kernel_size_px
        return flow.decode(code).view(count, side, side)

    def _add(self, kernels: Tensor) -> None:
        """Row 0: likelihood, the logits' determinant, connected mass, count; then the logits and squares."""
        entries = self.net.flow.entries
        likelihood = self.net.flow.log_likelihood(kernels).double().cpu()
        kernels = kernels.double().cpu()
        alpha = float(self.net.flow.alpha)
        low, high = alpha + (1 - 2 * alpha) * kernels, alpha + (1 - 2 * alpha) * (1 - kernels)
        logits = low.log() - high.log()
        determinants = math.log(1 - 2 * alpha) - low.log() - high.log()
        side = self.net.kernel_size_px
        connected = torch.from_numpy(connected_shares(kernels.view(-1, side, side).numpy()))
        own = torch.zeros(3, entries, dtype=torch.float64)
        own[0, 0], own[0, 1], own[0, 2] = likelihood.sum(), determinants.sum(), connected.sum()
        own[0, 3] = len(kernels)
        own[1], own[2] = logits.sum(0), logits.square().sum(0)
        self._sums = own if self._sums is None else self._sums + own
        self._batches += 1

    def _log(self, prefix: str, expected: int) -> None:
        entries = self.net.flow.entries
        own = torch.zeros(3, entries, dtype=torch.float64) if self._sums is None else self._sums
        batches, self._sums, self._batches = self._batches, None, 0
        total = summed(self.trainer, own, batches, expected)
        likelihood, determinant, connected, count = total[0, :4].tolist()
        variance = (total[2] / count - (total[1] / count).square()).clamp_min(1e-12)
        independent = 0.5 * (2 * math.pi * math.e * variance).log().sum() - determinant / count
        samples = self.sampled(self.samples).float().cpu()
        sums = samples.sum((1, 2))
        measures = {
            "nll_bits": -likelihood / count / _nats(entries),
            "independent_nll_bits": float(independent) / _nats(entries),
            "sample_sum": float(sums.mean()),
            "sample_sum_error": float((sums - 1).abs().mean()),
            "sample_connected": float(connected_shares(samples.numpy()).mean()),
            "connected": connected / count,
        }
        for name, value in measures.items():
            # All processes have the same values; the sync only tells Lightning that they agree.
            self.log(f"{prefix}/{name}", value, prog_bar=name == "nll_bits", sync_dist=True)


def _nats(entries: int) -> float:
    """How many nats one bit in each entry is."""
    return entries * math.log(2)
