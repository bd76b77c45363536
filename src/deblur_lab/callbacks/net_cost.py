"""What the net costs whose restored pictures are scored."""

from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import nn

from deblur_lab.net_costs import cost_of


class NetCost(Callback):
    """Notes a net's parameters and multiply-adds, of the size of the first picture that a test restores.

    Args:
        about: what stands beside the scores; is given ``cost`` (`deblur_lab.net_costs.cost_of`).
    """

    def __init__(self, about: dict[str, Any]) -> None:
        self.about = about

    def on_test_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,  # noqa: ANN401 - Lightning's signature
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Lightning's; before the test-time local converter changes the net."""
        if batch_idx == 0 and dataloader_idx == 0 and trainer.is_global_zero and "cost" not in self.about:
            height_px, width_px = batch["blurry"].shape[-2:]
            net = cast(nn.Module, pl_module.evaluated_net)
            self.about["cost"] = cost_of(net, (width_px, height_px))
