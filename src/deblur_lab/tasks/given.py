"""Pictures that something else restored, in the place of a network's output."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from torch import nn

from deblur_lab.data.restored import wrong_size
from deblur_lab.errors import DataError
from deblur_lab.images import read_rgb, to_tensor
from deblur_lab.restorations import Restoration
from deblur_lab.tasks.training import Batch


class GivenPictures(L.LightningModule):
    """Hands on restored pictures from files, to be scored as a network's are.

    Args:
        files: of each dataset of the data module, in their order: the file of each picture, by its index.
    """

    def __init__(self, files: Sequence[Mapping[int, Path]]) -> None:
        super().__init__()
        self.files = tuple(files)

    def test_step(  # type: ignore[override]  # Lightning hands callbacks whatever a step returns
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> Restoration:
        """Lightning's; callbacks score what it returns.

        Raises:
            ImageError: a file cannot be read.
            DataError: one is not as large as its sharp picture.
        """
        sharp = batch["sharp"]
        height, width = sharp.shape[-2:]
        pictures = []
        for index in cast(Any, batch["index"]).tolist():
            path = self.files[dataloader_idx][index]
            picture = read_rgb(path)
            if picture.shape[:2] != (height, width):
                raise DataError(wrong_size(path, (picture.shape[1], picture.shape[0]), (width, height)))
            pictures.append(to_tensor(picture))
        return Restoration(torch.stack(pictures).to(sharp.device))

    @property
    def evaluated_net(self) -> nn.Module:
        """None that is known: what stands for it hands on its input."""
        return nn.Identity()
