"""The jobs of a sweep as jobs of a cluster: submitted by submitit, each a command of its own there.

Of Hydra's plugin for submitit (``hydra/launcher=submitit_slurm``) only the settings are used, not the
launcher: that pickles the state of this whole process, knows no exit codes, and begins a job anew that was
queued again. What is pickled here is a `Task`: the settings of one job, as a person would type them.
"""

import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from deblur_lab import ranks
from deblur_lab.endings import STOPPED_BY_SIGTERM, Terminated, on_sigterm
from deblur_lab.errors import ConfigurationError, MachineError
from deblur_lab.run_folders import has_saved
from deblur_lab.writing import replacing, writing

_PLUGIN = "hydra_plugins.hydra_submitit_launcher.submitit_launcher."
# Hydra's choices that are carried out here, by the class that they name, as submitit calls them.
_EXECUTORS = {f"{_PLUGIN}SlurmLauncher": "slurm", f"{_PLUGIN}LocalLauncher": "local"}
# What submitit calls alike on every cluster; of the rest it wants to know which cluster they are of.
_COMMON = (
    "timeout_min",
    "cpus_per_task",
    "gpus_per_node",
    "tasks_per_node",
    "mem_gb",
    "nodes",
    "name",
    "stderr_to_stdout",
)
_FOLDER = ".submitit"
_SUBMITTED = "submitted.json"
# Slurm's signals come up to so much sooner than asked for.
_EARLY_S = 90.0
_LOOK_EVERY_S = {"slurm": 5.0, "local": 0.1}
_ASK_SLURM_EVERY_S = 60
_NOT_ENDED = ("PENDING", "RUNNING", "REQUEUED", "COMPLETING", "PREEMPTED", "UNKNOWN")


@dataclass(frozen=True)
class Job:
    """A job of a sweep.

    Attributes:
        number: counts from 0.
        settings: as a person would type them, without ``output``.
        folder: of its run.
        config: what they compose to.
    """

    number: int
    settings: tuple[str, ...]
    folder: Path
    config: DictConfig = field(repr=False)


@dataclass(frozen=True)
class Task:
    """What a cluster runs, in each of a job's processes: a training, as if it had been typed there.

    A job that was queued again, by itself or by Slurm, goes on from its last checkpoint.

    Attributes:
        settings: of the job.
        folder: of the run, absolute.
        ended: the file in which the first process says how it ended, absolute.
        cwd: where the sweep was typed.
        limit_s: after which the cluster asks it to stop; None: it does not.
        requeues: how often it may queue itself again when its time is up.
    """

    settings: tuple[str, ...]
    folder: str
    ended: str
    cwd: str
    limit_s: float | None = None
    requeues: int = 0

    def __call__(self) -> int:
        """Train.

        Returns:
            0; anything else is the exit code of the process.
        """
        started = time.monotonic()
        # submitit would let SIGTERM pass, and answer the other one by beginning anew.
        signal.signal(signal.SIGTERM, on_sigterm)
        signal.signal(signal.SIGUSR2, _pass_on)
        os.chdir(self.cwd)
        is_first = ranks.is_first()
        if is_first:
            Path(self.ended).unlink(missing_ok=True)
        code = self._train()
        time_is_up = self.limit_s is not None and time.monotonic() - started >= self.limit_s
        if is_first and code == STOPPED_BY_SIGTERM and time_is_up and self._may_requeue():
            self._requeue()
        elif is_first:
            _write(Path(self.ended), {"exit_code": code, "seconds": round(time.monotonic() - started, 3)})
        if code:
            # A task that returns is done for submitit, and ends by 0; srun ends the others by this.
            sys.exit(code)
        return code

    def _train(self) -> int:
        key = "resume" if has_saved(Path(self.folder)) else "output"
        before = sys.argv
        sys.argv = ["deblur_lab.train", *self.settings, f"{key}={self.folder}"]
        try:
            runpy.run_module("deblur_lab.train", run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except Terminated:
            return STOPPED_BY_SIGTERM
        finally:
            sys.argv = before
        return 0

    def _may_requeue(self) -> bool:
        return (
            "SLURM_JOB_ID" in os.environ and int(os.environ.get("SLURM_RESTART_COUNT") or 0) < self.requeues
        )

    def _requeue(self) -> None:
        import subprocess

        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True, timeout=60)


def _pass_on(_number: int, _frame: FrameType | None) -> None:
    """There is one way to stop a run, and it is SIGTERM."""
    os.kill(os.getpid(), signal.SIGTERM)


def executor_of(config: DictConfig) -> str | None:
    """Which of submitit's executors a composed configuration chooses: slurm, local, or None for none of them.

    Args:
        config: with what Hydra keeps in it.
    """
    return _EXECUTORS.get(str(OmegaConf.select(config, "hydra.launcher._target_")))


def launch_faults(configs: Sequence[DictConfig]) -> list[str]:
    """What keeps the jobs of a sweep from being submitted, one line each.

    Args:
        configs: of the jobs, composed, with what Hydra keeps in them.
    """
    found: list[str] = []
    for config in configs:
        executor = executor_of(config)
        if executor is not None:
            found += resources(config, executor)[1]
    return list(dict.fromkeys(found))


def resources(config: DictConfig, executor: str) -> tuple[dict[str, Any], list[str]]:
    """What a job asks a cluster for: what its launcher was told, and what follows from its trainer.

    A task a device; as many cores a task as it has data workers, and one more.

    Args:
        config: of the job, composed, with what Hydra keeps in it.
        executor: of `executor_of`.

    Returns:
        The launcher's settings, completed; and a line for each that does not fit the trainer.
    """
    launcher = OmegaConf.select(config, "hydra.launcher")
    asked = {str(key): launcher[key] for key in launcher if key not in ("_target_", "submitit_folder")}
    asked = {
        key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        for key, value in asked.items()
    }
    devices, nodes = (OmegaConf.select(config, f"trainer.{key}") for key in ("devices", "num_nodes"))
    accelerator = OmegaConf.select(config, "trainer.accelerator")
    if not isinstance(devices, int) or isinstance(devices, bool) or devices < 1:
        return asked, [f"trainer.devices={devices}: a cluster has to be told how many there are of a node"]
    found = []
    on_gpus = accelerator in ("gpu", "cuda")
    workers = OmegaConf.select(config, "data.num_workers")
    if asked.get("cpus_per_task") is None and isinstance(workers, int):
        asked["cpus_per_task"] = workers + 1
    if executor == "local":
        for key, value in (("nodes", nodes), ("tasks_per_node", 1)):
            if asked[key] != 1 or value != 1:
                found.append(
                    f"hydra.launcher.{key}={asked[key]}, trainer.num_nodes={nodes}: hydra/launcher="
                    "submitit_local starts one process a job, on this machine, and that the others"
                )
    else:
        for key, value, of in (("tasks_per_node", devices, "devices"), ("nodes", nodes, "num_nodes")):
            if asked[key] not in (1, value):
                found.append(
                    f"hydra.launcher.{key}={asked[key]}, trainer.{of}={value}: one task a device is started: "
                    f"leave hydra.launcher.{key} out"
                )
            asked[key] = value
        given = [key for key in ("gpus_per_node", "gpus_per_task", "gres") if asked.get(key) is not None]
        if accelerator == "auto" and not given:
            found.append(
                "trainer.accelerator=auto takes what it finds, and Slurm has to be told what for: choose "
                "trainer=gpu or trainer=cpu"
            )
    if on_gpus and asked["gpus_per_node"] not in (None, devices):
        found.append(
            f"hydra.launcher.gpus_per_node={asked['gpus_per_node']}, trainer.devices={devices}: one device a "
            "process is used: leave hydra.launcher.gpus_per_node out"
        )
    if on_gpus and not any(asked.get(key) for key in ("gpus_per_node", "gpus_per_task", "gres")):
        asked["gpus_per_node"] = devices
    return asked, found


class Cluster:
    """Submits jobs and waits for them.

    Args:
        executor: slurm or local.
        folder: of the sweep.
        tell: says a line to the person who waits.

    Raises:
        MachineError: there is no submitit, or no Slurm.
    """

    def __init__(self, executor: str, folder: Path, tell: Callable[[str], None]) -> None:
        try:
            import submitit
        except ImportError as error:
            raise MachineError(
                f"hydra/launcher=submitit_{executor} needs submitit: pip install 'deblur_lab[slurm]'"
            ) from error
        self._executor = executor
        self._folder = folder / _FOLDER
        self._tell = tell
        self._submitit = submitit
        self._jobs: dict[int, Any] = {}
        self._kept: dict[str, str] = {}

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[int, int]]:
        """Submit jobs, those that are still queued or running from before excepted, and wait for all.

        Jobs that ask for the same are one job array of Slurm's.

        Yields:
            The number of a job that has ended, and its exit code.

        Raises:
            MachineError: the cluster took none of them.
            KeyboardInterrupt: jobs on Slurm stay there; those of this machine are stopped, and saved.
        """
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        self._kept = _read(self._folder / _SUBMITTED)
        alike: dict[str, list[tuple[Job, dict[str, Any]]]] = {}
        for job in jobs:
            if self._is_there(job):
                continue
            asked, found = resources(job.config, self._executor)
            if found:
                raise ConfigurationError(found[0])
            alike.setdefault(json.dumps(asked, sort_keys=True, default=str), []).append((job, asked))
        with self._stopping():
            for group in alike.values():
                self._submit([job for job, _ in group], group[0][1])
            for job in jobs:
                about = self._jobs[job.number]
                self._tell(f"job {job.number + 1}: {self._name} {about.job_id}; what it says: {_log(about)}")
            yield from self._wait()

    @property
    def _name(self) -> str:
        return "Slurm job" if self._executor == "slurm" else "process"

    def _is_there(self, job: Job) -> bool:
        """Whether Slurm still has a job from before this process began."""
        known = self._kept.get(str(job.number))
        if known is None or self._executor != "slurm":
            return False
        ids, _, tasks = known.partition("x")
        try:
            there: Any = self._submitit.SlurmJob(self._job_folder(), ids, list(range(int(tasks))))
            if self._ended(job.number).exists() or there.watcher.is_done(ids, mode="force"):
                return False
        except Exception:  # sacct does not know it, or is not there: it is submitted again
            return False
        self._jobs[job.number] = there
        return True

    def _job_folder(self) -> str:
        return str(self._folder.absolute() / "%j")

    def _ended(self, number: int) -> Path:
        return self._folder.absolute() / f"ended-{number}.json"

    def _submit(self, jobs: Sequence[Job], asked: Mapping[str, Any]) -> None:
        parameters = dict(asked)
        retries = int(parameters.pop("max_num_timeout", None) or 0)
        delay_s = parameters.get("signal_delay_s")
        if self._executor == "slurm":
            # Its own signal would reach data workers, which do not listen to it; SIGTERM they know.
            more = {"requeue": True, "signal": f"TERM@{delay_s}"}
            parameters["additional_parameters"] = {**more, **(parameters["additional_parameters"] or {})}
            parameters["srun_args"] = ["--kill-on-bad-exit=1"]
        limit_s = None if delay_s is None else 60.0 * parameters["timeout_min"] - delay_s - _EARLY_S
        tasks = [
            Task(
                job.settings,
                str(job.folder.absolute()),
                str(self._ended(job.number)),
                os.getcwd(),
                limit_s,
                retries,
            )
            for job in jobs
        ]
        for task in tasks:
            Path(task.ended).unlink(missing_ok=True)
        named = {
            key if key in _COMMON else f"{self._executor}_{key}": value for key, value in parameters.items()
        }
        try:
            executor = self._submitit.AutoExecutor(folder=self._job_folder(), cluster=self._executor)
            executor.update_parameters(**{key: value for key, value in named.items() if value is not None})
            submitted = executor.submit_array(tasks)
        except Exception as error:
            line = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")
            raise MachineError(f"hydra/launcher=submitit_{self._executor}: {line or error!r}") from error
        if self._executor == "slurm":
            submitted[0].watcher._delay_s = _ASK_SLURM_EVERY_S
        for job, entry in zip(jobs, submitted, strict=True):
            self._jobs[job.number] = entry
            self._kept[str(job.number)] = f"{entry.job_id}x{entry.num_tasks}"
        _write(self._folder / _SUBMITTED, self._kept)

    def _wait(self) -> Iterator[tuple[int, int]]:
        left = dict(self._jobs)
        while left:
            for number, job in list(left.items()):
                code = self._code(number, job)
                if code is not None:
                    del left[number]
                    yield number, code
            if left:
                time.sleep(_LOOK_EVERY_S[self._executor])

    def _code(self, number: int, job: Any) -> int | None:  # noqa: ANN401 - submitit's
        """The exit code of a job; None while it has not ended."""
        said = _read(self._ended(number)).get("exit_code")
        if said is not None:
            if self._executor == "local":
                return int(said) if job.done() else None  # its last lines are being written
            # What Slurm takes the machines from, it may queue again.
            waits = int(said) == STOPPED_BY_SIGTERM and not job.done() and job.state.upper() != "UNKNOWN"
            return None if waits else int(said)
        # submitit takes a job for done that was never heard of, and Slurm forgets none so soon.
        if not job.done() or job.state.upper() in _NOT_ENDED:
            return None
        said = _read(self._ended(number)).get("exit_code")  # in the meantime
        if said is not None:
            return int(said)
        self._tell(f"job {number + 1}: {self._name} {job.job_id} ended without a word ({job.state.lower()})")
        return MachineError.exit_code

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Leaves the jobs as they should be left when the person who waits stops waiting."""
        try:
            yield
        except (KeyboardInterrupt, Terminated):
            ids = sorted({job.job_id.partition("_")[0] for job in self._jobs.values()})
            if self._executor == "slurm":
                self._tell(
                    f"Slurm goes on with what was submitted: scancel {' '.join(ids)} ends it, the same "
                    "command as before waits for it again"
                )
            else:
                self._stop_local()
            raise

    def _stop_local(self) -> None:
        self._tell("stopping the jobs, which save first")
        for job in self._jobs.values():
            with suppress(OSError):
                job._process.send_signal(signal.SIGTERM)
        for number, job in self._jobs.items():
            while self._code(number, job) is None:
                time.sleep(_LOOK_EVERY_S["local"])

    def seconds(self, number: int) -> float:
        """How long a job that has ended took, as far as it said so."""
        return float(_read(self._ended(number)).get("seconds", 0.0))

    def last_line(self, number: int) -> str:
        """What a job that failed said was wrong; empty where it said nothing."""
        job = self._jobs[number]
        try:
            lines = Path(job.paths.stderr).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return next((line for line in reversed(lines) if line.startswith("error: ")), "")


def _log(job: Any) -> Path:  # noqa: ANN401 - submitit's
    path = Path(job.paths.stdout)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _write(path: Path, contents: Mapping[str, Any]) -> None:
    with replacing(path) as file:
        json.dump(contents, file)


def _read(path: Path) -> dict[str, Any]:
    """What stands in a small JSON file of ours; nothing if there is none, or it cannot be read."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}
