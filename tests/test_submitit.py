"""Sweeps on a cluster: what Slurm is asked for, and how what runs there comes back."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from deblur_lab.cluster import Cluster, Job, Task, resources
from deblur_lab.errors import MachineError
from tests.commands.processes import TINY, forked

pytest.importorskip("submitit")

SBATCH = """\
#!/bin/sh
cp "$1" "{folder}/$(ls {folder} | wc -l).sh"
echo "Submitted batch job 12"
"""
LAUNCHER = {
    "timeout_min": 60,
    "cpus_per_task": None,
    "gpus_per_node": None,
    "tasks_per_node": 1,
    "nodes": 1,
    "name": "train",
    "partition": "gpu",
    "signal_delay_s": 120,
    "max_num_timeout": 2,
    "additional_parameters": {},
    "array_parallelism": 256,
}


def config(trainer: dict, launcher: dict | None = None, executor: str = "Slurm") -> DictConfig:
    target = f"hydra_plugins.hydra_submitit_launcher.submitit_launcher.{executor}Launcher"
    return OmegaConf.create(
        {
            "trainer": {"accelerator": "gpu", "devices": 1, "num_nodes": 1, **trainer},
            "data": {"num_workers": 4},
            "hydra": {"launcher": {"_target_": target, **LAUNCHER, **(launcher or {})}},
        }
    )


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Callable[[], list[str]]:
    """A Slurm that takes all jobs and runs none: the scripts that it was given."""
    there, given = tmp_path / "bin", tmp_path / "given"
    there.mkdir()
    given.mkdir()
    for name, text in {"sbatch": SBATCH.format(folder=given), "srun": "#!/bin/sh\n"}.items():
        (there / name).write_text(text)
        (there / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{there}{os.pathsep}{os.environ['PATH']}")
    return lambda: [path.read_text() for path in sorted(given.iterdir())]


def ended(folder: Path, codes: dict[int, int]) -> None:
    """What the jobs would have written."""
    for number, code in codes.items():
        (folder / ".submitit" / f"ended-{number}.json").write_text(
            json.dumps({"exit_code": code, "seconds": 60})
        )


def test_each_group_of_jobs_that_ask_for_the_same_is_one_array(slurm, tmp_path, monkeypatch):
    said: list[str] = []
    cluster = Cluster("slurm", tmp_path, said.append)
    small, large = config({"devices": 2}), config({"devices": 4, "num_nodes": 2}, {"cpus_per_task": 9})
    jobs = [
        Job(number, (f"seed={number}",), tmp_path / str(number), job)
        for number, job in enumerate((small, small, large))
    ]
    coming = cluster.run(jobs)
    monkeypatch.setattr("deblur_lab.cluster.time.sleep", lambda _: ended(tmp_path, {0: 0, 1: 6, 2: 0}))
    assert sorted(coming) == [(0, 0), (1, 6), (2, 0)]
    assert cluster.seconds(1) == 60
    both, one = slurm()
    for line in (
        "--array=0-1%2",
        "--nodes=1",
        "--ntasks-per-node=2",
        "--gpus-per-node=2",
        "--cpus-per-task=5",
        "--time=60",
        "--partition=gpu",
        "--signal=TERM@120",
        "--requeue",
        "--open-mode=append",
        "--job-name=train",
    ):
        assert f"#SBATCH {line}\n" in both, line
    assert "--array" not in one
    for line in (
        "--nodes=2",
        "--ntasks-per-node=4",
        "--gpus-per-node=4",
        "--cpus-per-task=9",
    ):
        assert f"#SBATCH {line}\n" in one, line
    command = both.splitlines()[-1]
    assert command.startswith("srun --unbuffered --output ")
    assert "--kill-on-bad-exit=1" in command
    assert f"{sys.executable} -u -m submitit.core._submit" in command
    assert said[0].startswith("job 1: Slurm job 12_0; what it says: ")

    from submitit.core.utils import DelayedSubmission

    tasks = [DelayedSubmission.load(path).function for path in (tmp_path / ".submitit").glob("*/*.pkl")]
    assert sorted(task.settings for task in tasks) == [("seed=0",), ("seed=1",), ("seed=2",)]
    assert {task.requeues for task in tasks} == {2}


@pytest.mark.parametrize(
    ("trainer", "launcher", "told"),
    [
        (
            {"devices": 2},
            {"tasks_per_node": 4},
            "hydra.launcher.tasks_per_node=4, trainer.devices=2: one task",
        ),
        ({"num_nodes": 2}, {"nodes": 3}, "hydra.launcher.nodes=3, trainer.num_nodes=2: one task a device"),
        (
            {"devices": 2},
            {"gpus_per_node": 4},
            "hydra.launcher.gpus_per_node=4, trainer.devices=2: one device",
        ),
        ({"devices": "auto"}, {}, "trainer.devices=auto: a cluster has to be told how many"),
        ({"accelerator": "auto"}, {}, "trainer.accelerator=auto takes what it finds"),
    ],
)
def test_what_the_launcher_and_the_trainer_say_has_to_agree(trainer, launcher, told):
    _, (line,) = resources(config(trainer, launcher), "slurm")
    assert line.startswith(told)


def test_what_is_not_said_follows_from_the_trainer():
    asked, found = resources(config({"devices": 2, "num_nodes": 3}), "slurm")
    assert found == []
    assert {key: asked[key] for key in ("tasks_per_node", "nodes", "gpus_per_node", "cpus_per_task")} == {
        "tasks_per_node": 2,
        "nodes": 3,
        "gpus_per_node": 2,
        "cpus_per_task": 5,
    }
    asked, found = resources(config({"devices": 2, "accelerator": "cpu"}), "slurm")
    assert (asked["tasks_per_node"], asked["gpus_per_node"], found) == (2, None, [])
    asked, found = resources(config({"devices": 2, "accelerator": "cpu"}), "local")
    assert (asked["tasks_per_node"], found) == (1, [])
    assert len(resources(config({"num_nodes": 2}), "local")[1]) == 1


def test_where_there_is_no_slurm_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    cluster = Cluster("slurm", tmp_path, lambda line: None)
    with pytest.raises(MachineError, match=r"^hydra/launcher=submitit_slurm: .*srun[^\n]*$"):
        list(cluster.run([Job(0, (), tmp_path / "0", config({}))]))


@pytest.fixture
def task(tmp_path, monkeypatch) -> Callable[..., tuple[int, list[str]]]:
    """Runs a task on a cluster whose training ends with an exit code: the code, and what was typed."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_PROCID", "0")
    typed: list[str] = []

    def run(ends_with: int, **more: float) -> tuple[int, list[str]]:
        def training(*_: object, **__: object) -> None:
            typed[:] = sys.argv[1:]
            raise SystemExit(ends_with)

        monkeypatch.setattr("deblur_lab.cluster.runpy.run_module", training)
        about = Task(("seed=1",), str(tmp_path / "0"), str(tmp_path / "ended.json"), str(tmp_path), **more)
        try:
            about()  # submitit takes a job for done that returns, whatever it returns
            return 0, typed
        except SystemExit as code:
            return code.code, typed

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    folder = os.getcwd()
    yield run
    os.chdir(folder)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_task_goes_on_where_it_was_and_says_how_it_ended(task, tmp_path):
    assert task(6) == (6, ["seed=1", f"output={tmp_path / '0'}"])
    assert json.loads((tmp_path / "ended.json").read_text())["exit_code"] == 6
    (tmp_path / "0" / "checkpoints").mkdir(parents=True)
    (tmp_path / "0" / "checkpoints" / "last.ckpt").touch()
    assert task(0) == (0, ["seed=1", f"resume={tmp_path / '0'}"])
    assert json.loads((tmp_path / "ended.json").read_text())["exit_code"] == 0


def test_a_task_whose_time_is_up_is_queued_again_as_often_as_was_asked_for(task, tmp_path, monkeypatch):
    asked: list[list[str]] = []
    monkeypatch.setattr("subprocess.run", lambda words, **_: asked.append(words))
    assert task(143, limit_s=0.0, requeues=1)[0] == 143
    assert asked == [["scontrol", "requeue", "12"]]
    assert not (tmp_path / "ended.json").exists()
    for limit_s, requeues, restarts in ((0.0, 1, "1"), (3600.0, 1, "0"), (0.0, 0, "0")):
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        assert task(143, limit_s=limit_s, requeues=requeues)[0] == 143
        assert json.loads((tmp_path / "ended.json").read_text())["exit_code"] == 143
    assert len(asked) == 1


def test_a_sweep_runs_in_processes_of_submitits(tmp_path):
    scenes = (
        f"data.sources.0.{key}" for key in ("size_px=48", "train_scenes=2", "val_scenes=1", "test_scenes=1")
    )
    typed = ("model=nafnet", "data=synthetic", *TINY, *scenes, "trainer.max_steps=1", "evaluate=false")
    # The second has no place to write to.
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "1").touch()
    there = forked(
        *("deblur_lab.train", "-m", "hydra/launcher=submitit_local", *typed, "seed=0,1", "output=runs"),
        cwd=tmp_path,
    )
    assert there.code == 5, there
    jobs = json.loads((tmp_path / "runs" / "sweep.json").read_text())["jobs"]
    assert [(job["status"], job["exit_code"]) for job in jobs] == [("finished", 0), ("failed", 5)]
    assert (tmp_path / "runs" / "0" / "checkpoints" / "last.ckpt").is_file()
    assert "job 2 of 2: seed=1: failed: error: output=" in there.stdout
    assert "is a file" in there.stdout
