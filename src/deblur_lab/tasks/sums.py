"""Sums over what all processes have evaluated."""

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor


def summed(trainer: L.Trainer, own: Tensor, batches: int, expected: int) -> Tensor:
    """The sum of the tensors of all processes; every process must call this.

    Args:
        trainer: whose processes these are.
        own: this process's, on the processor, of a shape that is everywhere the same.
        batches: how many batches of the evaluation this process has seen.
        expected: how many it was to see.

    Returns:
        float64, on the processor.

    Raises:
        SIGTERMException: a process was told to stop, and left the rest of its part.
    """
    # The MPS of an Apple computer has no float64, and is always alone.
    device = torch.device("cpu") if trainer.world_size == 1 else trainer.strategy.root_device
    sent = torch.cat([own.double().flatten(), torch.tensor([batches, expected], dtype=torch.float64)])
    total = trainer.strategy.reduce(sent.to(device), reduce_op="sum").cpu()
    if total[-2] < total[-1]:
        raise SIGTERMException
    return total[:-2].view(own.shape)
