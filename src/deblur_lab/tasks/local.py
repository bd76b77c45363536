"""Local motion deblurring: M2AENet with its mask and offset losses (M2AENet, section 3.4)."""

from typing import cast

from torch import Tensor

from deblur_lab.errors import ConfigurationError
from deblur_lab.losses import LocalBlurLoss
from deblur_lab.models import M2AENet
from deblur_lab.ranges import Natural, OpenShare
from deblur_lab.tasks.base import RestorationTask
from deblur_lab.tasks.training import Batch, OptimizerFactory, SchedulerFactory


class LocalDeblurring(RestorationTask):
    """Trains M2AENet end to end: restoration, blur mask and motion at once (eq. 7).

    Where the data have no masks, the mask is all ones and the mask loss leaves those samples out.

    Args:
        net: an M2AENet, whose analysis of a picture the losses judge.
        loss: eq. 7 to 11, each part with its weight.
        optimizer: makes the optimizer from the parameters (a partial, in YAML).
        scheduler: makes the schedule from the optimizer; stepped once an optimizer step.
        ema_decay: as in `RestorationTask`; off in the paper.
        compile_blocks: as in `RestorationTask`.
    """

    def __init__(
        self,
        net: M2AENet,
        loss: LocalBlurLoss,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        ema_decay: OpenShare | None = None,
        compile_blocks: bool = False,
        max_skipped_steps: Natural = 20,
    ) -> None:
        super().__init__(net, loss, optimizer, scheduler, ema_decay, compile_blocks, max_skipped_steps)

    def check_patch(self, height_px: int, width_px: int) -> None:
        """Refuse patches that the net would pad: the losses' masks would not lie under its features.

        Raises:
            ConfigurationError: a side is no multiple of the net's coarsest pixel.
        """
        multiple = 2 ** cast(M2AENet, self.net).levels
        if height_px % multiple or width_px % multiple:
            raise ConfigurationError(
                f"data.patch_size={height_px}: a multiple of {multiple} is expected, the net's coarsest pixel"
            )

    def loss_parts(self, batch: Batch) -> dict[str, Tensor]:
        """The parts of eq. 7 on a training batch, unweighted."""
        net, loss = cast(M2AENet, self.net), cast(LocalBlurLoss, self.loss)
        self.check_patch(*batch["blurry"].shape[-2:])
        analysis = net.analyze(batch["blurry"], batch["seed"])
        stages = [
            (
                stage.mask_logits,
                None if stage.offsets is None else net.trajectory(stage.offsets, loss.reblur_instants),
            )
            for stage in analysis.stages
        ]
        parts: dict[str, Tensor] = loss(
            analysis.restored, batch["blurry"], batch["sharp"], batch["mask"], batch["mask_known"], stages
        )
        return parts
