"""How long a pass takes, and how much memory it needs beyond what was there before."""

import contextlib
import ctypes
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_MACHINE = Path("/proc/meminfo")
# What a container may use and uses, in the two ways that Linux has of telling.
_CONTAINER = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)
_RESET_PEAK = "5"  # what Linux takes for: let the peak be what is used now

Result = TypeVar("Result")


class Measured(NamedTuple):
    """What a pass took.

    Attributes:
        seconds: from its start until its result is there, on a GPU too.
        peak_bytes: the most memory it needed at a time beyond what was there before it (weights, input, the
            program itself): of a GPU what PyTorch allocated, of the CPU main memory; None where the system
            does not tell (all but Linux).
    """

    seconds: float
    peak_bytes: int | None


def measured(run: Callable[[], Result], device: torch.device) -> tuple[Result, Measured]:
    """Run something on a device, once, and measure it.

    Of main memory the system's own record is taken, the highest resident size of this process, which is set
    back before: so what libraries allocate past PyTorch is seen as well. What earlier passes have freed, but
    the C library kept for later, is handed back first, or it would be missing in the difference.

    Args:
        run: what is measured.
        device: that it runs on.

    Returns:
        What it returned, and what it took.
    """
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before: int | None = torch.cuda.memory_allocated(device)
    else:
        before = forget_peak() if device.type == "cpu" else None
    started = time.perf_counter()
    result = run()
    if on_gpu:
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    seconds = time.perf_counter() - started
    after = torch.cuda.max_memory_allocated(device) if on_gpu else _kibibytes(_STATUS, "VmHWM")
    peak = None if before is None or after is None else max(after - before, 0)
    return result, Measured(seconds, peak)


def forget_peak() -> int | None:
    """Set the record of this process's main memory back; what it uses now, or None where that cannot be."""
    if not sys.platform.startswith("linux"):
        return None
    with contextlib.suppress(OSError, AttributeError):  # other C libraries hand back by themselves
        ctypes.CDLL(None).malloc_trim(0)
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return None  # a container may forbid it
    return _kibibytes(_STATUS, "VmRSS")


def peak_resident_bytes() -> int | None:
    """The most main memory that this process used at a time since its record was set back, on Linux."""
    return _kibibytes(_STATUS, "VmHWM")


def available_bytes() -> int | None:
    """How much main memory may still be used, by this machine or its container; None where that is not told.

    Who uses more is killed by the system, without a word.
    """
    found = [available for available in (_kibibytes(_MACHINE, "MemAvailable"),) if available is not None]
    for limit, used in _CONTAINER:
        with contextlib.suppress(OSError, ValueError):  # none, or "max"
            found.append(int(limit.read_text()) - int(used.read_text()))
    return min(found, default=None)


def _kibibytes(told: Path, key: str) -> int | None:
    """A line of what Linux tells, in bytes."""
    try:
        lines = told.read_text().splitlines()
    except OSError:
        return None
    found = [line for line in lines if line.startswith(f"{key}:")]
    return int(found[0].split()[1]) * 1024 if found else None
