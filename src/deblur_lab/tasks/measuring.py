"""Tasks that restore no pictures: they measure what they learn, in sums over all that is evaluated."""

from collections.abc import Mapping, Sequence

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor, nn

from deblur_lab.ranges import Natural
from deblur_lab.tasks.training import Batch, OptimizerFactory, SchedulerFactory, TrainingTask


class MeasuringTask(TrainingTask):
    """Adds up, over the batches of all processes, what its measures are made of; logs them at the end.

    They are logged as ``val/<measure>`` and ``test/<measure>``; of several datasets, the first one's have
    these names, others' begin with ``<dataset>_``.

    Args:
        net, optimizer, scheduler, compile_blocks, max_skipped_steps: as in `TrainingTask`.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        compile_blocks: bool = False,
        max_skipped_steps: Natural = 20,
    ) -> None:
        super().__init__(net, optimizer, scheduler, compile_blocks, max_skipped_steps)
        self._sums: dict[int, Tensor] = {}
        self._batches = 0

    def no_sums(self) -> Tensor:
        """What `sums_of` gives of nothing: zeros, float64, on the CPU."""
        raise NotImplementedError

    def sums_of(self, batch: Batch) -> Tensor:
        """What the measures of a batch are made of, as `no_sums`; they are added up."""
        raise NotImplementedError

    def measures_of(self, sums: Tensor) -> Mapping[str, float]:
        """The measures, by name, of sums over a whole dataset."""
        raise NotImplementedError

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Lightning's; adds up what the measures are made of."""
        self._add(batch, dataloader_idx)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Lightning's; adds up what the measures are made of."""
        self._add(batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Lightning's; logs ``val/<measure>``."""
        self._log_measures("val", [int(number) for number in self.trainer.num_val_batches])

    def on_test_epoch_end(self) -> None:
        """Lightning's; logs ``test/<measure>``."""
        self._log_measures("test", [int(number) for number in self.trainer.num_test_batches])

    def _add(self, batch: Batch, dataset: int) -> None:
        self._sums[dataset] = self._sums.get(dataset, self.no_sums()) + self.sums_of(batch)
        self._batches += 1

    def _log_measures(self, prefix: str, expected: Sequence[int]) -> None:
        own = torch.stack([self._sums.get(dataset, self.no_sums()) for dataset in range(len(expected))])
        batches, self._sums, self._batches = self._batches, {}, 0
        total = summed(self.trainer, own, batches, sum(expected))
        for dataset, sums in enumerate(total):
            infix = "" if dataset == 0 else f"{self._dataset(dataset)}_"
            for name, value in self.measures_of(sums).items():
                shown = dataset == 0 and f"val/{name}" == self.monitor[0]
                # All processes have the same values; the sync only tells Lightning that they agree.
                self.log(f"{prefix}/{infix}{name}", value, prog_bar=shown, sync_dist=True)

    def _dataset(self, number: int) -> str:
        sources = getattr(getattr(self.trainer, "datamodule", None), "sources", None)
        return str(number) if sources is None else str(sources[number].name)


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
