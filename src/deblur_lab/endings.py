"""How a command ends: from an error or a signal to one line and an exit code."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from deblur_lab import __version__, ranks
from deblur_lab.errors import MachineError, UserError

OUR_FAULT = 1
STOPPED_BY_CTRL_C = 130
# Its reader has gone, as in `--help | head`: what shells make of SIGPIPE.
UNREAD = 141
STOPPED_BY_SIGTERM = 143


class Terminated(BaseException):
    """SIGTERM has come; what is half done is taken back on the way out."""


def on_sigterm(_number: int, _frame: FrameType | None) -> None:
    """A handler of SIGTERM where there is nothing to save.

    Raises:
        Terminated: always.
    """
    raise Terminated


@contextmanager
def reporting(left_behind: str = "") -> Iterator[None]:
    """End the process as a command of ours does, whatever is raised in the block.

    A user's mistake ends in one line (a line for each mistake) on standard error and the exit code of its
    kind, never a traceback; a fault of ours ends in a traceback and exit code 1.

    Args:
        left_behind: what is said beside that a signal has stopped the command.
    """
    try:
        yield
        sys.stdout.flush()
    except UserError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(UNREAD)
    except OSError as error:
        # A disk that is full, or was made read-only, may be met anywhere.
        from deblur_lab.writing import refusal

        line = refusal(error)
        if line is None:
            _fail_by_our_fault()
        _fail(line, MachineError.exit_code)
    except KeyboardInterrupt:
        _fail(f"stopped by Ctrl-C{left_behind}", STOPPED_BY_CTRL_C)
    except Terminated:
        _fail(f"stopped by SIGTERM{left_behind}", STOPPED_BY_SIGTERM)
    except Exception:
        _fail_by_our_fault()


def _fail_by_our_fault() -> NoReturn:
    """Show where what nobody thought of was raised, and that it is not the user's mistake."""
    traceback.print_exc()
    told = f"this is a fault of deblur_lab {__version__}: please report it, with the lines above"
    _fail(told, OUR_FAULT)


def _fail(message: str, exit_code: int) -> NoReturn:
    """Print what is wrong on standard error, or let the first process of the run do so, and leave."""
    if not ranks.hand_over(message, exit_code):
        print(f"error: {message}", file=sys.stderr)  # noqa: T201 - this is the command line
    sys.exit(exit_code)
