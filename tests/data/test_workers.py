"""Work shared by processes."""

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass

import pytest

from deblur_lab.data.workers import as_done, cores, in_order
from deblur_lab.errors import MachineError


@dataclass(frozen=True)
class Square:
    number: int

    def __call__(self) -> int:
        return self.number**2


class KilledAtLast(Square):
    """The first kills its process when the other processes have long run out of work."""

    def __call__(self) -> int:
        if self.number == 0:
            time.sleep(0.5)
            signal.raise_signal(signal.SIGKILL)
        return self.number


def test_results_come_in_order_from_any_number_of_processes():
    jobs = [Square(number) for number in range(20)]
    for workers in (0, 1, 2):
        assert list(in_order(jobs, workers, killed="")) == [number**2 for number in range(20)]
    assert list(in_order([], 2, killed="")) == []


def test_results_come_as_they_are_done():
    jobs = [Square(number).__call__ for number in range(9)]
    for workers in (0, 2):
        assert sorted(as_done(jobs, workers, killed="")) == [number**2 for number in range(9)]
    assert list(as_done([], 2, killed="")) == []


@pytest.mark.parametrize("share", [in_order, as_done])
def test_a_process_that_is_killed_is_told_and_takes_the_others_with_it(share):
    before = multiprocessing.active_children()
    with pytest.raises(MachineError, match="try one"):
        list(share([KilledAtLast(number) for number in range(3)], 3, killed="try one"))
    assert multiprocessing.active_children() == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not say")
def test_cores_are_those_that_the_process_may_use():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert cores() == len(before)
