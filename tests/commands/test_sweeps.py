"""Sweeps of real trainings, on several devices, killed and stopped: each job is as if it ran alone."""

import json
import signal
from pathlib import Path
from typing import Any

from tests.commands.conftest import arguments_of_trained
from tests.commands.processes import Running, forked
from tests.commands.runs import assert_same_state, checkpoint_of, results_of, rows_of

TWO = ("trainer.devices=2", "trainer.strategy=ddp")

# A loss of which one process is killed in its so manyth call.
DEADLY = """
import os
import signal
from deblur_lab.losses import ReconstructionLoss

class Loss(ReconstructionLoss):
    def __init__(self, psnr: float, l1: float, ssim: float, fft: float, call: int):
        super().__init__(l1=1.0)
        self.call, self.calls = call, 0

    def forward(self, restored, sharp):
        self.calls += 1
        if self.calls == self.call and os.environ.get("LOCAL_RANK") == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(restored, sharp)
"""


def jobs_of(sweep: Path) -> list[dict[str, Any]]:
    return json.loads((sweep / "sweep.json").read_text(encoding="utf-8"))["jobs"]


def states(sweep: Path) -> list[tuple[str, int | None]]:
    return [(job["status"], job["exit_code"]) for job in jobs_of(sweep)]


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def logged(run: Path) -> int:
    return len(rows_of(run / "metrics.csv")) if (run / "metrics.csv").exists() else 0


def test_jobs_on_two_devices_are_as_if_each_ran_alone(tmp_path, datasets):
    """A process of the first is killed, which fails it alone."""
    (tmp_path / "deadly.py").write_text(DEADLY)
    sweep = tmp_path / "my sweep"
    own = (
        "trusted_packages=[deadly]",
        "model.loss._target_=deadly.Loss",
        "trainer.max_steps=5",
        "pictures=1",
    )
    arguments = arguments_of_trained(datasets, "checkpoint_every_steps=1", *own, *TWO, "model=nafnet")
    typed = ("-m", *arguments, "+model.loss.call=2,999", "output=my sweep")

    ended = forked("deblur_lab.train", *typed, cwd=tmp_path, spares=2)
    assert ended.code == 5
    (told,) = ended.stderr.splitlines()
    assert told.startswith("error: rank 1 (process ")
    assert "was killed by SIGKILL; the others were stopped; go on with: " in told
    assert states(sweep) == [("failed", 5), ("finished", 0)]
    (result,) = results_of(sweep / "1")
    assert jobs_of(sweep)[1]["scores"] == {result["dataset"]: result["scores"]}
    assert ended.stdout.count("trained to step 5") == 1  # only one of its processes speaks

    alone = forked(
        "deblur_lab.train", *arguments, "+model.loss.call=999", "output=alone", cwd=tmp_path
    ).succeeded()
    assert "2 device(s) (cpu, 32-true) x 1 x 1 accumulated" in alone.stdout
    assert files_of(sweep / "1") == files_of(tmp_path / "alone")
    assert_same_state(sweep / "1", tmp_path / "alone")
    assert rows_of(sweep / "1" / "scores.csv") == rows_of(tmp_path / "alone" / "scores.csv")
    config = (tmp_path / "alone" / "config.yaml").read_text(encoding="utf-8")
    assert (sweep / "1" / "config.yaml").read_text(encoding="utf-8") == config.replace(
        "output: alone", "output: my sweep/1"
    )


def test_a_sweep_that_was_killed_goes_on_where_it_was(tmp_path, datasets):
    """On one device, in the process of the sweep; stopped in its first job, and killed in its second."""
    few = ("trainer.max_steps=40", "val_every_steps=40", "checkpoint_every_steps=2", "pictures=0")
    arguments = arguments_of_trained(datasets, *few, "model=nafnet")
    typed = ("-m", *arguments, "seed=0,1", "output=sweep")
    sweep = tmp_path / "sweep"
    running = Running("deblur_lab.train", *typed, cwd=tmp_path, forked=True)
    running.wait_until(lambda: logged(sweep / "0") >= 4)
    running.send(signal.SIGINT)
    ended = running.ended(30)
    assert ended.code == 130
    assert states(sweep) == [("stopped", 130), ("not run", None)]
    stopped_at = checkpoint_of(sweep / "0")["global_step"]
    # What goes on with the job alone is not what goes on with the sweep.
    assert "stopped by Ctrl-C; it is saved\n" in ended.stdout
    assert ended.stdout.count("go on with") == 1
    assert ended.stdout.splitlines()[-1].startswith("go on with all jobs that are not done by: ")

    running = Running("deblur_lab.train", *typed, cwd=tmp_path, forked=True)
    running.wait_until(lambda: logged(sweep / "1") >= 6)
    running.send(signal.SIGKILL)
    ended = running.ended(15)
    assert f"going on with sweep/0 from step {stopped_at}\n" in ended.stdout
    assert states(sweep) == [("finished", 0), ("running", None)]
    assert logged(sweep / "0") == 40
    killed_at = checkpoint_of(sweep / "1")["global_step"]

    ended = forked("deblur_lab.train", *typed, cwd=tmp_path).succeeded()
    assert "job 1 of 2: seed=0 is finished, in sweep/0\n" in ended.stdout
    assert f"going on with sweep/1 from step {killed_at}\n" in ended.stdout
    assert states(sweep) == [("finished", 0), ("finished", 0)]
    assert logged(sweep / "1") == 40
