"""Commands, started as a user starts them, and how they ended."""

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 120.0

# What makes a network and a training small enough for a test.
TINY = (
    "model.net.width=4",
    "model.net.encoder_blocks=[1,1,1,1]",
    "data.patch_size=32",
    "data.batch_size=2",
    "data.num_workers=0",
    "trainer=cpu",
    "trainer.log_every_n_steps=1",
    "val_every_steps=4",
    "pictures=2",
)

# Importing PyTorch and Lightning costs ten times what a tiny run does. This server does it once, and each
# command is a fork of it: a process of its own, that runs the module as `python -m` does.
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    ["deblur_lab.training", "deblur_lab.evaluation", "deblur_lab.prediction", "deblur_lab.reporting", __name__]
)


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    stdout: str
    stderr: str

    def succeeded(self) -> "Ended":
        assert self.code == 0, self
        assert "Traceback" not in self.stderr, self
        return self

    def failed(self, code: int, *, lines: int = 1) -> str:
        """What stands after ``error:``, if the command told one error, in so many lines, and nothing else."""
        told = self.stderr.splitlines()
        assert self.code == code, self
        assert "Traceback" not in self.stdout + self.stderr, self
        assert [line.startswith("error: ") for line in told] == [True] + [False] * (lines - 1), self
        return self.stderr.removeprefix("error: ").rstrip("\n")


class Running:
    """A command in a process of its own, as ``python -m module argument ...`` in a folder."""

    def __init__(self, module: str, *arguments: str, cwd: Path) -> None:
        self._output = [tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(2)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._output[0],
            stderr=self._output[1],
            start_new_session=True,
        )

    def wait_until(self, reached: Callable[[], bool]) -> None:
        """Wait until something is so that the command brings about."""
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"it never was so; {self.ended()}")
            time.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command's first process alone."""
        self._process.send_signal(number)

    def kill_all(self) -> None:
        """End the command and all processes that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def alive(self) -> bool:
        """Whether any process of the command is left."""
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def ended(self, patience_s: float = PATIENCE_S) -> Ended:
        """Wait for the command, and end it if it takes too long."""
        try:
            code = self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        finally:
            self.kill_all()
        said = []
        for file in self._output:
            file.seek(0)
            said.append(file.read())
            file.close()
        return Ended(code, *said)


def python_m(module: str, *arguments: str, cwd: Path) -> Ended:
    """Run ``python -m module argument ...`` in a folder."""
    return Running(module, *arguments, cwd=cwd).ended()


def forked(module: str, *arguments: str, cwd: Path) -> Ended:
    """The same without the seconds that importing takes: for what goes on after that."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("stdout", "stderr")]
        process = _server.Process(target=_run, args=(module, arguments, cwd, *files))
        process.start()
        process.join(PATIENCE_S)
        if process.exitcode is None:
            process.kill()
            process.join()
        return Ended(process.exitcode, *(file.read_text(encoding="utf-8") for file in files))


def _run(module: str, arguments: tuple[str, ...], cwd: Path, stdout: Path, stderr: Path) -> None:
    for path, descriptor in ((stdout, 1), (stderr, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(cwd)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
