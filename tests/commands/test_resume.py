"""A run that is stopped at any moment goes on as if it had not been."""

import contextlib
import json
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml

from tests.commands.conftest import STEPS, arguments_of_trained, latest
from tests.commands.processes import Ended, Running, forked
from tests.commands.runs import assert_same_state, checkpoint_of, largest_difference, results_of, rows_of

# Long enough to be stopped in between, short enough to be gone on with to its end.
LONG = ("trainer.max_steps=24", "val_every_steps=12", "evaluate=false")
# It cannot end before it is stopped, however slow the machine is at stopping it.
ENDLESS = ("trainer.max_steps=100000", "val_every_steps=100000", "evaluate=false")


def logged(run: Path) -> int:
    """How many steps a run has logged."""
    return len(rows_of(run / "metrics.csv")) if (run / "metrics.csv").exists() else 0


def stopped(number: signal.Signals, *arguments: str, cwd: Path, to_all: bool = False) -> Ended:
    """A run that is sent a signal when it has logged a few steps, and has not got its first checkpoint."""
    typed = latest(*arguments, "checkpoint_every_steps=50", "output=run")
    running = Running("deblur_lab.train", *typed, cwd=cwd, forked=True)
    running.wait_until(lambda: logged(cwd / "run") >= 3)
    running.send(number, to_all=to_all)
    return running.ended()


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_resumed_it_is_the_run_that_was_never_stopped(tmp_path, datasets, trained, workers):
    arguments = arguments_of_trained(datasets, f"data.num_workers={workers}", "output=run")
    running = Running("deblur_lab.train", *arguments, cwd=tmp_path, forked=True)
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


def test_killed_with_an_average_of_the_weights_and_accumulation_it_is_the_same_too(tmp_path, datasets):
    typed = ("data.micro_batch_size=1", "model.ema_decay=0.9", "evaluate=false", "data.num_workers=2")
    arguments = arguments_of_trained(datasets, *typed)
    running = Running("deblur_lab.train", *arguments, "output=run", cwd=tmp_path, forked=True)
    running.wait_until((tmp_path / "run" / "checkpoints" / "previous.ckpt").exists)
    running.send(signal.SIGKILL)
    assert running.ended().code == -signal.SIGKILL
    forked("deblur_lab.train", "resume=run", cwd=tmp_path).succeeded()
    whole = latest(*arguments, "output=whole", "data.num_workers=0")
    forked("deblur_lab.train", *whole, cwd=tmp_path).succeeded()
    assert any(key.startswith("ema.") for key in checkpoint_of(tmp_path / "run")["state_dict"])
    assert_same_state(tmp_path / "run", tmp_path / "whole")


def test_sigterm_saves_the_step_and_tells_how_to_go_on(tmp_path, datasets):
    """In the middle of an accumulated batch as well, and with an average of the weights."""
    typed = ("data.micro_batch_size=1", "model.ema_decay=0.9", *LONG)
    arguments = ["model=nafnet", *arguments_of_trained(datasets, *typed)]
    folder = tmp_path / "a folder"
    folder.mkdir()
    ended = stopped(signal.SIGTERM, *arguments, cwd=folder)
    assert ended.code == 143
    assert ended.stderr == ""
    assert ended.stdout.endswith("stopped by SIGTERM; go on with: python -m deblur_lab.train resume=run\n")
    reached = checkpoint_of(folder / "run")["global_step"]
    assert 3 <= reached == logged(folder / "run") < 24

    forked("deblur_lab.train", "resume=run", cwd=folder).succeeded()
    forked("deblur_lab.train", *arguments, "output=run", cwd=tmp_path).succeeded()
    assert_same_state(folder / "run", tmp_path / "run")
    assert (folder / "run" / "metrics.csv").read_text() == (tmp_path / "run" / "metrics.csv").read_text()


def test_resumed_with_another_share_a_device_it_goes_on_in_the_same_order_and_saves(tmp_path, datasets):
    """As on another number of devices: a step then takes another number of batches."""
    arguments = arguments_of_trained(datasets, "data.micro_batch_size=1", *LONG)
    stopped(signal.SIGTERM, *arguments, cwd=tmp_path)
    said = forked("deblur_lab.train", "resume=run", "data.micro_batch_size=2", cwd=tmp_path).succeeded()
    assert "x 2 x 1 accumulated" in said.stdout
    forked("deblur_lab.train", *arguments, "output=whole", cwd=tmp_path).succeeded()
    assert checkpoint_of(tmp_path / "run")["global_step"] == 24
    assert largest_difference(tmp_path / "run", tmp_path / "whole") < 2e-5
    steps, all_steps = (
        [row["step"] for row in rows_of(tmp_path / name / "metrics.csv")] for name in ("run", "whole")
    )
    assert steps == all_steps


def test_ctrl_c_does_the_same(tmp_path, datasets):
    arguments = arguments_of_trained(datasets, *ENDLESS, "data.num_workers=2")
    ended = stopped(signal.SIGINT, *arguments, cwd=tmp_path, to_all=True)
    assert ended.code == 130
    assert ended.stderr == ""
    assert ended.stdout.endswith("stopped by Ctrl-C; go on with: python -m deblur_lab.train resume=run\n")
    assert checkpoint_of(tmp_path / "run")["global_step"] == logged(tmp_path / "run")


def test_a_second_ctrl_c_does_not_wait_for_the_step(tmp_path, datasets):
    # A step of minutes.
    arguments = arguments_of_trained(datasets, "data.batch_size=4000", "data.micro_batch_size=1")
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
    arguments = arguments_of_trained(datasets, *ENDLESS, f"output={name}")
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
    # What it began with is no longer needed.
    config = own_run / "config.yaml"
    config.write_text(config.read_text().replace("init_from: null", "init_from: gone.ckpt"))
    forked("deblur_lab.train", "resume=run", cwd=own_run.parent).succeeded()
    assert results_of(own_run) == results_of(trained / "run")
    assert len(list((own_run / "pictures").glob("*.png"))) == 2
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
    ("setting", "shown"),
    [
        ("model.net.width=8", "model.net.width: 4 -> 8"),
        ("seed=1", "seed: 0 -> 1"),
        ("data=gopro", "data.sources[0]._target_: deblur_lab.data.ReLoBlur -> deblur_lab.data.GoPro, "),
        ("trainer.max_steps=99", "trainer.max_steps: 16 -> 99"),
        ("data.rooot=x", "data.rooot: not set -> x"),
        ("experiment=demo", "data.sources[0]._target_: deblur_lab.data.ReLoBlur -> deblur_lab.data.Synth"),
    ],
)
def test_what_would_make_it_another_run_is_refused_with_the_difference(own_run, setting, shown):
    told = forked("deblur_lab.train", "resume=run", setting, "data.num_workers=0", cwd=own_run.parent).failed(
        2
    )
    assert told.startswith(shown)
    assert " would make this another run; with resume= only these may change: " in told
    assert re.search(r"\bdata\.root\b", told)


def test_a_configuration_edited_by_hand_is_refused_with_the_difference(own_run):
    """It would else go on with the schedule and the counters of another run."""
    config = own_run / "config.yaml"
    config.write_text(config.read_text().replace(f"max_steps: {STEPS}", "max_steps: 99"))
    told = forked("deblur_lab.train", "resume=run", cwd=own_run.parent).failed(2)
    assert told.startswith(
        "run/config.yaml was edited since last.ckpt was saved: trainer.max_steps: 16 -> 99, "
    )
    assert told.endswith("; put it back, or start a new run with init_from=run/checkpoints/last.ckpt")


def test_a_run_without_a_checkpoint_says_so_and_gives_way_to_another(own_run, datasets):
    """As one that was killed before its first."""
    shutil.rmtree(own_run / "checkpoints")
    told = forked("deblur_lab.train", "resume=run", cwd=own_run.parent).failed(4)
    assert told.startswith("resume=run: there is no checkpoints/last.ckpt to go on from")
    again = arguments_of_trained(datasets, "trainer.max_steps=2", "evaluate=false", "output=run")
    forked("deblur_lab.train", *again, cwd=own_run.parent).succeeded()
    assert logged(own_run) == checkpoint_of(own_run)["global_step"] == 2


def test_a_run_from_elsewhere_does_not_say_itself_whose_code_it_may_run(own_run):
    victim = own_run.parent / "victim"
    victim.touch()
    config = yaml.safe_load((own_run / "config.yaml").read_text())
    config["trusted_packages"] = ["pathlib"]
    target = {"_target_": "pathlib.Path", "_args_": [str(victim)]}
    config["model"]["net"] = {"_target_": "pathlib.Path.unlink", "self": target}
    (own_run / "config.yaml").write_text(yaml.safe_dump(config))
    ended = forked("deblur_lab.train", "resume=run", cwd=own_run.parent)
    assert ended.code == 2
    assert "model.net._target_=pathlib.Path.unlink is not among the names that may be built" in ended.stderr
    assert victim.exists()


def test_the_checkpoint_of_a_run_is_not_its_folder(own_run):
    told = forked("deblur_lab.train", "resume=run/checkpoints/last.ckpt", cwd=own_run.parent).failed(2)
    assert told == "resume=run/checkpoints/last.ckpt is a file: name the folder of the run, resume=run"


def damage(checkpoint: Path) -> None:
    """One bit is flipped, which PyTorch itself does not see."""
    altered = bytearray(checkpoint.read_bytes())
    altered[len(altered) // 2] ^= 1
    checkpoint.write_bytes(altered)


def test_where_the_last_checkpoint_is_damaged_the_one_before_is_taken(own_run, trained):
    damage(own_run / "checkpoints" / "last.ckpt")
    ended = forked("deblur_lab.train", "resume=run", cwd=own_run.parent).succeeded()
    (line,) = [line for line in ended.stdout.splitlines() if "damaged" in line]
    assert line.startswith(
        "run/checkpoints/last.ckpt cannot be read, it is truncated or damaged (wrong checksum"
    )
    assert line.endswith("): run/checkpoints/previous.ckpt of step 15 is taken instead")
    assert_same_state(own_run, trained / "run")
    assert (own_run / "metrics.csv").read_text() == (trained / "run" / "metrics.csv").read_text()
    names = {"last.ckpt", "previous.ckpt", "best.ckpt", "aside.ckpt"}
    assert {path.name for path in (own_run / "checkpoints").iterdir()} == names


def test_where_all_are_damaged_all_are_named(own_run):
    for name in ("last", "previous"):
        damage(own_run / "checkpoints" / f"{name}.ckpt")
    told = forked("deblur_lab.train", "resume=run", cwd=own_run.parent).failed(4)
    assert told.startswith("resume=run: no checkpoint is whole: run/checkpoints/last.ckpt cannot be read, ")
    assert "; run/checkpoints/previous.ckpt cannot be read, " in told
    assert told.endswith("; start anew, perhaps with init_from=run/checkpoints/best.ckpt")


def test_one_that_would_run_code_is_not_passed_over(own_run):
    torch.save({"global_step": 99, "x": shutil.rmtree}, own_run / "checkpoints" / "last.ckpt")
    told = forked("deblur_lab.train", "resume=run", cwd=own_run.parent).failed(4)
    assert (
        "run/checkpoints/last.ckpt is refused: besides plain containers and tensors it holds shutil.rmtree"
        in told
    )
    assert len(rows_of(own_run / "metrics.csv")) == STEPS


def test_that_it_was_saved_by_another_pytorch_is_said(own_run):
    (own_run / "scores.json").unlink()
    last = own_run / "checkpoints" / "last.ckpt"
    contents = torch.load(last, weights_only=True)
    contents["deblur_lab"]["torch"] = "2.0"
    torch.save(contents, last)
    ended = forked("deblur_lab.train", "resume=run", "pictures=1", cwd=own_run.parent).succeeded()
    assert "other settings than before: pictures: 2 -> 1\n" in ended.stdout
    # The commit as well, where the project has changed since the run was made.
    (told,) = re.findall(r"other than when it was saved: (.*): weights may differ in", ended.stdout)
    assert f"PyTorch 2.0 -> {torch.__version__}" in told.split(", ")


def test_two_runs_in_one_folder(tmp_path, datasets):
    """The second is refused, and told of the first; where that is gone, it is not."""
    arguments = arguments_of_trained(datasets, *ENDLESS, "output=run")
    first = Running("deblur_lab.train", *arguments, cwd=tmp_path, forked=True)
    lock = tmp_path / "run" / "run.lock"
    first.wait_until(lambda: logged(tmp_path / "run") >= 6)
    owner = json.loads(lock.read_text())
    refusals = [
        forked("deblur_lab.train", *arguments, cwd=tmp_path).failed(2),
        forked("deblur_lab.train", "resume=run", cwd=tmp_path).failed(2),
        forked(
            "deblur_lab.evaluate",
            *("checkpoint=run/checkpoints/last.ckpt", "output=run", "data=reloblur", "trainer=cpu"),
            f"data.root={datasets / 'ReLoBlur'}",
            cwd=tmp_path,
        ).failed(2),
    ]
    for setting, told in zip(("output", "resume"), refusals[:2], strict=True):
        assert told.startswith(
            f"{setting}=run: another run writes to this folder: process {owner['pid']} on {owner['host']}, "
        )
    assert refusals[2] == "output=run holds a run, whose scores would be lost: name another folder"
    first.send(signal.SIGKILL)
    assert first.ended().code == -signal.SIGKILL
    assert lock.exists()
    before = checkpoint_of(tmp_path / "run")["global_step"]
    second = Running("deblur_lab.train", "resume=run", cwd=tmp_path, forked=True)
    second.wait_until(lambda: checkpoint_of(tmp_path / "run")["global_step"] > before)
    second.send(signal.SIGTERM)
    assert f"going on with run from step {before}\n" in second.ended().stdout
    assert not lock.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has a device that is always full")
def test_a_full_disk_ends_it_in_one_line_and_keeps_the_old_checkpoint(tmp_path, datasets):
    arguments = arguments_of_trained(datasets, *ENDLESS, "output=run")
    running = Running("deblur_lab.train", *arguments, cwd=tmp_path, forked=True)
    checkpoints = tmp_path / "run" / "checkpoints"
    # Between two savings.
    running.wait_until(lambda: logged(tmp_path / "run") >= 7)
    (checkpoints / ".last.ckpt.tmp").symlink_to("/dev/full")
    told = running.ended().failed(5)
    assert told.startswith("run/checkpoints/last.ckpt cannot be written: No space left on device: it needs ")
    assert re.search(r" and \S+ \S+ are free( \(.*\))?; the older last\.ckpt stays(; go on with: |$)", told)
    assert checkpoint_of(tmp_path / "run")["global_step"] > 0
    left = {path.name for path in checkpoints.iterdir()}
    assert left <= {"last.ckpt", "previous.ckpt", "best.ckpt"}
    assert not (tmp_path / "run" / "run.lock").exists()


def test_a_folder_that_is_deleted_ends_it_in_one_line(tmp_path, datasets):
    arguments = arguments_of_trained(datasets, *ENDLESS, "output=run")
    running = Running("deblur_lab.train", *arguments, cwd=tmp_path, forked=True)
    running.wait_until(lambda: logged(tmp_path / "run") >= 1)
    (tmp_path / "run").rename(tmp_path / "gone")
    told = running.ended().failed(5)
    assert re.match(r"run was deleted while|run/metrics\.csv cannot be written: No such file", told)
    assert not (tmp_path / "run").exists()


def test_what_is_not_a_run_says_so(tmp_path):
    told = forked("deblur_lab.train", "resume=nowhere", cwd=tmp_path).failed(2)
    assert told == "resume=nowhere is not the folder of a run: there is no config.yaml in it"
