"""What a run writes down beside its scores: what it was, and which samples it could not read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from deblur_lab.checkpoints import RECORD_KEY
from deblur_lab.writing import writing


class Record(Callback):
    """Puts what a run was (configuration, version, commit) into its checkpoints, as plain containers.

    Args:
        record: of strings, numbers, lists and dictionaries alone; what is known later may be put into the
            attribute of this name, before the first step.
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = dict(record)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lightning's."""
        checkpoint[RECORD_KEY] = self.record


class Skipped(Callback):
    """Counts the training samples that others stood in for, as ``train/skipped``, and writes down which.

    Does nothing unless the data skip what cannot be read; see `deblur_lab.data.datamodule.TrainingPatches`.

    Args:
        path: of the file, a line for each picture.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before = 0  # the run was resumed
        self._own = 0
        self._counted = 0

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Lightning's."""
        if "skipped" not in batch:
            return
        wrong = [line for line in batch["skipped"] if line]
        self._own += len(wrong)
        # Every process counts its own; there is nothing to wait for where nothing is skipped.
        own = torch.tensor(float(self._own), device=pl_module.device)
        self._counted = int(trainer.strategy.reduce(own, reduce_op="sum"))
        pl_module.log("train/skipped", float(self._before + self._counted))
        if wrong:
            with writing(self.path):
                known = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
                with self.path.open("a", encoding="utf-8") as file:
                    file.writelines(f"{line}\n" for line in dict.fromkeys(wrong) if line not in known)

    def state_dict(self) -> dict[str, Any]:
        """Lightning's; what was counted so far."""
        return {"skipped": self._before + self._counted} if self._before + self._counted else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's."""
        self._before = state_dict["skipped"]
