"""Which folder a job of a sweep has, what is done already, and what is said at the end."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from deblur_lab.command_line import as_typed, typed_again
from deblur_lab.errors import ConfigurationError, DataError, DivergedError
from deblur_lab.folder_lock import FolderLock
from deblur_lab.sweep_jobs import Plan, plan, sweep_faults

# Which is quickly composed and checked.
SMALL = ("model=nafnet", "model.net.width=4", "model.net.encoder_blocks=[1,1,1,1]", "output=sweep")


def job_of(**settings: object) -> tuple[list[str], DictConfig]:
    return [f"{key}={value}" for key, value in settings.items()], OmegaConf.create(dict(settings))


def planned(folder: Path, *jobs: tuple[list[str], DictConfig]) -> list[str]:
    """The names of the folders of these jobs."""
    return [job.folder.name for job in plan(folder, jobs).jobs]


def begin(folder: Path, *jobs: tuple[list[str], DictConfig]) -> Plan:
    """Let each job leave a ``config.yaml``, and the sweep what it writes."""
    made = plan(folder, jobs)
    for job in made.jobs:
        job.folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(job.config, job.folder / "config.yaml")
    made.write()
    return made


def test_jobs_are_known_by_their_settings_when_numbers_move(tmp_path):
    """As when a seed is added, which varies fastest."""
    begin(tmp_path, *(job_of(width=width, seed=seed) for width in (4, 8) for seed in (0, 1)))
    more = [job_of(width=width, seed=seed) for width in (4, 8) for seed in (0, 1, 2)]
    assert planned(tmp_path, *more) == ["0", "1", "4", "2", "3", "5"]
    begin(tmp_path, *more)
    assert planned(tmp_path, *more) == ["0", "1", "4", "2", "3", "5"]


def test_a_job_that_left_nothing_has_its_folder_again(tmp_path):
    jobs = [job_of(seed=seed) for seed in (0, 1, 2)]
    begin(tmp_path, *jobs)
    for number in "02":
        (tmp_path / number / "config.yaml").unlink()
    # Nothing of seed 0 is there; then it is.
    assert planned(tmp_path, job_of(seed=5), jobs[1]) == ["0", "1"]
    (tmp_path / "0" / "diverged.json").touch()
    assert planned(tmp_path, job_of(seed=5), *jobs) == ["2", "0", "1", "3"]


def test_what_a_resumed_run_may_change_makes_no_other_job(tmp_path):
    begin(tmp_path, job_of(seed=0, pictures=2))
    (job,) = plan(tmp_path, [job_of(seed=0, pictures=8)]).jobs
    assert (job.folder.name, job.differs) == ("0", "pictures: 2 -> 8")
    # But where just that is swept over, jobs do not change places.
    begin(tmp_path, job_of(seed=0, pictures=2), job_of(seed=0, pictures=8))
    assert planned(tmp_path, job_of(seed=0, pictures=8), job_of(seed=0, pictures=2)) == ["1", "0"]


def test_of_a_sweep_that_is_quite_another_its_own_settings_are_told(tmp_path):
    begin(tmp_path, job_of(seed=0, width=4))
    (tmp_path / "sweep.json").unlink()
    other = {f"setting_{number}": number for number in range(6)}
    with pytest.raises(ConfigurationError, match="is none of these jobs \\(nearest: width: 4 -> "):
        plan(tmp_path, [job_of(seed=0, **other)])
    row = {"folder": "0", "own_settings": ["model=small", "seed=0"], "settings": ["a=1"]}
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": [row]}), encoding="utf-8")
    with pytest.raises(ConfigurationError) as refused:
        plan(tmp_path, [job_of(seed=0, **other)])
    assert str(refused.value) == (
        f"output={tmp_path} holds another sweep: {tmp_path / '0'}, of model=small seed=0, is none of these "
        "jobs: type its values as well, or name another folder"
    )


def test_another_sweep_is_refused_with_the_difference(tmp_path):
    begin(tmp_path, job_of(seed=0, width=4), job_of(seed=1, width=4))
    with pytest.raises(ConfigurationError) as refused:
        plan(tmp_path, [job_of(seed=3, width=9), job_of(seed=1, width=8), job_of(seed=0, width=4)])
    assert str(refused.value) == (
        f"output={tmp_path} holds another sweep: {tmp_path / '1'} is none of these jobs (nearest: width: "
        "4 -> 8): type its values as well, or name another folder"
    )
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ConfigurationError, match="holds a run, not a sweep: go on with it by resume="):
        plan(tmp_path, [job_of(seed=0, width=4)])


def test_a_damaged_run_is_named(tmp_path):
    begin(tmp_path, job_of(seed=0))
    (tmp_path / "0" / "config.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(DataError, match=r"0/config.yaml is damaged: "):
        plan(tmp_path, [job_of(seed=0)])


def test_a_job_is_finished_when_all_that_it_leaves_is_there(tmp_path):
    (plain,) = begin(tmp_path / "plain", job_of(seed=0, evaluate=True)).jobs
    (plain.folder / "costs.json").touch()
    assert not plain.is_finished()  # it was killed in its test
    plain.config.evaluate = False
    assert plain.is_finished()
    plain.config.evaluate = True
    (plain.folder / "measures.json").touch()
    assert plain.is_finished()

    (staged,) = begin(tmp_path / "staged", job_of(seed=0, stages={"one": {}})).jobs
    for name in ("costs.json", "scores.json"):
        (staged.folder / name).touch()
    assert not staged.is_finished()
    (staged.folder / "checkpoints").mkdir()
    (staged.folder / "checkpoints" / "last.ckpt").touch()
    assert staged.is_finished()


def test_what_a_sweep_cannot_do_is_told_before():
    hydra = {"launcher": {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}}
    config = OmegaConf.create({"trainer": {"num_nodes": 2, "devices": 2}, "hydra": hydra})
    config.hydra.sweep = {"subdir": "${hydra.job.override_dirname}"}
    assert [fault.partition(": ")[0] for fault in sweep_faults([config])] == [
        "trainer.num_nodes=2",
        "hydra.sweep.subdir",
    ]
    config.trainer.num_nodes = 1
    config.hydra.sweep.subdir = "${hydra.job.num}"
    assert sweep_faults([config]) == []


@pytest.mark.parametrize("path", ["/data/My Photos (1)=x", "it's/here", "${x}", "a\\'b", "~user/x"])
def test_a_path_is_typed_again_as_it_was(path):
    for key in ("checkpoint", "++data.root", "stages.first.init_from"):
        quoted = as_typed(f"{key}={path}")
        parsed = OverridesParser.create().parse_override(quoted)
        assert typed_again(str(parsed.input_line)) == f"{key}={path}"
    assert typed_again("model.net.encoder_blocks=[1,2]") == "model.net.encoder_blocks=[1,2]"
    assert typed_again("init_from=null") == "init_from=null"


# Whole sweeps, whose jobs do little work.


@pytest.fixture
def sweep(command) -> Callable[..., tuple[int, str, list[str]]]:
    """Runs a sweep in the folder `sweep`: its exit code, its output, and what it says is wrong."""

    def run(job: Callable[[DictConfig], None], *typed: str) -> tuple[int, str, list[str]]:
        return command("train", "-m", *SMALL, *typed, job=job)

    return run


def work(config: DictConfig) -> None:
    """Leave what a run leaves."""
    folder = Path(config.resume or config.output)
    if config.resume is None:
        OmegaConf.save(config, folder / "config.yaml")
    scores = {"psnr_db": 30.125 + config.seed, "ssim": 0.5}
    (folder / "scores.json").write_text(json.dumps({"results": [{"dataset": "made", "scores": scores}]}))
    (folder / "costs.json").touch()


def rows() -> list[dict[str, object]]:
    return json.loads(Path("sweep/sweep.json").read_text(encoding="utf-8"))["jobs"]


def cells(out: str) -> list[list[str]]:
    """The rows of the closing table, without the times."""
    lines = [line for line in out.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_jobs_that_fail_leave_the_others_running_and_are_tried_again_alone(sweep):
    done: list[tuple[int, str | None]] = []

    def failing(config: DictConfig) -> None:
        done.append((config.seed, config.resume))
        if config.seed == 1:
            raise KeyError("forgotten")
        if config.seed == 2:  # after its first checkpoint
            OmegaConf.save(config, Path(config.output, "config.yaml"))
            Path(config.output, "checkpoints").mkdir()
            Path(config.output, "checkpoints", "last.ckpt").touch()
            raise DivergedError("the loss is not finite")
        work(config)

    code, out, lines = sweep(failing, "seed=0,1,2,3")
    assert (code, [seed for seed, _ in done]) == (1, [0, 1, 2, 3])
    assert lines[-1] == "error: the loss is not finite"
    assert "KeyError: 'forgotten'" in lines  # which nobody thought of
    assert [(row["number"], row["status"], row["exit_code"], row["folder"]) for row in rows()] == [
        (1, "finished", 0, "0"),
        (2, "failed", 1, "1"),
        (3, "failed", 6, "2"),
        (4, "finished", 0, "3"),
    ]
    assert rows()[3]["scores"] == {"made": {"psnr_db": 33.125, "ssim": 0.5}}
    assert rows()[3]["own_settings"] == ["seed=3"]
    assert [[*row[:6], row[-1]] for row in cells(out)] == [
        ["1", "seed=0", "finished", "0", "30.12", "0.5000", "sweep/0"],
        ["2", "seed=1", "failed", "1", "", "", "sweep/1"],
        ["3", "seed=2", "failed", "6", "", "", "sweep/2"],
        ["4", "seed=3", "finished", "0", "33.12", "0.5000", "sweep/3"],
    ]
    way_on = f"python -m deblur_lab.train -m {SMALL[0]} {SMALL[1]} '{SMALL[2]}' {SMALL[3]} seed=0,1,2,3"
    assert out.endswith(f"2 of 4 jobs failed; try these again by: {way_on}\n")

    # The same command again, with one more; one was begun, one was not.
    done.clear()

    def mended(config: DictConfig) -> None:
        done.append((config.seed, config.resume))
        work(config)

    code, out, lines = sweep(mended, "seed=0,1,2,3,4")
    assert (code, lines, done) == (0, [], [(1, None), (2, "sweep/2"), (4, None)])
    assert "job 1 of 5: seed=0 is finished, in sweep/0\n" in out
    assert [row["status"] for row in rows()] == ["finished"] * 5
    assert Path("sweep/multirun.yaml").is_file()

    code, _, (line,) = sweep(mended, "seed=0,1", "model.ema_decay=0.5")
    assert code == 2
    assert "sweep/0 is none of these jobs (nearest: model.ema_decay: " in line


@pytest.mark.parametrize(("number", "code", "word"), [("SIGTERM", 143, "SIGTERM"), ("SIGINT", 130, "Ctrl-C")])
def test_a_signal_ends_the_sweep_and_it_is_said_how_to_go_on(sweep, number, code, word):
    def stopped(config: DictConfig) -> None:
        if config.seed == 1:
            os.kill(os.getpid(), getattr(signal, number))
            time.sleep(5)
        work(config)

    ended, out, lines = sweep(stopped, "seed=0,1,2")
    assert (ended, lines) == (code, [f"stopped by {word}"])
    assert [(row["status"], row["exit_code"]) for row in rows()] == [
        ("finished", 0),
        ("stopped", code),
        ("not run", None),
    ]
    assert out.splitlines()[-1].startswith(
        "go on with all jobs that are not done by: python -m deblur_lab.tra"
    )
    assert len(cells(out)) == 3


def test_a_second_sweep_in_the_folder_is_refused(sweep):
    Path("sweep").mkdir()
    with FolderLock(Path("sweep"), "output=sweep"):
        code, _, (line,) = sweep(work, "seed=0")
    assert code == 2
    assert line.startswith("output=sweep: another run writes to this folder: process ")


def test_a_sweep_is_not_for_torchrun(sweep, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, (line,) = sweep(work, "seed=0,1")
    assert code == 2
    assert line.startswith("-m: a sweep starts the processes of its jobs itself: leave torchrun or srun out")


# Stands for Python, which a job on several devices is started with: it does as its last argument says.
PYTHON = """#!/bin/sh
printf '%s\\n' "$@" > "told.$$"
for last; do :; done
case "$last" in
output=sweep/0) kill -9 $$ ;;
resume=sweep/1) exit 3 ;;
output=sweep/2) trap 'echo heard >> heard' TERM; touch began
    while [ ! -e heard ]; do sleep 0.05; done; sleep 0.3; exit 143 ;;
esac
"""


def test_a_job_on_several_devices_has_a_process_of_its_own(sweep, tmp_path, monkeypatch):
    """Which is killed, fails, and is told to stop, once; with paths as a person types them."""
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    checkpoints = Path("sweep/1/checkpoints")
    typed = ("seed=0,1,2,3", "trainer=cpu", "trainer.devices=2", "init_from=it's (1)")
    done: list[DictConfig] = []
    stop = threading.Thread(target=stop_when, args=(tmp_path / "began",))
    stop.start()

    def begun_before(config: DictConfig) -> None:
        OmegaConf.save(config, Path(config.output, "config.yaml"))

    assert sweep(begun_before, "seed=0,1", *typed[1:2], "init_from=it's (1)")[0] == 0
    Path("sweep/0/config.yaml").unlink()
    checkpoints.mkdir()
    (checkpoints / "last.ckpt").touch()
    code, out, lines = sweep(done.append, *typed)
    stop.join()
    assert (code, lines, done) == (143, [], [])
    assert [(row["status"], row["exit_code"]) for row in rows()] == [
        ("failed", 137),
        ("failed", 3),
        ("stopped", 143),
        ("not run", None),
    ]
    assert re.search(r"\nthe job's process \d+ was killed by SIGKILL\n", out)
    assert Path("heard").read_text() == "heard\n"
    told = sorted(path.read_text().splitlines() for path in tmp_path.glob("told.*"))
    assert [arguments[-1] for arguments in told] == ["output=sweep/0", "resume=sweep/1", "output=sweep/2"]
    assert all(arguments[:2] == ["-m", "deblur_lab.train"] for arguments in told)
    assert {"seed=2", "trainer.devices=2", "init_from=it's (1)", "model=nafnet"} <= set(told[2])


def stop_when(began: Path) -> None:
    """Send SIGTERM to this process, as soon as there is a file."""
    wait_for(began.exists)
    os.kill(os.getpid(), signal.SIGTERM)


def test_the_process_of_a_job_ends_with_its_sweep(tmp_path):
    """Without a word, and at once, so that the folder is free for the sweep that goes on."""
    job = (
        "import time\nfrom deblur_lab import ranks\n"
        "with ranks.following_first():\n    open('began', 'w').close()\n    time.sleep(60)\n"
    )
    sweep = (
        "import os, subprocess, sys\nfrom deblur_lab import ranks\n"
        "started = subprocess.Popen([sys.executable, '-c', sys.argv[1]],\n"
        "    env={**os.environ, **ranks.environment_of_job()}, process_group=0)\n"
        "print(started.pid, flush=True)\nstarted.wait()\n"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", sweep, job], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    child = int(running.stdout.readline())
    wait_for(lambda: (tmp_path / "began").exists())
    running.kill()
    running.communicate()
    wait_for(lambda: not Path(f"/proc/{child}").exists() or "Z" in state_of(child))


def state_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def wait_for(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)
