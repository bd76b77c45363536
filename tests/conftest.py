"""One thread a test process, as each has one core; and commands up to their work."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

# Before PyTorch and OpenCV read it, and for the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from omegaconf import DictConfig

from deblur_lab.command_line import run

torch.set_num_threads(1)
# What is started in the background of a script ignores Ctrl-C, and so would all that tests start.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def little_space() -> Iterator[None]:
    """Files of more than a few bytes cannot be written, as on a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def command(monkeypatch, capsys, tmp_path) -> Callable[..., tuple[int, str, list[str]]]:
    """Runs a command up to its work: its exit code, its output, and the lines of what it says is wrong."""
    # It sets these for what it starts.
    for name in ("HYDRA_FULL_ERROR", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    monkeypatch.chdir(tmp_path)

    def call(
        name: str, *typed: str, job: Callable[[DictConfig], None] = lambda config: None
    ) -> tuple[int, str, list[str]]:
        monkeypatch.setattr(sys, "argv", [name, *typed])
        before = signal.getsignal(signal.SIGTERM)
        code = 0
        try:
            run(name, job)
        except SystemExit as ended:
            code = ended.code or 0
        finally:
            signal.signal(signal.SIGTERM, before)
        said = capsys.readouterr()
        if code != 1:
            assert "Traceback" not in said.err
        return code, said.out, said.err.removeprefix("error: ").splitlines()

    return call


@pytest.fixture
def told(command) -> Callable[..., list[str]]:
    """What a command says is wrong with what was typed, before any work; a line each."""

    def refused(name: str, *typed: str) -> list[str]:
        worked: list[DictConfig] = []
        code, out, lines = command(name, *typed, job=worked.append)
        assert (code, out, worked) == (2, "", [])
        return [line.removeprefix("       ") for line in lines]

    return refused
