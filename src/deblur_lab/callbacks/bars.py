"""Progress on the screen."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from rich.progress import TaskID


class Bars(RichProgressBar):
    """Lightning's progress bars, but for its count of epochs: a training is one, counted in steps."""

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Lightning's, without the version of a logger."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

    @property
    def total_train_batches(self) -> int:
        """The optimizer steps of the whole run; Lightning counts the batches that are left."""
        return self.trainer.max_steps

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Lightning's; counts steps, not batches."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, trainer.global_step - 1)

    def _add_task(self, total_batches: float, description: str, visible: bool = True) -> TaskID:
        task = super()._add_task(total_batches, description, visible)
        if self.trainer.training and self.progress is not None:
            # A run that goes on has not done in a moment what it had done before.
            self.progress.reset(task, completed=self.trainer.global_step, visible=visible)
        return task

    def _get_train_description(self, current_epoch: int) -> str:
        return "Training"
