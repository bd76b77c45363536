"""Work done by a process a core, which Ctrl-C and a killed parent end."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import TypeVar

from deblur_lab.errors import MachineError

Result = TypeVar("Result")

_LARGEST_CHUNK = 8


def cores() -> int:
    """How many cores this process may use, which a container or a cluster may have cut down."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(jobs: Sequence[Callable[[], Result]], workers: int, *, killed: str) -> Iterator[Result]:
    """Do jobs and yield what they return, in their order.

    Args:
        jobs: Objects that can be pickled, called without arguments. They go to the processes some at a time,
            so that many short ones cost little.
        workers: How many processes do them; with 0 they are done here.
        killed: What to say if a process was killed.

    Raises:
        MachineError: A process was killed.
    """
    if workers == 0:
        yield from map(_called, jobs)
        return
    with _processes(workers, len(jobs), killed) as pool:
        chunk = min(max(len(jobs) // (4 * workers), 1), _LARGEST_CHUNK)
        with _held_back():
            results = pool.map(_called, jobs, chunksize=chunk)
        yield from results


def as_done(jobs: Sequence[Callable[[], Result]], workers: int, *, killed: str) -> Iterator[Result]:
    """Do jobs and yield what each returns as soon as it is done, in any order.

    Jobs that have begun when nobody asks for more are finished.

    Args:
        jobs: As in `in_order`, but each goes by itself.
        workers: Likewise.
        killed: Likewise.

    Raises:
        MachineError: A process was killed.
    """
    if workers == 0:
        yield from map(_called, jobs)
        return
    with _processes(workers, len(jobs), killed) as pool:
        with _held_back():
            waiting: list[Future[Result]] = [pool.submit(job) for job in jobs]
        for future in as_completed(waiting):
            yield future.result()


@contextmanager
def _processes(workers: int, jobs: int, killed: str) -> Iterator[ProcessPoolExecutor]:
    """A process for each worker, but no more than there are jobs; ended in the end, whatever happens."""
    others = multiprocessing.active_children()
    # Processes start afresh: one that is forked while threads hold locks may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(max(min(workers, jobs), 1), context, initializer=_start)
    try:
        yield pool
    except BrokenProcessPool as error:
        # The pool would end those that are left by SIGTERM, to which they do not listen.
        for process in multiprocessing.active_children():
            if process not in others:
                process.kill()
        raise MachineError(killed) from error
    finally:
        # What a process is at is finished.
        pool.shutdown(wait=True, cancel_futures=True)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def _held_back() -> Iterator[None]:
    """Keep Ctrl-C and SIGTERM waiting while processes are started.

    A process that is started has them held back as well, until `_start` says that it ignores them: sent to
    the whole group before that, they would break the pool.
    """
    if not hasattr(signal, "pthread_sigmask"):  # as on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _called(job: Callable[[], Result]) -> Result:
    return job()


def _start() -> None:
    """Leave Ctrl-C and SIGTERM to the first process, and end when it ends, even if it is killed."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=follow, args=(parent.sentinel,), daemon=True).start()
