"""What is measured of a training that restores no pictures, and the file that it is written to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from deblur_lab.writing import write_json


class Measures(Callback):
    """Keeps what a task logs when it is validated and tested, and writes it down.

    A test keeps ``val/...`` of the last validation and its own ``test/...`` in `results` and, if it has a
    folder, writes them as ``measures`` into ``measures.json``.

    Args:
        folder: for the file; None to write none.
        about: what stands in the file beside the measures (checkpoint, commit, ...).

    Attributes:
        results: of the last test and of the last validation before it, by name.
    """

    def __init__(self, folder: Path | None = None, about: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.about = dict(about or {})
        self.results: dict[str, float] = {}
        self._validated: dict[str, float] = {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's."""
        if not trainer.sanity_checking:
            self._validated = _logged(trainer, "val/")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's; after what the task logs at the end of its test. Writes the file."""
        self.results = {**self._validated, **_logged(trainer, "test/")}
        if self.folder is not None and trainer.is_global_zero:
            write_json(self.folder / "measures.json", {**self.about, "measures": self.results})

    def state_dict(self) -> dict[str, Any]:
        """Lightning's; the last validation, which a run that is resumed at its end does not repeat."""
        return {"validated": self._validated} if self._validated else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's."""
        self._validated = state_dict["validated"]


def _logged(trainer: L.Trainer, prefix: str) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(prefix)}
