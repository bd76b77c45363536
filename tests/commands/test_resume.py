"""A run that is stopped at any moment goes on as if it had not been."""

import contextlib
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

import pytest
import yaml

from tests.commands.conftest import STEPS, arguments_of_trained
from tests.commands.processes import Ended, Running, forked
from tests.commands.runs import assert_same_state, checkpoint_of, largest_difference, results_of, rows_of

# Long enough to be stopped in between.
LONG = ("trainer.max_steps=40", "val_every_steps=20", "evaluate=false")


def logged(run: Path) -> int:
    """How many steps a run has logged."""
    return len(rows_of(run / "metrics.csv")) if (run / "metrics.csv").exists() else 0


def stopped(
    number: signal.Signals, *arguments: str, cwd: Path, forked: bool = True, to_all: bool = False
) -> Ended:
    """A run that is sent a signal when it has logged a few steps, and has not got its first checkpoint."""
    running = Running(
        "deblur_lab.train", *arguments, "checkpoint_every_steps=50", "output=run", cwd=cwd, forked=forked
    )
    running.wait_until(lambda: logged(cwd / "run") >= 3)
    running.send(number, to_all=to_all)
    return running.ended()


@pytest.mark.parametrize(("workers", "as_a_fork"), [(0, False), (2, True)])
def test_killed_and_resumed_it_is_the_run_that_was_never_stopped(
    tmp_path, datasets, trained, workers, as_a_fork
):
    arguments = [*arguments_of_trained(datasets), f"data.num_workers={workers}", "output=run"]
    running = Running("deblur_lab.train", *arguments, cwd=tmp_path, forked=as_a_fork)
    running.wait_until((tmp_path / "run" / "checkpoints" / "last.ckpt").exists)
    running.send(signal.SIGKILL)
    assert running.ended().code == -signal.SIGKILL
    reached = checkpoint_of(tmp_path / "run")["global_step"]
    assert 0 < reached < STEPS

    said = forked("deblur_lab.train", "resume=run", cwd=tmp_path).succeeded().stdout
    assert f"going on with run from step {reached}\n" in said
    assert_same_state(trained / "run", tmp_path / "run")
    assert results_of(trained / "run") == results_of(tmp_path / "run")
    assert (trained / "run" / "scores.csv").read_text() == (tmp_path / "run" / "scores.csv").read_text()
    # A step is logged when it is saved: a kill in between loses its row, and no other.
    rows, all_rows = (rows_of(folder / "run" / "metrics.csv") for folder in (tmp_path, trained))
    assert [row for row in all_rows if row not in rows] in ([], [all_rows[reached - 1]])
    assert [row for row in rows if row not in all_rows] == []
    assert (
        checkpoint_of(tmp_path / "run", "best")["global_step"]
        == checkpoint_of(trained / "run", "best")["global_step"]
    )


def test_sigterm_saves_the_step_and_tells_how_to_go_on(tmp_path, datasets):
    """In the middle of an accumulated batch as well, and with an average of the weights."""
    arguments = [
        *("model=nafnet", *arguments_of_trained(datasets), "data.micro_batch_size=1", "model.ema_decay=0.9"),
        *LONG,
    ]
    folder = tmp_path / "a folder"
    folder.mkdir()
    ended = stopped(signal.SIGTERM, *arguments, cwd=folder, forked=False)
    assert ended.code == 143
    assert ended.stderr == ""
    assert ended.stdout.endswith("stopped by SIGTERM; go on with: python -m deblur_lab.train resume=run\n")
    reached = checkpoint_of(folder / "run")["global_step"]
    assert 3 <= reached == logged(folder / "run") < 40

    forked("deblur_lab.train", "resume=run", cwd=folder).succeeded()
    forked("deblur_lab.train", *arguments, "output=run", cwd=tmp_path).succeeded()
    assert_same_state(folder / "run", tmp_path / "run")
    assert (folder / "run" / "metrics.csv").read_text() == (tmp_path / "run" / "metrics.csv").read_text()


def test_resumed_with_another_share_a_device_it_goes_on_in_the_same_order_and_saves(tmp_path, datasets):
    """As on another number of devices: a step then takes another number of batches."""
    arguments = [*arguments_of_trained(datasets), "data.micro_batch_size=1", *LONG]
    stopped(signal.SIGTERM, *arguments, cwd=tmp_path)
    said = forked("deblur_lab.train", "resume=run", "data.micro_batch_size=2", cwd=tmp_path).succeeded()
    assert "x 2 x 1 accumulated" in said.stdout
    forked("deblur_lab.train", *arguments, "output=whole", cwd=tmp_path).succeeded()
    assert checkpoint_of(tmp_path / "run")["global_step"] == 40
    assert largest_difference(tmp_path / "run", tmp_path / "whole") < 2e-5
    steps, all_steps = (
        [row["step"] for row in rows_of(tmp_path / name / "metrics.csv")] for name in ("run", "whole")
    )
    assert steps == all_steps


def test_ctrl_c_does_the_same(tmp_path, datasets):
    arguments = [*arguments_of_trained(datasets), *LONG, "data.num_workers=2"]
    ended = stopped(signal.SIGINT, *arguments, cwd=tmp_path, to_all=True)
    assert ended.code == 130
    assert ended.stderr == ""
    assert ended.stdout.endswith("stopped by Ctrl-C; go on with: python -m deblur_lab.train resume=run\n")
    assert checkpoint_of(tmp_path / "run")["global_step"] == logged(tmp_path / "run")


def test_a_second_ctrl_c_does_not_wait_for_the_step(tmp_path, datasets):
    # A step of minutes.
    arguments = [*arguments_of_trained(datasets), "data.batch_size=4000", "data.micro_batch_size=1"]
    running = Running("deblur_lab.train", *arguments, "output=run", cwd=tmp_path, forked=True)
    running.wait_until((tmp_path / "run" / "config.yaml").exists)
    time.sleep(1)
    running.send(signal.SIGINT)
    time.sleep(0.5)
    with contextlib.suppress(ProcessLookupError):  # if it was not training yet, the first was enough
        running.send(signal.SIGINT)
    ended = running.ended(30)
    assert ended.failed(130) == "stopped by Ctrl-C"
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_printed_command_can_be_pasted(tmp_path, datasets):
    name = "my run [1] = it's"
    arguments = [*arguments_of_trained(datasets), *LONG, f"output={name}"]
    running = Running("deblur_lab.train", *arguments, cwd=tmp_path, forked=True)
    running.wait_until(lambda: logged(tmp_path / name) >= 1)
    running.send(signal.SIGTERM)
    command = running.ended().stdout.rpartition("go on with: ")[2]
    assert shlex.split(command) == ["python", "-m", "deblur_lab.train", f"resume={name}"]


def test_a_finished_run_is_left_alone(own_run):
    before = {path: path.stat().st_mtime_ns for path in own_run.rglob("*")}
    ended = forked("deblur_lab.train", "resume=run", cwd=own_run.parent).succeeded()
    assert ended.stdout == f"run is finished: it has reached its {STEPS} steps; nothing was done\n"
    assert {path: path.stat().st_mtime_ns for path in own_run.rglob("*") if path.name != "run"} == {
        path: time for path, time in before.items() if path.name != "run"
    }


def test_a_run_that_was_stopped_before_it_was_scored_is_scored(own_run, trained):
    for name in ("scores.json", "scores.csv"):
        (own_run / name).unlink()
    shutil.rmtree(own_run / "pictures")
    forked("deblur_lab.train", "resume=run", cwd=own_run.parent).succeeded()
    assert results_of(own_run) == results_of(trained / "run")
    assert len(list((own_run / "pictures").iterdir())) == 2
    assert_same_state(own_run, trained / "run")


def test_data_may_have_moved(own_run, datasets):
    (own_run / "scores.json").unlink()
    moved = Path(shutil.copytree(datasets / "ReLoBlur", own_run.parent / "moved [here]"))
    config = (own_run / "config.yaml").read_text()
    (own_run / "config.yaml").write_text(config.replace(str(datasets), "/nowhere"))
    typed = [f"data.root={moved}", "data.num_workers=1", "pictures=1", "logger=tensorboard"]
    forked("deblur_lab.train", "resume=run", *typed, cwd=own_run.parent).succeeded()
    assert (own_run / "scores.json").exists()
    # The run stays what it was.
    assert yaml.safe_load((own_run / "config.yaml").read_text())["data"]["root"].startswith("/nowhere")


@pytest.mark.parametrize(
    "setting", ["model.net.width=8", "seed=1", "data=gopro", "trainer.max_steps=99", "data.rooot=x"]
)
def test_what_would_make_it_another_run_is_refused(own_run, setting):
    told = forked("deblur_lab.train", "resume=run", setting, "data.num_workers=0", cwd=own_run.parent).failed(
        2
    )
    assert told.startswith(f"{setting} would make this another run; with resume= only these may change: ")
    assert re.search(r"\bdata\.root\b", told)


def test_a_run_without_a_checkpoint_says_so(own_run):
    (own_run / "checkpoints" / "last.ckpt").unlink()
    told = forked("deblur_lab.train", "resume=run", cwd=own_run.parent).failed(4)
    assert told.startswith("resume=run: there is no checkpoints/last.ckpt to go on from")


def test_what_is_not_a_run_says_so(tmp_path):
    told = forked("deblur_lab.train", "resume=nowhere", cwd=tmp_path).failed(2)
    assert told == "resume=nowhere is not the folder of a run: there is no config.yaml in it"
