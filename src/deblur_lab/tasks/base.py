"""What every restoration network is trained with: losses logged by part, EMA, compilation, restoring."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol, cast

import lightning as L
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from deblur_lab.ranges import Natural, OpenShare
from deblur_lab.restorations import Restoration, restore
from deblur_lab.tasks.training import Batch, OptimizerFactory, SchedulerFactory, TrainingTask


class RestorationLoss(Protocol):
    """A loss made of parts that are logged, and weighted, one by one."""

    def __call__(self, restored: Tensor, sharp: Tensor) -> dict[str, Tensor]:
        """The parts, unweighted, by name."""
        ...

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum that is minimised."""
        ...


class RestorationTask(TrainingTask):
    """Trains a network that maps blurry images to restored ones.

    Args:
        net: images in, restored images out.
        loss: of (restored, sharp), by parts.
        optimizer: makes the optimizer from the parameters (a partial, in YAML).
        scheduler: makes the schedule from the optimizer; stepped once an optimizer step.
        ema_decay: validation and prediction use an exponential moving average of the weights with this
            decay an optimizer step, in (0, 1); None: the weights themselves.
        compile_blocks: as in `TrainingTask`.
        max_skipped_steps: as in `TrainingTask`.

    Raises:
        ValueError: `ema_decay` is out of range.
    """

    restores: ClassVar[bool] = True
    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("val/psnr_db", "max")

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
        if ema_decay is not None and not 0 < ema_decay < 1:
            raise ValueError(f"ema_decay={ema_decay}: a number between 0 and 1 is expected, or null")
        super().__init__(net, optimizer, scheduler, compile_blocks, max_skipped_steps)
        self.loss = loss
        # Its first update copies the weights, so that it is never an average of nothing.
        self.ema = (
            AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(ema_decay), use_buffers=True)  # type: ignore[no-untyped-call]
            if ema_decay is not None
            else None
        )
        if self.ema is not None:
            # It is not trained; and DDP waits for the gradients of all that is.
            self.ema.requires_grad_(False)

    @property
    def evaluated_net(self) -> nn.Module:
        """The network that is scored and saved for use: the average if there is one."""
        return self.ema.module if self.ema is not None else self.net

    def loss_parts(self, batch: Batch) -> dict[str, Tensor]:
        """The parts of the loss on a training batch, unweighted."""
        return cast(dict[str, Tensor], self.loss(self.net(batch["blurry"]), batch["sharp"]))

    def losses(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The weighted sum of the loss's parts on a training batch, and these."""
        parts = self.loss_parts(batch)
        return cast(RestorationLoss, self.loss).total(parts), parts

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Lightning's signature
        """Lightning's; then the average follows the weights, once an optimizer step that was taken."""
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None and not self.divergence.skipped_last:
            self.ema.update_parameters(self.net)

    def validation_step(  # type: ignore[override]  # Lightning hands callbacks whatever a step returns
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> Restoration:
        """Lightning's; callbacks score what it returns."""
        return Restoration(self.evaluated_net(batch["blurry"]))

    def test_step(  # type: ignore[override]  # Lightning hands callbacks whatever a step returns
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> Restoration:
        """Lightning's; callbacks score what it returns. Motion is told at both ends of the exposure."""
        return restore(self.evaluated_net, batch["blurry"], instants=2)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning's; nothing of an EMA that is off may stand in the way of its weights."""
        if self.ema is None:
            state = checkpoint["state_dict"]
            for key in [key for key in state if key.startswith("ema.")]:
                del state[key]


class EvaluationTask(L.LightningModule):
    """Scores a network that is not trained here.

    Args:
        net: images in, restored images out.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def test_step(  # type: ignore[override]  # Lightning hands callbacks whatever a step returns
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> Restoration:
        """Lightning's; callbacks score what it returns. Motion is told at both ends of the exposure."""
        return restore(self.net, batch["blurry"], instants=2)

    @property
    def evaluated_net(self) -> nn.Module:
        """The network that is scored."""
        return self.net
