"""Images scored on all cores while others are being restored."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import torch

from deblur_lab.callbacks.rows import Row
from deblur_lab.data.workers import cores

# An image of three megapixels takes the better part of a gigabyte while it is scored.
_MOST_THREADS = 16
# Images that wait, beyond those that are being scored.
_WAITING = 2


def share_of_cores(processes_here: int = 1) -> int:
    """How many threads this process may score with, if as many as it work on this machine.

    >>> share_of_cores(10_000)
    1
    """
    return min(max(cores() // max(processes_here, 1), 1), _MOST_THREADS)


class ScoringThreads:
    """Makes rows of images in several threads, and gives them back in the order in which they were asked for.

    PyTorch and OpenCV let other threads run while they compute. In each thread they compute alone, so that no
    score depends on how many threads there are: sums over parts of a picture would be rounded differently.

    Use it from one thread. `submit` waits while too many images are in work: their memory is bounded, and a
    progress bar that counts what was handed over is ahead of what is done by a few images alone.

    Args:
        threads: how many.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._waiting: deque[Future[Row]] = deque()
        self._rows: list[Row] = []
        self._pool: ThreadPoolExecutor | None = None
        self._before = (0, 0)

    def submit(self, make: Callable[[], Row]) -> Future[Row]:
        """Have a row made, after those before it.

        Returns:
            Where it will be, for who needs it before `rows`.

        Raises:
            Exception: what one of those before it raised; all that wait are then dropped.
        """
        if self._pool is None:
            self._before = torch.get_num_threads(), cv2.getNumThreads()
            cv2.setNumThreads(1)
            self._pool = ThreadPoolExecutor(self.threads, "scores", initializer=_compute_alone)
        made = self._pool.submit(_without_gradients, make)
        self._waiting.append(made)
        while len(self._waiting) > self.threads + _WAITING:
            self._take()
        return made

    def rows(self) -> list[Row]:
        """All rows, in their order, when the last is made; and begin anew.

        Raises:
            Exception: what one of them raised.
        """
        while self._waiting:
            self._take()
        rows, self._rows = self._rows, []
        self.drop()
        return rows

    def drop(self) -> None:
        """Forget what is done and what waits; wait for what is being made."""
        self._rows = []
        self._waiting.clear()
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)
            # PyTorch takes the last number that any thread gave for that of all threads to come.
            torch.set_num_threads(self._before[0])
            cv2.setNumThreads(self._before[1])

    def _take(self) -> None:
        try:
            self._rows.append(self._waiting.popleft().result())
        except BaseException:
            self.drop()
            raise


def _compute_alone() -> None:
    torch.set_num_threads(1)  # of this thread


def _without_gradients(make: Callable[[], Row]) -> Row:
    with torch.inference_mode():  # which each thread has for itself
        return make()
