"""The test-time local converter (TLC), on for the datasets whose protocol asks for it."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from deblur_lab.callbacks.rows import datamodule_of
from deblur_lab.metrics import ScoringProtocol
from deblur_lab.models import HasConverter


class Converter(Callback):
    """Switches the test-time local converter (TLC) while a dataset is scored whose protocol asks for it.

    Args:
        size_px: side of the patches that the network was trained on.
        forced: on or off, whatever the protocol says; None: as it says.
    """

    def __init__(self, size_px: int, forced: bool | None = None) -> None:
        self.size_px = size_px
        self.forced = forced

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Lightning's."""
        self._switch(trainer, pl_module, dataloader_idx)

    def on_test_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Lightning's."""
        self._switch(trainer, pl_module, dataloader_idx)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's."""
        _set_tlc(pl_module, None)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning's."""
        _set_tlc(pl_module, None)

    def switched_on(self, protocol: ScoringProtocol, pl_module: L.LightningModule) -> bool:
        """Whether a network is scored with the converter by a protocol; never if it has none."""
        wanted = protocol.tlc if self.forced is None else self.forced
        return wanted and bool(_with_converter(pl_module))

    def _switch(self, trainer: L.Trainer, pl_module: L.LightningModule, dataset: int) -> None:
        on = self.switched_on(datamodule_of(trainer).sources[dataset].protocol, pl_module)
        _set_tlc(pl_module, self.size_px if on else None)


def _with_converter(pl_module: L.LightningModule) -> list[HasConverter]:
    return [module for module in pl_module.modules() if isinstance(module, HasConverter)]


def _set_tlc(pl_module: L.LightningModule, size_px: int | None) -> None:
    for net in _with_converter(pl_module):
        net.set_tlc(size_px)
