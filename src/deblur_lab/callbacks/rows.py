"""A row an image, from all processes."""

from collections.abc import Sequence
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from deblur_lab.data import DeblurDataModule
from deblur_lab.data.samples import Split

# What is known of an image; `dataset`, a number, and `index` say which it is.
Row = dict[str, Any]


def datamodule_of(trainer: L.Trainer) -> DeblurDataModule:
    """The datasets that a trainer works on."""
    return cast(DeblurDataModule, trainer.datamodule)  # type: ignore[attr-defined]


def gathered(rows: list[Row]) -> list[Row]:
    """The rows of all processes, in the order of the datasets."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        parts: list[list[Row]] = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(parts, rows)
        rows = [row for part in parts for row in part]
    return sorted(rows, key=lambda row: (row["dataset"], row["index"]))


def require_all(rows: Sequence[Row], trainer: L.Trainer, split: Split) -> None:
    """Stop all processes, which have the same rows, if some are missing.

    Raises:
        SIGTERMException: a process was told to stop, and left the rest of its part.
    """
    if len(rows) < sum(len(source.scenes(split)) for source in datamodule_of(trainer).sources):
        raise SIGTERMException
