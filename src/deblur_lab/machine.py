"""What a machine lacks: from errors of PyTorch and of the system to one line that says what to do."""

import re
import sys

import torch

from deblur_lab.errors import MachineError

_NO_MEMORY = re.compile(
    r"DefaultCPUAllocator|can't allocate memory|not enough memory|out of memory|_STATUS_ALLOC_FAILED"
    r"|Insufficient memory|Unable to allocate",
    re.IGNORECASE,
)
_NO_SHARED_MEMORY = re.compile(r"unable to .*(?:/torch_|shared memory)", re.IGNORECASE)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU, here or in a data worker."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # OpenCV's error is an Exception alone.
    of_a_library = isinstance(error, RuntimeError) or type(error).__module__ == "cv2"
    return of_a_library and _NO_MEMORY.search(str(error)) is not None


def peak_memory(device: torch.device) -> str:
    """The most memory that this process has used so far, in words.

    >>> peak_memory(torch.device("cpu")).endswith("GiB of main memory")
    True
    """
    if device.type == "cuda":
        used = torch.cuda.max_memory_allocated(device)
        total = torch.cuda.get_device_properties(device).total_memory
        return f"{used / 2**30:.2f} of {total / 2**30:.2f} GiB on {device}"
    if sys.platform == "win32":
        return "an unknown amount of main memory"
    import resource

    # In KiB, but in bytes on a Mac.
    unit = 1 if sys.platform == "darwin" else 2**10
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.2f} GiB of main memory"


def machine_fault(error: BaseException, device: torch.device, remedy: str) -> MachineError | None:
    """What the machine lacked, if that is what an error is about.

    Args:
        error: that ended the work.
        device: on which it was done.
        remedy: what to try where memory ran out; continues "try ...".
    """
    words = str(error)
    if isinstance(error, RuntimeError) and _NO_SHARED_MEMORY.search(words) and not _NO_MEMORY.search(words):
        return MachineError(
            "shared memory (/dev/shm), through which data workers hand over what they have read, is full: "
            "give the container more (docker run --shm-size=8g), or set data.num_workers=0"
        )
    if "Too many open files" in words:
        return MachineError(
            "too many open files: raise the limit by ulimit -n 65536, or use fewer data.num_workers"
        )
    if out_of_memory(error):
        return MachineError(f"out of memory; at most {peak_memory(device)} was used: try {remedy}")
    return None
