from collections import Counter
from itertools import chain, islice

import pytest

from deblur_lab.data.samples import SampleKey
from deblur_lab.data.sampling import EvaluationSampler, StreamSampler


def sampler(
    sizes: tuple[int, ...] = (7,),
    *,
    seed: int = 0,
    micro: int = 2,
    rank: int = 0,
    world: int = 1,
    total: int = 30,
    first: int = 0,
) -> StreamSampler:
    return StreamSampler(
        sizes,
        seed=seed,
        micro_batch_size=micro,
        rank=rank,
        world_size=world,
        total_batches=total,
        first_batch=first,
    )


def stream(sizes: tuple[int, ...], length: int, seed: int = 0) -> list[SampleKey]:
    return list(chain.from_iterable(sampler(sizes, micro=1, total=length, seed=seed)))


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("sizes", [(7,), (5, 3), (10, 1, 4)])
def test_all_processes_together_are_one(world: int, sizes: tuple[int, ...]) -> None:
    together = stream(sizes, 24 * world)
    parts = [list(sampler(sizes, micro=3, rank=rank, world=world, total=8)) for rank in range(world)]
    joined = [key for batch in zip(*parts, strict=True) for part in batch for key in part]
    assert joined == together
    # ... and so is one process with the same batch, or with accumulation in its place.
    assert list(chain.from_iterable(sampler(sizes, micro=3 * world, total=8))) == together
    assert list(chain.from_iterable(sampler(sizes, micro=3, total=8 * world))) == together


@pytest.mark.parametrize("first", [0, 1, 13, 29, 30])
def test_a_resumed_stream_goes_on_where_it_was(first: int) -> None:
    for rank in range(2):
        whole = list(sampler((5, 3), rank=rank, world=2))
        resumed = sampler((5, 3), rank=rank, world=2, first=first)
        assert list(resumed) == whole[first:]
        assert len(resumed) == len(whole) == 30


def test_every_index_comes_once_an_epoch_in_another_order() -> None:
    keys = stream((7,), 21)
    epochs = [keys[start : start + 7] for start in (0, 7, 14)]
    for epoch, part in enumerate(epochs):
        assert {key.epoch for key in part} == {epoch}
        assert sorted(key.index for key in part) == list(range(7))
    assert len({tuple(key.index for key in part) for part in epochs}) == 3


def test_datasets_are_mixed_one_to_one_whatever_their_sizes() -> None:
    keys = stream((2, 50), 100)
    assert Counter(key.dataset for key in keys) == {0: 50, 1: 50}
    assert [key.dataset for key in keys[:4]] == [0, 1, 0, 1]
    assert Counter(key.index for key in keys if key.dataset == 0) == {0: 25, 1: 25}
    assert sorted(key.index for key in keys if key.dataset == 1) == list(range(50))
    assert max(key.epoch for key in keys if key.dataset == 0) == 24


def test_the_order_is_a_function_of_seed_and_dataset() -> None:
    assert stream((20, 20), 80) == stream((20, 20), 80)
    assert stream((20, 20), 80) != stream((20, 20), 80, seed=1)
    keys = stream((20, 20), 40)
    first, second = ([key.index for key in keys if key.dataset == dataset] for dataset in (0, 1))
    assert first != second
    # Another dataset beside it does not change a dataset's own order.
    assert first == [key.index for key in stream((20,), 20)]


def test_long_runs_are_never_listed() -> None:
    endless = sampler((2103, 2010), total=10**12, first=10**12 - 3)
    assert len(endless) == 10**12
    assert sum(1 for _ in endless) == 3
    assert len(list(islice(sampler((3,), total=10**12), 5))) == 5


def test_two_passes_are_equal() -> None:
    twice = sampler((5, 3))
    assert list(twice) == list(twice)


@pytest.mark.parametrize("count", [0, 1, 3, 10, 11])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_evaluation_is_shared_out_without_repeats(count: int, world: int) -> None:
    parts = [EvaluationSampler(count, rank, world) for rank in range(world)]
    assert sorted(chain.from_iterable(parts)) == list(range(count))
    assert [len(part) for part in parts] == [len(list(part)) for part in parts]
    assert list(parts[0]) == list(range(0, count, world))
