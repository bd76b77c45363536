"""Work done by a process a core, which Ctrl-C and a killed parent end."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from deblur_lab.errors import MachineError

Result = TypeVar("Result")

_FEWEST_FOR_PROCESSES = 8
_LARGEST_CHUNK = 8


def each(jobs: Sequence[Callable[[], Result]], workers: int | None) -> Iterator[Result]:
    """Do jobs and yield what they return, in their order.

    Args:
        jobs: Objects that can be pickled, called without arguments.
        workers: How many processes do them; None for one a core that this process may use. Few jobs, which
            are done sooner than processes are started, are done here, as with one worker.

    Raises:
        MachineError: A process was killed.
    """
    count = min(workers or cores(), len(jobs))
    if count <= 1 or len(jobs) < _FEWEST_FOR_PROCESSES:
        for job in jobs:
            yield job()
        return
    # Processes start afresh: one that is forked while threads hold locks may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, context, initializer=_start)
    try:
        yield from pool.map(_called, jobs, chunksize=min(max(len(jobs) // (4 * count), 1), _LARGEST_CHUNK))
    except BrokenProcessPool as error:
        raise MachineError(
            "a process that reads pictures was killed, perhaps for want of memory: try workers=1"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _called(job: Callable[[], Result]) -> Result:
    return job()


def _start() -> None:
    """Leave Ctrl-C and SIGTERM to the first process, and end when it ends, even if it is killed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=follow, args=(parent.sentinel,), daemon=True).start()
