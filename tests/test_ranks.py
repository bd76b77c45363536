"""Who is the first process of a run, and what ends the others."""

import os
import subprocess
import sys
import time

import pytest

from deblur_lab import ranks
from deblur_lab.command_line import folder_for
from deblur_lab.errors import ConfigurationError, DataError, MachineError

OF_RUNS = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_NAME")


@pytest.fixture
def environment(monkeypatch):
    for name in (*OF_RUNS, "DEBLUR_LAB_FIRST_PROCESS"):
        monkeypatch.delenv(name, raising=False)

    def set_to(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    return set_to


@pytest.mark.parametrize(
    ("values", "first", "elsewhere"),
    [
        ({}, True, False),
        ({"DEBLUR_LAB_FIRST_PROCESS": "1:1", "LOCAL_RANK": 1, "NODE_RANK": 0}, False, False),
        # torchrun
        ({"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2}, True, True),
        ({"RANK": 4, "LOCAL_RANK": 0, "WORLD_SIZE": 8}, False, True),
        ({"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1}, True, False),
        # srun, a batch script's shell, and an interactive one
        ({"SLURM_PROCID": 0, "SLURM_NTASKS": 2, "SLURM_JOB_NAME": "train"}, True, True),
        ({"SLURM_PROCID": 1, "SLURM_NTASKS": 2, "SLURM_JOB_NAME": "train"}, False, True),
        ({"SLURM_PROCID": 0, "SLURM_NTASKS": 1, "SLURM_JOB_NAME": "train"}, True, False),
        ({"SLURM_PROCID": 0, "SLURM_NTASKS": 8, "SLURM_JOB_NAME": "interactive"}, True, False),
        # by hand on two nodes
        ({"NODE_RANK": 0}, True, True),
        ({"NODE_RANK": 1}, False, True),
    ],
)
def test_who_is_first_and_who_starts_the_others(environment, values, first, elsewhere):
    environment(**values)
    assert ranks.is_first() is first
    assert ranks.started_elsewhere() is elsewhere


def test_processes_that_cannot_agree_on_a_new_folder_ask_for_one(environment, monkeypatch, tmp_path):
    environment(RANK=1, WORLD_SIZE=2)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"output= is not set: .*torchrun.*as output=runs/NAME"):
        folder_for(None, "run")
    assert folder_for("mine", "run").is_dir()


def watched(code, *, patience_s=60.0):
    """A process that the first one watches over, which runs some code."""
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", f"import os, signal, sys, time\n{code}"],
        env={**os.environ, **ranks.environment_of(writing)},
        pass_fds=[writing],
    )
    os.close(writing)
    watch = ranks.Watch([process], [reading], patience_s=patience_s)
    watch.start()
    return watch, process


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV; the others were stopped"),
        ("sys.exit(7)", "ended with exit code 7; the others were stopped"),
    ],
)
def test_a_process_that_dies_is_named(code, told):
    watch, process = watched(code)
    fate = watch.fate(20)
    assert isinstance(fate, MachineError)
    assert str(fate) == f"rank 1 (process {process.pid}) {told}"
    watch.let_end(0)


@pytest.mark.parametrize(("kind", "prefix"), [(DataError, ""), (MachineError, "rank 1: ")])
def test_the_first_process_says_what_another_met_and_it_alone(kind, prefix, capfd):
    # More than a pipe holds.
    line = "so much is wrong: " + "x" * 100_000
    code = f"""
from deblur_lab import errors, ranks
from deblur_lab.endings import reporting
with ranks.following_first(), reporting():
    raise errors.{kind.__name__}({line!r})
"""
    watch, process = watched(code)
    fate = watch.fate(20)
    assert isinstance(fate, kind)
    assert str(fate) == prefix + line
    assert process.returncode == kind.exit_code
    assert capfd.readouterr().err == ""
    watch.let_end(0)


def test_one_that_was_asked_to_stop_is_no_fault():
    watch, _ = watched("sys.exit(143)")
    assert watch.fate(20) == 143
    watch.let_end(0)


def test_the_others_are_killed_if_they_do_not_end():
    watch, process = watched("signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)")
    assert watch.fate(0.3) is None
    began = time.monotonic()
    watch.let_end(0.5)
    assert process.returncode == -9
    assert time.monotonic() - began < 5


# The first process of a run, that waits for an answer that never comes.
FIRST = """
import os, subprocess, sys, time
from deblur_lab import ranks
ranks.show_way_on(lambda: "go on so")
reading, writing = os.pipe()
other = subprocess.Popen([sys.executable, "-c", {other!r}], pass_fds=[writing],
                         env={{**os.environ, **ranks.environment_of(writing), "LOCAL_RANK": "1"}})
ranks.Watch([other], [reading], patience_s=0.3).start()
print(other.pid, flush=True)
time.sleep(60)
"""


def first_process(other):
    return subprocess.Popen(
        [sys.executable, "-c", FIRST.format(other=other)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_where_the_first_process_waits_for_ever_it_is_ended():
    first = first_process("import os, signal, time; time.sleep(0.5); os.kill(os.getpid(), signal.SIGKILL)")
    said, told = first.communicate(timeout=30)
    assert first.returncode == 5
    line = f"rank 1 (process {int(said)}) was killed by SIGKILL; the others were stopped; go on so"
    assert told == f"error: {line}\n"


def test_the_others_end_with_the_first_process_even_while_they_wait():
    other = """
import threading
from deblur_lab import ranks
ranks.show_way_on(str, "remove run and start again")
with ranks.following_first():
    print("waits", flush=True)
    threading.Event().wait()
"""
    first = first_process(other)
    lines = sorted([first.stdout.readline(), first.stdout.readline()])
    assert lines[1] == "waits\n"
    first.kill()
    _, told = first.communicate(timeout=30)  # which ends when both have
    assert told == (
        f"error: rank 0 (process {first.pid}) was killed, or crashed; the others were stopped; "
        "remove run and start again\n"
    )


@pytest.mark.parametrize(("values", "told"), [({}, ["a"]), ({"RANK": 1, "WORLD_SIZE": 2}, [])])
def test_what_is_for_the_first_process_alone(environment, values, told):
    environment(**values)
    said = []
    ranks.first_only(said.append)("a")
    assert said == told
