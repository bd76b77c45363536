"""Commands, started as a user starts them, and how they ended."""

import contextlib
import fcntl
import json
import math
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 180.0

# What makes a network and a training small enough for a test.
TINY = (
    "model.net.width=4",
    "model.net.encoder_blocks=[1,1,1,1]",
    "data.patch_size=32",
    "data.batch_size=2",
    "data.num_workers=0",
    "trainer=cpu",
    "trainer.log_every_n_steps=1",
    "pictures=2",
)

# Importing PyTorch and Lightning costs ten times what a tiny run does. This server does it once, and is
# forked for each command: a process of its own, that runs the module as `python -m` does.
server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(
    [
        "deblur_lab.training",
        "deblur_lab.evaluation",
        "deblur_lab.prediction",
        "deblur_lab.profiling",
        "deblur_lab.reporting",
        __name__,
    ]
)


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    stdout: str
    stderr: str

    def succeeded(self) -> "Ended":
        """The same, if all went well."""
        assert self.code == 0, self
        assert "Traceback" not in self.stderr, self
        return self

    def failed(self, code: int, *, more_lines: int = 0) -> str:
        """What stands after ``error:``, if the command ended with this code and said this alone."""
        assert self.code == code, self
        assert "Traceback" not in self.stdout, self
        told = self.stderr.splitlines()
        assert len(told) == 1 + more_lines, self
        assert told[0].startswith("error: "), self
        assert not any("error:" in line for line in told[1:]), self
        return self.stderr.removeprefix("error: ").rstrip("\n")


class Running:
    """A command in a process of its own, as ``python -m module argument ...`` in a folder.

    Args:
        module: of the command.
        arguments: as typed.
        cwd: the folder.
        forked: spare it the seconds that importing takes.
        env: what its environment has beside or instead of ours; None: what it has not.
        spares: how many processes that it starts itself are spared them as well (`_Spare`); by default all
            ranks of a single training, as far as `trainer.devices` is typed.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        cwd: Path,
        forked: bool = False,
        env: Mapping[str, str | None] | None = None,
        spares: int | None = None,
    ) -> None:
        arguments = tuple(_last_of_each(arguments))
        self._folder = tempfile.TemporaryDirectory()
        self._said = [Path(self._folder.name, name) for name in ("stdout", "stderr")]
        self._process: subprocess.Popen[bytes] | multiprocessing.process.BaseProcess
        if forked:
            method = multiprocessing.get_start_method()
            self._process = server.Process(
                target=_run, args=(method, module, arguments, cwd, *self._said, dict(env or {}), spares)
            )
            self._process.start()
        else:
            with self._said[0].open("wb") as stdout, self._said[1].open("wb") as stderr:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", module, *arguments],
                    cwd=cwd,
                    env=_environment(env or {}),
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                )

    @property
    def pid(self) -> int:
        """The command's first process."""
        assert self._process.pid is not None
        return self._process.pid

    def wait_until(self, reached: Callable[[], bool]) -> None:
        """Wait for something that the command brings about."""
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            if self._code() is not None or time.monotonic() > deadline:
                raise AssertionError(f"it did not come to that: {self.ended(0)}")
            time.sleep(0.01)

    def send(self, number: signal.Signals, *, to_all: bool = False) -> None:
        """Send a signal to the command's first process, or to all of them, as a terminal sends Ctrl-C."""
        assert self._process.pid is not None
        (os.killpg if to_all else os.kill)(self._process.pid, number)

    def ended(self, patience_s: float = PATIENCE_S) -> Ended:
        """Wait for the command to end, and see to it that it does.

        A first process that was killed has 15 s for its others to notice.
        """
        deadline = time.monotonic() + patience_s
        while (code := self._code()) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        deadline = time.monotonic() + (15 if code is not None else 0)
        while (orphans := self._any_left()) and time.monotonic() < deadline:
            time.sleep(0.01)
        if orphans:
            with contextlib.suppress(ProcessLookupError):
                self.send(signal.SIGKILL, to_all=True)
        stdout, stderr = (path.read_text(encoding="utf-8") for path in self._said)
        self._folder.cleanup()
        assert code is not None, f"it took over {patience_s} s; {stdout}{stderr}"
        assert not orphans, f"it ended with {code} and left processes behind; {stdout}{stderr}"
        return Ended(code, stdout, stderr)

    def _code(self) -> int | None:
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll()
        self._process.join(0)
        return self._process.exitcode

    def _any_left(self) -> bool:
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True


def _last_of_each(arguments: tuple[str, ...]) -> list[str]:
    """The arguments, of those that set the same the last: commands refuse a setting that is given twice."""
    last = {argument.partition("=")[0]: argument for argument in arguments}
    return [last[key] for key in dict.fromkeys(argument.partition("=")[0] for argument in arguments)]


def python_m(module: str, *arguments: str, cwd: Path) -> Ended:
    """Run ``python -m module argument ...`` in a folder."""
    return Running(module, *arguments, cwd=cwd).ended()


def forked(
    module: str,
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str | None] | None = None,
    spares: int | None = None,
) -> Ended:
    """The same without the seconds that importing takes, for what goes on after that."""
    return Running(module, *arguments, cwd=cwd, forked=True, env=env, spares=spares).ended()


def _environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in {**os.environ, **changes}.items() if value is not None}


def _run(
    method: str,
    module: str,
    arguments: tuple[str, ...],
    cwd: Path,
    stdout: Path,
    stderr: Path,
    env: Mapping[str, str | None],
    spares: int | None,
) -> None:
    os.setsid()
    environment = _environment(env)
    os.environ.clear()
    os.environ.update(environment)
    # Or data workers would be started as this process was, and not as they are for a user.
    multiprocessing.set_start_method(method, force=True)
    for path, descriptor in ((stdout, 1), (stderr, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(cwd)
    sys.path.insert(0, str(cwd))
    _as_module(module, arguments, spares)


def _as_module(module: str, arguments: Sequence[str], spares: int | None) -> None:
    """Do what ``python -m module argument ...`` does, with processes at hand for what that starts."""
    from deblur_lab import processes, ranks, sweeps

    if spares is None:
        typed = next((word for word in arguments if word.startswith("trainer.devices=")), "=1")
        several = "-m" not in arguments and not ranks.started_by_first()
        spares = int(typed.partition("=")[2]) - 1 if several else 0
    there = [_Spare() for _ in range(spares)]

    def started(command: list[str], **how: Any) -> "subprocess.Popen[bytes] | _Spare":
        if not there:
            return subprocess.Popen(command, **how)
        return there.pop(0).start(command, **how)

    if there:
        ours = types.SimpleNamespace(**{**vars(subprocess), "Popen": started})
        for place in (processes, sweeps):
            place.subprocess = ours  # type: ignore[attr-defined]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


class _Spare:
    """A child that has imported all and done nothing, and becomes what is started then.

    It is a child of the process that starts it, as ranks and jobs are, with its files and in its group. As a
    `subprocess.Popen`, as far as ours use one.
    """

    def __init__(self) -> None:
        self.returncode: int | None = None
        self._ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._ours.close()
            code = 1
            try:
                # A signal to all processes is for those that are something.
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_IGN)
                code = self._wait_to_be(theirs)
            finally:
                os._exit(code)
        theirs.close()

    def start(
        self,
        command: list[str],
        *,
        env: Mapping[str, str],
        pass_fds: Sequence[int] = (),
        process_group: int | None = None,
    ) -> "_Spare":
        """What `subprocess.Popen` does."""
        assert command[:2] == [sys.executable, "-m"]
        if process_group is not None:
            os.setpgid(self.pid, process_group)
        deaf = signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        said = json.dumps([command[2:], dict(env), list(pass_fds), deaf]).encode()
        socket.send_fds(self._ours, [len(said).to_bytes(4)], pass_fds)
        self._ours.sendall(said)
        self._ours.close()
        return self

    @staticmethod
    def _wait_to_be(theirs: socket.socket) -> int:
        """Become what is asked for: its exit code."""
        # Numbers of descriptors are told to children: leave the low ones to those that are passed on.
        channel = socket.socket(fileno=fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 500))
        theirs.close()
        length, passed, _, _ = socket.recv_fds(channel, 4, 8)
        if not length:
            return 0  # it was not needed
        with channel.makefile("rb") as said:
            (module, *arguments), env, numbers, deaf = json.loads(said.read(int.from_bytes(length)))
        channel.close()
        for descriptor, number in zip(passed, numbers, strict=True):
            if descriptor != number:
                os.dup2(descriptor, number)
        for descriptor in set(passed) - set(numbers):
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(env)
        if not deaf:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        code: object = 0
        try:
            _as_module(module, arguments, None)
        except SystemExit as ended:
            code = ended.code
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        return code if isinstance(code, int) else int(code is not None)

    def poll(self) -> int | None:
        if self.returncode is None:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = time.monotonic() + (timeout if timeout is not None else math.inf)
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a spare", timeout or 0.0)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
