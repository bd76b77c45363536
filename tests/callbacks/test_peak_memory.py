"""The memory of a few steps and the time of all, kept over a stop."""

import sys
import time
from types import SimpleNamespace

import pytest
import torch

from deblur_lab.callbacks import PeakMemory

DEVICE = SimpleNamespace(device=torch.device("cpu"))


def trained(memory: PeakMemory, sizes: list[int], first_step: int = 0) -> None:
    """Steps that each take so many MiB."""
    trainer = SimpleNamespace(global_step=first_step)
    memory.on_train_start(trainer, DEVICE)
    for number, size in enumerate(sizes):
        memory.on_train_batch_start(trainer, DEVICE, {}, number)
        torch.ones(size, 2**18).sum()
        trainer.global_step += 1
        memory.on_train_batch_end(trainer, DEVICE, None, {}, number)
    memory.on_train_end(trainer, DEVICE)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells")
def test_the_first_step_and_late_ones_are_not_measured():
    memory = PeakMemory()
    if memory._resident_before is None:
        pytest.skip("this container does not tell")
    trained(memory, [200, 10, 60, 10, 10, 200])
    assert 55 < memory.peak_bytes / 2**20 < 150


def test_the_time_of_all_starts_is_counted_and_the_highest_peak_kept():
    memory = PeakMemory()
    memory.on_train_start(SimpleNamespace(global_step=0), DEVICE)
    time.sleep(0.05)
    kept = memory.state_dict()
    assert kept["seconds"] > 0.04
    again = PeakMemory()
    again.load_state_dict({"peak_bytes": 2**50, "seconds": 100.0})
    trained(again, [1, 1, 1], first_step=7)
    assert again.peak_bytes == 2**50
    assert 100 < again.seconds < 110
    assert again.state_dict() == {"peak_bytes": 2**50, "seconds": again.seconds}


def test_it_is_not_known_before_it_is_measured():
    memory = PeakMemory()
    trained(memory, [1])
    assert memory.peak_bytes is None
