"""Errors that are the machine's, told from those that are not."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from deblur_lab.machine import machine_fault, out_of_memory, peak_memory

CPU = torch.device("cpu")


def raised(work):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what the tests ask
        work()
    return caught.value


def test_what_libraries_say_when_memory_runs_out_is_known():
    too_much = 2**46
    assert out_of_memory(raised(lambda: torch.empty(too_much, dtype=torch.uint8)))
    assert out_of_memory(raised(lambda: np.empty(too_much, np.uint8)))
    assert out_of_memory(raised(lambda: cv2.resize(np.zeros((4, 4), np.float64), (2**21, 2**22))))
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shape '[3]' is invalid for input of size 4"), ValueError("out of memory"), OSError(28)],
)
def test_other_mistakes_are_not_the_machines(error):
    assert not out_of_memory(error)
    assert machine_fault(error, CPU, "less") is None


def test_the_peak_is_of_this_process():
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in status if line.startswith("VmHWM")]
    told = peak_memory(CPU)
    assert told.endswith(" GiB of main memory")
    assert float(told.split()[0]) == pytest.approx(int(line.split()[1]) / 2**20, abs=0.02)


def test_what_is_full_is_told_with_what_to_do():
    fault = machine_fault(MemoryError(), CPU, "a smaller batch")
    assert str(fault).startswith("out of memory; at most ")
    assert str(fault).endswith(" GiB of main memory was used: try a smaller batch")
    shared = machine_fault(
        RuntimeError("unable to write to file </torch_17_9_0>: No space left on device (28)"), CPU, ""
    )
    assert "shared memory (/dev/shm)" in str(shared)
    assert "data.num_workers=0" in str(shared)
    files = machine_fault(RuntimeError("Too many open files. Communication with the workers"), CPU, "")
    assert "ulimit -n" in str(files)
