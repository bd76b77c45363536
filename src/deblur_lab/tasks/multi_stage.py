"""Nets that restore a picture in stages, each of which is judged: MPRNet (section 3, eq. 2)."""

from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError
from deblur_lab.ranges import Natural, OpenShare
from deblur_lab.tasks.base import RestorationTask
from deblur_lab.tasks.training import Batch, OptimizerFactory, SchedulerFactory


@runtime_checkable
class RestoresInStages(Protocol):
    """A net that gives a restored picture at each of its stages."""

    def restore_in_stages(self, blurry: Tensor) -> list[Tensor]:
        """The restored pictures of all stages, in their order.

        Args:
            blurry: (B, 3, H, W) in [0, 1].
        """
        ...


class MultiStageDeblurring(RestorationTask):
    """Trains a net of several stages end to end: each part of the loss is the sum over them.

    Validation and prediction take the last stage alone.

    Args:
        net: that restores in stages.
        loss: of (restored, sharp), by parts.
        optimizer: makes the optimizer from the parameters (a partial, in YAML).
        scheduler: makes the schedule from the optimizer; stepped once an optimizer step.
        ema_decay: as in `RestorationTask`.
        compile_blocks: as in `RestorationTask`.
        max_skipped_steps: as in `RestorationTask`.

    Raises:
        ConfigurationError: the net has no stages.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        ema_decay: OpenShare | None = None,
        compile_blocks: bool = False,
        max_skipped_steps: Natural = 20,
    ) -> None:
        if not isinstance(net, RestoresInStages):
            raise ConfigurationError(
                f"net is a {type(net).__name__}, which does not restore in stages: "
                "deblur_lab.tasks.RestorationTask trains it"
            )
        super().__init__(net, loss, optimizer, scheduler, ema_decay, compile_blocks, max_skipped_steps)

    def loss_parts(self, batch: Batch) -> dict[str, Tensor]:
        """The parts of the loss on a training batch, unweighted, each summed over the stages."""
        stages = cast(RestoresInStages, self.net).restore_in_stages(batch["blurry"])
        of_stages: list[dict[str, Tensor]] = [self.loss(restored, batch["sharp"]) for restored in stages]
        return {name: torch.stack([parts[name] for parts in of_stages]).sum() for name in of_stages[0]}
