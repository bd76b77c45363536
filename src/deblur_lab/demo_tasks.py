"""Photos that people wait for, restored one after the other in the first thread.

PyTorch is left at once by Ctrl-C there, as in all commands. In a thread of the server it would go on, and a
program that ends meanwhile may crash.
"""

import queue
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from pathlib import Path

from deblur_lab.errors import UserError
from deblur_lab.tried_photos import Tried

# How long Windows, where waiting cannot be interrupted, takes to notice Ctrl-C.
_NOTICED_S = 0.5


class Task:
    """A photo that is to be restored.

    Args:
        source: Its file.
        folder: For the results.

    Attributes:
        begun: Whether its turn has come.
        share: of it that is restored, in [0, 1].
    """

    def __init__(self, source: Path, folder: Path) -> None:
        self.source = source
        self.folder = folder
        self.begun = False
        self.share = 0.0
        self._future: Future[Tried] = Future()
        self._abandoned = threading.Event()

    def wait(self, seconds: float) -> bool:
        """Wait for it at most this long; whether it is done, or never will be."""
        try:
            self._future.exception(seconds)
        except TimeoutError:
            return False
        except CancelledError:
            pass
        return True

    def result(self) -> Tried:
        """What became of it.

        Raises:
            UserError: The photo could not be restored.
            CancelledError: It will not be.
        """
        return self._future.result()

    def abandon(self) -> None:
        """Nobody waits for it any more: it is left out, or left after the next tile."""
        self._abandoned.set()
        self._future.cancel()

    def carry_out(self, restore: Callable[["Task", Callable[[float], None]], Tried]) -> None:
        """Restore it, and hand over what became of it."""
        if not self._future.set_running_or_notify_cancel():
            return
        self.begun = True
        try:
            self._future.set_result(restore(self, self._advance))
        except _AbandonedError:
            self._future.set_exception(CancelledError())
        except UserError as error:
            self._future.set_exception(error)
        except Exception as error:
            if not self._abandoned.is_set():
                # The page goes on; who started it shall see what it was.
                traceback.print_exc(file=sys.stderr)
            self._future.set_exception(error)
        except BaseException:
            # The command is stopped.
            self._future.set_exception(CancelledError())
            raise

    def _advance(self, share: float) -> None:
        self.share = share
        if self._abandoned.is_set():
            raise _AbandonedError


class Tasks:
    """A queue of them.

    Args:
        restore: Restores the photo of a task, telling the share that is done.
    """

    def __init__(self, restore: Callable[[Task, Callable[[float], None]], Tried]) -> None:
        self._restore = restore
        self._waiting: queue.Queue[Task] = queue.Queue()

    def ask(self, source: Path, folder: Path) -> Task:
        """Have a photo restored when its turn comes."""
        task = Task(source, folder)
        self._waiting.put(task)
        return task

    def carry_out(self, until: Callable[[], bool] = lambda: False) -> None:
        """Restore what is asked for, for ever.

        Args:
            until: Asked between two photos, and twice a second while there is none: whether that is all.
        """
        while not until():
            try:
                task = self._waiting.get(timeout=_NOTICED_S)
            except queue.Empty:
                continue
            task.carry_out(self._restore)


class _AbandonedError(Exception):
    """Nobody waits for this photo any more."""
