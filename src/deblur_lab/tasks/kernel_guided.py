"""UFPNet's deblurring network, guided by kernels whose estimator and prior are fixed."""

from collections.abc import Sequence
from typing import ClassVar, cast

from torch import Tensor, nn

from deblur_lab.models import UFPNet
from deblur_lab.ranges import Natural, OpenShare
from deblur_lab.tasks.base import RestorationTask
from deblur_lab.tasks.training import Batch, OptimizerFactory, SchedulerFactory


class KernelGuidedDeblurring(RestorationTask):
    """Trains a UFPNet end to end but for its kernel estimator and its flow (Fang et al. 2023, section 3.4).

    Assumes:
        - The code is mixed with noise in training, as far as the estimator doubts it, a function of each
          sample's seed; not in evaluation.

    Args:
        net: a UFPNet, whose estimator and flow are trained (`KernelEstimation`, `FlowPrior`).
        loss: of (restored, sharp), by parts.
        optimizer: makes the optimizer from the parameters that are trained (a partial, in YAML).
        scheduler: makes the schedule from the optimizer; stepped once an optimizer step.
        ema_decay: as in `RestorationTask`.
        compile_blocks: as in `TrainingTask`.
        max_skipped_steps: as in `TrainingTask`.
    """

    net: UFPNet
    needs: ClassVar[str | None] = "flow and kernel estimator"

    def __init__(
        self,
        net: UFPNet,
        loss: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        ema_decay: OpenShare | None = None,
        compile_blocks: bool = False,
        max_skipped_steps: Natural = 20,
    ) -> None:
        super().__init__(net, loss, optimizer, scheduler, ema_decay, compile_blocks, max_skipped_steps)

    def frozen_parts(self) -> Sequence[nn.Module]:
        """The kernel estimator and the flow."""
        return [self.net.kernel_extra, self.net.flow]

    def loss_parts(self, batch: Batch) -> dict[str, Tensor]:
        """The parts of the loss on a training batch, unweighted."""
        restored = self.net(batch["blurry"], batch["seed"])
        return cast(dict[str, Tensor], self.loss(restored, batch["sharp"]))
