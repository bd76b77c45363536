"""The processes of one run on several devices: the first starts the others, and all end when one does.

Nothing here needs PyTorch: a process watches over the others while it is still loading it.
"""

import contextlib
import ctypes
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn, ParamSpec

from deblur_lab.errors import MachineError, UserError

# Given to the processes that the first one starts: its process, and the pipe by which it is told of mistakes.
_FIRST = "DEBLUR_LAB_FIRST_PROCESS"
# Given to a job of a sweep that has a process of its own: the sweep's.
_SWEEP = "DEBLUR_LAB_SWEEP_PROCESS"
_LOOK_EVERY_S = 0.1
_SECOND_SPEAKER_S = 2.0
_Given = ParamSpec("_Given")
_INTERACTIVE_JOBS = ("bash", "interactive")  # in which Slurm's variables tell of the shell


_way_on: Callable[[], str] = str
_way_anew = ""
_told_by_sweep = False


def show_way_on(way_on: Callable[[], str], anew: str = "") -> None:
    """Set what is said of how to go on, when something ends the run; by default, nothing.

    Args:
        way_on: how, or nothing if the run cannot be gone on with.
        anew: what to do then after the death of a process, when nobody was left to tidy up.
    """
    global _way_on, _way_anew
    _way_on, _way_anew = way_on, anew


@contextlib.contextmanager
def within_sweep() -> Iterator[None]:
    """Runs a job of a sweep, or a trial of a search; these say themselves how all go on after a signal."""
    global _told_by_sweep
    before, _told_by_sweep = _told_by_sweep, True
    try:
        yield
    finally:
        _told_by_sweep = before


def told_by_sweep() -> bool:
    """Whether this run is one of several, so that not it says how to go on after a signal."""
    return _told_by_sweep


def with_way_on(message: str, *, died: bool = False) -> str:
    """What went wrong, and how to go on; where a process has died, also how to start anew if need be."""
    words = _way_on() or (_way_anew if died else "")
    return f"{message}; {words}" if words else message


def started_by_first() -> bool:
    """Whether this process was started by the first process of its run, which speaks for it."""
    return _FIRST in os.environ


def is_first() -> bool:
    """Whether this is the process of the run that decides, writes and speaks, whoever started it."""
    if started_by_first():
        return False
    for name in ("RANK", "SLURM_PROCID", "NODE_RANK"):  # torchrun's, Slurm's, a person's on several nodes
        if os.environ.get(name, "").isdecimal():
            return int(os.environ[name]) == 0
    return True


def first_only(function: Callable[_Given, None]) -> Callable[_Given, None]:
    """Let a function do what it does in the first process of a run alone.

    Lightning's ``rank_zero_only`` does the same, and takes seconds to import, which commands that train
    nothing need not wait for.
    """

    @functools.wraps(function)
    def only(*args: _Given.args, **kwargs: _Given.kwargs) -> None:
        if is_first():
            function(*args, **kwargs)

    return only


def started_elsewhere() -> bool:
    """Whether the run has processes that something else starts: torchrun, srun, a person on another node."""
    if started_by_first():
        return False
    if "RANK" in os.environ:
        return _number("WORLD_SIZE") > 1
    if "SLURM_PROCID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in _INTERACTIVE_JOBS:
        return _number("SLURM_NTASKS") > 1
    return "NODE_RANK" in os.environ


def _number(name: str) -> int:
    given = os.environ.get(name, "")
    return int(given) if given.isdecimal() else 1


def environment_of(pipe: int) -> dict[str, str]:
    """What the first process adds to the environment of those that it starts.

    Args:
        pipe: the end of a pipe to which they may write, which they inherit.
    """
    return {_FIRST: f"{os.getpid()}:{pipe}"}


def environment_of_job() -> dict[str, str]:
    """What a sweep adds to the environment of a job that it starts as a process of its own."""
    return {_SWEEP: str(os.getpid())}


def _follow_sweep(sweep: int) -> None:
    """End with the sweep's process, however that ends: what starts it again shall find the folder free."""
    while os.getppid() == sweep:
        time.sleep(_LOOK_EVERY_S)
    leave(MachineError.exit_code)


def _follow(first: int) -> None:
    while os.getppid() == first:
        time.sleep(_LOOK_EVERY_S)
    line = (
        with_way_on(f"rank 0 (process {first}) was killed, or crashed; the others were stopped", died=True)
        if os.environ.get("LOCAL_RANK") == "1"
        else None
    )
    leave(MachineError.exit_code, line)


@contextlib.contextmanager
def following_first() -> Iterator[None]:
    """Runs what a process does; one that the first one started ends then, or when the first one is gone.

    So does the process of a sweep's job when that of the sweep is gone.
    """
    if not started_by_first():
        if _SWEEP not in os.environ:
            yield
            return
        sweep = int(os.environ.pop(_SWEEP))
        threading.Thread(target=_follow_sweep, args=(sweep,), daemon=True, name="follow-sweep").start()
        with within_sweep():
            yield
        return
    first = int(os.environ[_FIRST].partition(":")[0])
    threading.Thread(target=_follow, args=(first,), daemon=True, name="follow-first").start()
    code: object = 0
    try:
        yield
    except SystemExit as ended:
        code = ended.code
    # The first one waits for this one to end, and Python takes seconds to tidy up.
    leave(code if isinstance(code, int) else int(code is not None))


def hand_over(message: str, exit_code: int) -> bool:
    """Let the first process say what went wrong in this one, so that it is said once.

    Returns:
        Whether it does; it does not where something else started this process.
    """
    if not started_by_first():
        if not is_first():
            # torchrun and srun end this process when the first one has ended, by what went wrong in both.
            time.sleep(_SECOND_SPEAKER_S)
        return False
    pipe = int(os.environ[_FIRST].partition(":")[2])
    told = json.dumps({"message": message, "exit_code": exit_code}).encode()
    try:
        while told:
            told = told[os.write(pipe, told) :]
    except OSError:  # the first one is gone, and so will this one be
        pass
    return True


def leave(exit_code: int, line: str | None = None) -> NoReturn:
    """End this process at once, from any of its threads and whatever the others wait for.

    Args:
        exit_code: of the process.
        line: what went wrong; for standard error.
    """
    with contextlib.suppress(Exception):
        if sys.stdout.isatty():
            sys.stdout.write("\x1b[?25h")  # the cursor, which progress bars hide
        sys.stdout.flush()
        if line is not None:
            print(f"error: {line}", file=sys.stderr, flush=True)  # noqa: T201 - this is the command line
    os._exit(exit_code)


def end_with_parent() -> None:
    """Let the system kill this process when its parent ends, however that ends; on Linux."""
    if sys.platform == "linux":
        parent = os.getppid()
        set_death_signal = 1
        ctypes.CDLL(None, use_errno=True).prctl(set_death_signal, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it was quicker
            os._exit(1)


class Watch(threading.Thread):
    """Looks after the processes that the first one has started, and ends the run when one of them fails.

    The first process is often told of it by a broken connection; it then asks for the `fate` and says it.
    Where it is not, because it waits for an answer that never comes, it is ended from here.

    Args:
        processes: with ranks one after the other.
        pipes: the ends from which to read what they hand over.
        first_rank: of those processes.
        patience_s: how long the first process may take to end by itself.
    """

    def __init__(
        self,
        processes: Sequence["subprocess.Popen[bytes]"],
        pipes: Sequence[int],
        first_rank: int = 1,
        patience_s: float = 5.0,
    ) -> None:
        super().__init__(daemon=True, name="watch-ranks")
        self._processes = tuple(processes)
        self._pipes = tuple(pipes)
        self._first_rank = first_rank
        self._patience_s = patience_s
        self._heard = [b""] * len(self._processes)
        self._fate: UserError | int | None = None
        self._known = threading.Event()
        self._over = threading.Event()
        for pipe in self._pipes:
            os.set_blocking(pipe, False)

    def run(self) -> None:
        """Look until all is over, or one has failed."""
        while not self._over.wait(_LOOK_EVERY_S):
            for place, process in enumerate(self._processes):
                code = process.poll()
                self._listen(place)
                if code:
                    self._end(place, code)
                    return

    def fate(self, patience_s: float) -> UserError | int | None:
        """What ended another process: a mistake to be told, or the exit code of one that was asked to stop.

        Args:
            patience_s: how long to wait for it.
        """
        self._known.wait(patience_s)
        return self._fate

    def let_end(self, patience_s: float) -> None:
        """Wait for the other processes to end, and kill those that do not."""
        self._over.set()
        deadline = time.monotonic() + patience_s
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        self.kill()
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                os.close(pipe)
        self._pipes = ()

    def kill(self) -> None:
        """Kill the other processes; a milder signal does not reach one that waits for another."""
        for process in self._processes:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)

    def _listen(self, place: int) -> None:
        with contextlib.suppress(OSError, IndexError):
            while heard := os.read(self._pipes[place], 1 << 16):
                self._heard[place] += heard

    def _end(self, place: int, code: int) -> None:
        fate = _fate_of(self._first_rank + place, self._processes[place].pid, code, self._heard[place])
        self._fate = fate
        self._known.set()
        if isinstance(fate, int):  # the first one is about to end as well, but has more to write
            if not self._over.wait(12 * self._patience_s):
                leave(fate)
            return
        self.kill()
        if not self._over.wait(self._patience_s):
            leave(fate.exit_code, str(fate))


def _fate_of(rank: int, process: int, code: int, heard: bytes) -> UserError | int:
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        return code
    if heard:
        told: Mapping[str, str | int] = json.loads(heard)
        kinds = {kind.exit_code: kind for kind in UserError.__subclasses__()}
        kind = kinds.get(int(told["exit_code"]), UserError)
        # Where memory ran out, say, the rank tells which device it was.
        return kind(f"rank {rank}: {told['message']}" if kind is MachineError else str(told["message"]))
    how = f"was killed by {name_of(-code)}" if code < 0 else f"ended with exit code {code}"
    return MachineError(
        with_way_on(f"rank {rank} (process {process}) {how}; the others were stopped", died=True)
    )


def name_of(number: int) -> str:
    """A signal's name, or its number where it has none.

    >>> name_of(9)
    'SIGKILL'
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
