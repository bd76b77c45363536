"""How much memory training takes, and how long it takes; over all starts of a run that was stopped."""

import gc
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from deblur_lab.measuring import forget_peak, peak_resident_bytes

_MEASURED_STEPS = 3


class PeakMemory(Callback):
    """Measures the memory of a few optimizer steps, the first one not among them, and the time of all.

    By then the optimizer has its state; more steps would find the same, and cost time. On a GPU it is the
    most that PyTorch had allocated, weights and all. On the CPU it is the highest resident size of this
    process beyond what was resident when this was constructed: construct it before the network. On several
    devices it is the first one's.

    Attributes:
        peak_bytes: None until it is measured, and where the system does not tell it.
    """

    def __init__(self) -> None:
        self.peak_bytes: int | None = None
        gc.collect()  # what an earlier training in this process has left
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._resident_before = forget_peak()
        self._seconds = 0.0
        self._since: float | None = None
        self._first_step = 0
        self._measures = False

    @property
    def seconds(self) -> float:
        """The time of training so far, validations included, of all starts."""
        return self._seconds + (0.0 if self._since is None else time.monotonic() - self._since)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's."""
        self._since = time.monotonic()
        self._first_step = trainer.global_step

    def on_train_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
    ) -> None:
        """Lightning's."""
        self._measures = 1 <= trainer.global_step - self._first_step <= _MEASURED_STEPS
        if not self._measures:
            return
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        else:
            forget_peak()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Lightning's."""
        if not self._measures:
            return
        peak = None
        if pl_module.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(pl_module.device)
        elif pl_module.device.type == "cpu" and self._resident_before is not None:
            highest = peak_resident_bytes()
            peak = None if highest is None else max(0, highest - self._resident_before)
        if peak is not None:
            self.peak_bytes = max(peak, self.peak_bytes or 0)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's."""
        self._seconds, self._since = self.seconds, None

    def state_dict(self) -> dict[str, Any]:
        """Lightning's; what was measured so far."""
        return {"peak_bytes": self.peak_bytes, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's."""
        self.peak_bytes = state_dict["peak_bytes"]
        self._seconds = state_dict["seconds"]
