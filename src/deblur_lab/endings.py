"""How a command ends: from an error or a signal to one line and an exit code."""

import io
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from deblur_lab import __version__, ranks
from deblur_lab.errors import MachineError, UserError

OUR_FAULT = 1
STOPPED_BY_CTRL_C = 130
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
def reporting(left_behind: str = "", *, is_to_be_stopped: bool = False) -> Iterator[None]:
    """End the process as a command of ours does, whatever is raised in the block.

    A user's mistake ends in one line (a line for each mistake) on standard error and the exit code of its
    kind, never a traceback; a fault of ours ends in a traceback and exit code 1.

    Args:
        left_behind: what is said beside that a signal has stopped the command.
        is_to_be_stopped: whether a signal is the way in which the command ends, and no error; its exit code
            is the same.
    """
    _outlive_readers()
    try:
        yield
        sys.stdout.flush()
    except UserError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        # A disk that is full, or was made read-only, may be met anywhere.
        from deblur_lab.writing import refusal

        line = refusal(error)
        if line is None:
            _fail_by_our_fault()
        _fail(line, MachineError.exit_code)
    except KeyboardInterrupt:
        _fail(f"stopped by Ctrl-C{left_behind}", STOPPED_BY_CTRL_C, is_error=not is_to_be_stopped)
    except Terminated:
        _fail(f"stopped by SIGTERM{left_behind}", STOPPED_BY_SIGTERM, is_error=not is_to_be_stopped)
    except Exception:
        _fail_by_our_fault()


class _Outliving(io.FileIO):
    """A stream that goes on into nothing when its reader has gone, as in ``... | head``: the work goes on."""

    def write(self, data: Any) -> int:  # noqa: ANN401 - io's many kinds of bytes
        """Write, or drop what nobody reads."""
        try:
            return super().write(data)
        except BrokenPipeError:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.fileno())
            os.close(nothing)
            return len(memoryview(data).cast("B"))


def _outlive_readers() -> None:
    """See to it that the work goes on when who read its lines has gone, or where there is no stdout."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started the command, a daemon say
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for good
        elif stream is getattr(sys, f"__{name}__") and not stream.isatty():
            stream.flush()
            raw = _Outliving(descriptor, "w", closefd=False)
            again = io.TextIOWrapper(
                io.BufferedWriter(raw),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
            )
            setattr(sys, name, again)


def _fail_by_our_fault() -> NoReturn:
    """Show where what nobody thought of was raised, and that it is not the user's mistake."""
    traceback.print_exc()
    told = f"this is a fault of deblur_lab {__version__}: please report it, with the lines above"
    _fail(told, OUR_FAULT)


def _fail(message: str, exit_code: int, *, is_error: bool = True) -> NoReturn:
    """Print what is wrong on standard error, or let the first process of the run do so, and leave."""
    if not ranks.hand_over(message, exit_code):
        print(f"error: {message}" if is_error else message, file=sys.stderr)  # noqa: T201 - the command line
    sys.exit(exit_code)
