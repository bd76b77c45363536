"""Which sample comes when: the stream of training, and the pictures of an evaluation shared out."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from deblur_lab.data.samples import SampleKey

_ORDER_SALT = 1  # keeps the order apart from what else is drawn from (seed, dataset, epoch)


class StreamSampler(Sampler[list[SampleKey]]):
    """Micro-batches of one training stream, of which each process takes its part.

    The stream does not depend on how many processes there are: position p = 0, 1, 2, ... holds a sample of
    dataset p mod D, so that D datasets are mixed one to one, and of it the (p div D)-th in an order that
    visits every index once in an epoch and is drawn anew for each epoch. Of micro-batches of m samples, the
    j-th of rank r among R holds the m positions from (j R + r) m on: what R processes take at a time is what
    one process takes with micro-batches of R m samples, or with R times the accumulation.

    Args:
        sizes: The number of scenes of each dataset.
        seed: The order is a function of this, the dataset and the epoch.
        micro_batch_size: m, the samples that one process takes at a time.
        rank: r, this process.
        world_size: R, the number of processes.
        total_batches: The micro-batches of one process in the whole run.
        first_batch: Where to begin, as a run does that goes on. The length stays that of the whole run,
            because Lightning goes on counting from where it was.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        seed: int,
        micro_batch_size: int,
        rank: int,
        world_size: int,
        total_batches: int,
        first_batch: int = 0,
    ) -> None:
        assert sizes, "there is a dataset"
        assert min(sizes) > 0, "no dataset is empty"
        assert 0 <= rank < world_size, "ranks count from zero"
        self.sizes = tuple(sizes)
        self.seed = seed
        self.micro_batch_size = micro_batch_size
        self.rank = rank
        self.world_size = world_size
        self.total_batches = total_batches
        self.first_batch = first_batch
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}

    def __len__(self) -> int:
        """The micro-batches of the whole run, those before `first_batch` included."""
        return self.total_batches

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """The micro-batches from `first_batch` on."""
        for batch in range(self.first_batch, self.total_batches):
            start = (batch * self.world_size + self.rank) * self.micro_batch_size
            yield [self.key(position) for position in range(start, start + self.micro_batch_size)]

    def key(self, position: int) -> SampleKey:
        """The sample at a position of the stream."""
        turn, dataset = divmod(position, len(self.sizes))
        epoch, place = divmod(turn, self.sizes[dataset])
        return SampleKey(dataset, int(self._order(dataset, epoch)[place]), epoch)

    def _order(self, dataset: int, epoch: int) -> NDArray[np.int64]:
        """The order of an epoch; of each dataset the latest is kept."""
        kept = self._orders.get(dataset)
        if kept is None or kept[0] != epoch:
            rng = np.random.default_rng([self.seed, dataset, epoch, _ORDER_SALT])
            kept = self._orders[dataset] = (epoch, rng.permutation(self.sizes[dataset]))
        return kept[1]


class EvaluationSampler(Sampler[int]):
    """The part of one process in an evaluation: every `world_size`-th index from `rank` on.

    All parts together are every index once: none is repeated to make the parts equal.
    """

    def __init__(self, count: int, rank: int, world_size: int) -> None:
        assert 0 <= rank < world_size, "ranks count from zero"
        self.indices = range(rank, count, world_size)

    def __len__(self) -> int:
        """How many indices this process has."""
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        """The indices, in rising order."""
        return iter(self.indices)
