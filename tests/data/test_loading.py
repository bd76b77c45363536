"""Data workers that die, hang or are in the way, and what is said of them."""

import os
import re
import signal
import time

import pytest
import torch

from deblur_lab.data.loading import SampleLoader, end_workers
from deblur_lab.errors import DataError, MachineError


class Numbers:
    """Samples that are their keys; some do to the process that reads them what they are told to."""

    def __init__(self, count=6, **deeds):
        self.count = count
        self.deeds = {int(key.removeprefix("at_")): deed for key, deed in deeds.items()}

    def __len__(self):
        return self.count

    def name(self, key):
        return f"number {key}"

    def __getitem__(self, key):
        self.deeds.get(key, lambda: None)()
        return {"number": torch.tensor(key), "process": os.getpid()}


def hang():
    # A disk that does not answer is not interrupted either.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    time.sleep(600)


def loader(samples, *, workers=2, timeout_s=0.0, batch=2):
    keys = list(range(len(samples)))
    batches = [keys[start : start + batch] for start in range(0, len(keys), batch)]
    return SampleLoader(samples, batch_sampler=batches, num_workers=workers, timeout_s=timeout_s)


def numbers(batches):
    return [batch["number"].tolist() for batch in batches]


@pytest.fixture(autouse=True)
def none_left():
    yield
    end_workers()


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_their_order_again_and_again(workers):
    loaded = loader(Numbers(), workers=workers, timeout_s=30)
    assert len(loaded) == 3
    for _ in range(2):
        assert numbers(loaded) == [[0, 1], [2, 3], [4, 5]]
    # Left in the middle, it begins anew.
    assert next(iter(loaded))["number"].tolist() == [0, 1]
    assert numbers(loaded) == [[0, 1], [2, 3], [4, 5]]


def test_what_a_hung_worker_was_to_read_is_named_and_nothing_waits_for_it():
    began = time.monotonic()
    with pytest.raises(
        MachineError,
        match=r"^a data worker hangs: number 2, number 3 did not come in 1 s: .*data\.worker_timeout_s$",
    ):
        numbers(loader(Numbers(at_3=hang), timeout_s=1))
    assert time.monotonic() - began < 8


def test_one_that_is_only_slow_is_waited_for():
    slow = Numbers(at_3=lambda: time.sleep(1.2))
    assert numbers(loader(slow, timeout_s=30)) == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by SIGKILL, as the system does when "),
        (lambda: os.kill(os.getpid(), signal.SIGBUS), r"was killed by SIGBUS, as shared memory \("),
        (lambda: os._exit(3), "ended with exit code 3: try data.num_workers=0"),
    ],
)
def test_a_worker_that_dies_is_named(deed, told):
    with pytest.raises(MachineError) as caught:
        numbers(loader(Numbers(at_3=deed)))
    assert re.match(rf"data worker 1 of 2 \(process \d+\) {told}", str(caught.value))


def test_a_mistake_comes_as_it_is_and_leaves_no_worker():
    def mistake():
        raise DataError("a.png: is no picture")

    samples = Numbers(at_3=mistake)
    loaded = loader(samples)
    batches = iter(loaded)
    worker = int(next(batches)["process"][0])
    with pytest.raises(DataError, match=r"^a\.png: is no picture$"):
        next(batches)
    assert not os.path.exists(f"/proc/{worker}")
    # And once it is mended, it can be used again.
    samples.deeds = {}
    assert numbers(loaded) == [[0, 1], [2, 3], [4, 5]]


def test_workers_do_not_listen_to_what_stops_the_run():
    batches = iter(loader(Numbers(60)))
    worker = int(next(batches)["process"][0])
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker, number)
    assert len(numbers(batches)) == 29
