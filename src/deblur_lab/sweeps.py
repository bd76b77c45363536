"""Several trainings with one command: each is run, or handed to a cluster, and all are told of at the end."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from hydra.core.hydra_config import HydraConfig
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from deblur_lab import cluster, ranks
from deblur_lab.composition import composing
from deblur_lab.endings import STOPPED_BY_CTRL_C, STOPPED_BY_SIGTERM, Terminated
from deblur_lab.errors import ConfigurationError, MachineError
from deblur_lab.folder_lock import kept_for_this_run
from deblur_lab.sweep_jobs import Job, Plan, plan
from deblur_lab.writing import replacing, writing

# What a job ends with that somebody has stopped, who means the sweep.
STOPPED = (STOPPED_BY_CTRL_C, STOPPED_BY_SIGTERM)
_BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


@dataclass(frozen=True)
class Sweep:
    """What is swept over, and how each job is run.

    Attributes:
        command: the name of its file in ``conf``, of which the module has the name, too.
        typed: the command line, without the program.
        settings: all of them, with what they sweep over, as Hydra reads them.
        jobs: the settings and the composed configuration of each.
        folder: where the jobs write.
        own_folder: of a person's own YAMLs, or None.
        as_typed: how a setting of a job is typed, to start it by a command of its own.
        attempt: does a job's work, and ends as a command does: by SystemExit if it fails.
    """

    command: str
    typed: Sequence[str]
    settings: Sequence[str]
    jobs: Sequence[tuple[Sequence[str], DictConfig]]
    folder: Path
    own_folder: Path | None
    as_typed: Callable[[str], str]
    attempt: Callable[[DictConfig], None]

    @property
    def way_on(self) -> str:
        """The command that goes on with it."""
        named = any(setting.startswith(("output=", "hydra.sweep.dir=")) for setting in self.typed)
        more = [] if named else [f"output={self.folder}"]
        return shlex.join(["python", "-m", f"deblur_lab.{self.command}", *self.typed, *more])

    def arguments(self, job: Job) -> list[str]:
        """What is typed to run one job alone, in its folder."""
        key = "resume" if job.can_go_on() else "output"
        words = ["--config-dir", str(self.own_folder)] if self.own_folder is not None else []
        # Its folder is named below; one that a person typed is the sweep's.
        typed = [one for one in job.typed if not one.lstrip("+~").startswith(("output=", "resume="))]
        return [*words, *map(self.as_typed, typed), f"{key}={job.folder}"]


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        exit_code: of the job.
        seconds: that it took.
    """

    exit_code: int
    seconds: float


@dataclass(frozen=True)
class Task:
    """What a launcher of Hydra's calls with the configuration of a job, here or on another machine.

    Attributes:
        attempt: as in `Sweep`.
        arguments: that run a job alone, by the name of its folder.
        titles: what is said of a job when it begins, likewise.
    """

    attempt: Callable[[DictConfig], None]
    arguments: Mapping[str, Sequence[str]]
    titles: Mapping[str, str]

    def __call__(self, config: DictConfig) -> Outcome:
        """Run a job.

        Raises:
            SystemExit: it was stopped by a signal.
        """
        name = Path(HydraConfig.get().runtime.output_dir).name
        arguments = self.arguments[name]
        key, _, folder = arguments[-1].partition("=")
        with open_dict(config):
            config[key] = folder
        if ranks.is_first():
            say(self.titles[name])
        before = sys.argv
        # Processes of the run are started with what stands here.
        sys.argv = [before[0], *arguments]
        ranks.show_way_on(str)  # not what the job before has said
        started = time.monotonic()
        try:
            with ranks.within_sweep():
                self.attempt(config)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            if code in STOPPED:
                raise
            return Outcome(code, time.monotonic() - started)
        finally:
            sys.argv = before
        return Outcome(0, time.monotonic() - started)


@dataclass
class _Signals:
    """Hands SIGINT and SIGTERM on to a job in a process of its own, while it runs.

    Attributes:
        heard: those that came.
    """

    heard: list[int] = field(default_factory=list)
    _process: "subprocess.Popen[bytes] | None" = None
    _waiting: list[int] = field(default_factory=list)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """A handler."""
        self.heard.append(number)
        if self._process is None:
            self._waiting.append(number)
        else:
            self._process.send_signal(number)

    def go_to(self, process: "subprocess.Popen[bytes]") -> None:
        """Hand them on from now, those that came before first."""
        self._process = process
        while self._waiting:
            process.send_signal(self._waiting.pop())


def say(line: str) -> None:
    """Print one line, at once, as jobs have a stream of their own."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run(sweep: Sweep) -> None:
    """Run those jobs of a sweep that are not done, and print what became of all.

    One that fails leaves the others running; one that is stopped by a signal ends the sweep. A job on
    several devices has a process of its own, so that whatever befalls its processes, the sweep goes on.

    Raises:
        ConfigurationError: another sweep has the folder, or left its jobs there.
        MachineError: the folder cannot be written to.
        SystemExit: a job failed, with the exit code of the first; or the sweep was stopped.
    """
    if ranks.started_elsewhere():
        raise ConfigurationError(
            "-m: a sweep starts the processes of its jobs itself: leave torchrun or srun out, or choose "
            "hydra/launcher=submitit_slurm"
        )
    with writing(sweep.folder):
        sweep.folder.mkdir(parents=True, exist_ok=True)
    with kept_for_this_run(sweep.folder, f"output={sweep.folder}"):
        planned = plan(sweep.folder, sweep.jobs, sweep.way_on)
        try:
            _run(sweep, planned)
        except BaseException:
            for job in planned.jobs:
                if job.status == "running":
                    job.status = "stopped"
            planned.write()
            planned.show()
            say(f"go on with all jobs that are not done by: {sweep.way_on}")
            raise
        planned.write()
    planned.show()
    failed = [job for job in planned.jobs if job.status == "failed"]
    if failed:
        say(f"{len(failed)} of {len(planned.jobs)} jobs failed; try these again by: {sweep.way_on}")
        sys.exit(planned.exit_code)


def _run(sweep: Sweep, planned: Plan) -> None:
    to_do = []
    for job in planned.jobs:
        if job.is_finished():
            job.status, job.exit_code = "finished", 0
            differs = f" (with other settings: {job.differs})" if job.differs else ""
            say(f"{_which(job, planned)} is finished, in {job.folder}{differs}")
        else:
            to_do.append(job)
    planned.write()
    arguments = {job.folder.name: sweep.arguments(job) for job in planned.jobs}
    titles = {job.folder.name: _begins(job, planned) for job in planned.jobs}
    task = Task(sweep.attempt, arguments, titles)
    with composing(sweep.command, sweep.own_folder) as composer:
        launcher, config = composer.launcher(sweep.settings, sweep.folder, task)
        with replacing(sweep.folder / "multirun.yaml") as file:
            OmegaConf.save(config, file)
        if OmegaConf.select(config, "hydra.launcher._target_") == _BASIC_LAUNCHER:
            for job in to_do:
                _one(job, planned, lambda job: _here(sweep, launcher, task, job))
        elif to_do and cluster.executor_of(to_do[0].config) is not None:
            _on_cluster(sweep, planned, to_do)
        elif to_do:
            _elsewhere(launcher, planned, to_do)


def _one(job: Job, planned: Plan, work: Callable[[Job], Outcome]) -> None:
    """Run one job, and write down what became of it."""
    job.status = "running"
    planned.write()
    started, before = time.monotonic(), job.seconds or 0.0
    try:
        outcome = work(job)
    except SystemExit as ended:
        job.exit_code = ended.code if isinstance(ended.code, int) else None
        raise
    except KeyboardInterrupt:
        job.exit_code = STOPPED_BY_CTRL_C
        raise
    except Terminated:
        job.exit_code = STOPPED_BY_SIGTERM
        raise
    finally:
        job.seconds = before + time.monotonic() - started
    ended_as(job, outcome)
    job.seconds = before + outcome.seconds
    planned.write()


def ended_as(job: Job, outcome: Outcome) -> None:
    """Note how a job ended."""
    job.exit_code = outcome.exit_code
    stopped = outcome.exit_code in STOPPED
    job.status = "finished" if outcome.exit_code == 0 else "stopped" if stopped else "failed"


def _which(job: Job, planned: Plan) -> str:
    return f"job {job.number} of {len(planned.jobs)}: {job.title}"


def _begins(job: Job, planned: Plan) -> str:
    return f"{_which(job, planned)}, in {job.folder}"


def _here(sweep: Sweep, launcher: Launcher, task: Task, job: Job) -> Outcome:
    """Run a job on this machine."""
    if needs_processes(job.config):
        say(task.titles[job.folder.name])
        return run_alone(sweep.command, task.arguments[job.folder.name])
    (ended,) = launcher.launch([_with_folder(job)], initial_job_idx=job.number - 1)
    outcome = ended.return_value
    assert isinstance(outcome, Outcome)
    return outcome


def _on_cluster(sweep: Sweep, planned: Plan, jobs: Sequence[Job]) -> None:
    """Submit all jobs by submitit, and wait for them."""
    executor = cluster.executor_of(jobs[0].config)
    assert executor is not None
    by_number = {job.number - 1: job for job in jobs}
    there = cluster.Cluster(executor, sweep.folder, say)
    submitted = [
        cluster.Job(number, tuple(sweep.arguments(job)[:-1]), job.folder, job.config)
        for number, job in by_number.items()
    ]
    for job in jobs:
        say(_begins(job, planned))
        job.status = "running"
    planned.write()
    for number, code in there.run(submitted):
        job = by_number[number]
        ended_as(job, Outcome(code, 0.0))
        job.seconds = (job.seconds or 0.0) + there.seconds(number)
        planned.write()
        why = f": {there.last_line(number)}" if code else ""
        say(f"{_which(job, planned)}: {job.status}{why}")


def _elsewhere(launcher: Launcher, planned: Plan, jobs: Sequence[Job]) -> None:
    """Hand all jobs to a launcher, which runs them elsewhere, and wait for them."""
    for job in jobs:
        job.status = "running"
        say(_begins(job, planned))
    planned.write()
    all_ended = launcher.launch([_with_folder(job) for job in jobs], initial_job_idx=0)
    for job, ended in zip(jobs, all_ended, strict=True):
        outcome = ended.return_value
        job.seconds = (job.seconds or 0.0) + outcome.seconds
        ended_as(job, outcome)


def _with_folder(job: Job) -> list[str]:
    """The settings of a job for Hydra, with the name of its folder."""
    return [*job.settings, f"hydra.sweep.subdir='{job.folder.name}'"]


def needs_processes(config: DictConfig) -> bool:
    """Whether a training runs in several processes."""
    return any(
        OmegaConf.select(config, f"trainer.{key}") not in (None, 1) for key in ("devices", "num_nodes")
    )


def run_alone(command: str, arguments: Sequence[str]) -> Outcome:
    """Run a job by a command of its own.

    It has a process group of its own: of a Ctrl-C, which reaches all processes of a terminal, it shall hear
    once, from here.
    """
    sys.stdout.flush()
    signals = _Signals()
    before = {number: signal.signal(number, signals) for number in (signal.SIGINT, signal.SIGTERM)}
    started = time.monotonic()
    try:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", f"deblur_lab.{command}", *arguments],
                env={**os.environ, **ranks.environment_of_job()},
                process_group=0,
            )
        except OSError as error:
            raise MachineError(f"a process cannot be started: {error.strerror}") from error
        signals.go_to(process)
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code < 0:  # as shells have it
        say(f"the job's process {process.pid} was killed by {ranks.name_of(-code)}")
        code = 128 - code
    if signals.heard or code in STOPPED:
        raise SystemExit(128 + signals.heard[0] if signals.heard else code)
    return Outcome(code, time.monotonic() - started)
