"""The jobs of a sweep: which folder each has, what of it is done already, and what became of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deblur_lab import experiments
from deblur_lab.config import plain_leaves
from deblur_lab.errors import ConfigurationError, DataError
from deblur_lab.run_folders import CHANGEABLE_ON_RESUME, differences, has_saved, lasting
from deblur_lab.writing import duration, write_json

SWEEP = "sweep.json"

# "running" is also what stands there of a job whose sweep was killed.
Status = Literal["not run", "running", "finished", "failed", "stopped"]

_TITLES = {"psnr_db": "PSNR (dB)", "ssim": "SSIM"}
_LEFT_OUT = ("output", "resume", "datamodule", "hydra")
# Of more differences nobody sees what they come from.
_FEW = 5
# A log has no width; a table in it need not be folded.
_WIDTH_OF_A_LOG = 160


@dataclass
class Job:
    """One training of a sweep.

    Attributes:
        number: its place among the jobs, from 1.
        settings: of which it was composed, in Hydra's grammar.
        own: those that tell it from the others.
        config: composed, without what Hydra keeps in it.
        folder: where it writes.
        status: what became of it.
        exit_code: of a job that has ended.
        seconds: that it took, in all sweeps that worked at it; None if that is not known.
        differs: what it was run with that is not as it is now, and does not make it another run.
    """

    number: int
    settings: Sequence[str]
    own: Sequence[str]
    config: DictConfig
    folder: Path
    status: Status = "not run"
    exit_code: int | None = None
    seconds: float | None = None
    differs: str = ""

    @property
    def typed(self) -> list[str]:
        """Its settings without those of Hydra, which tell how the sweep is run."""
        return [setting for setting in self.settings if not of_hydra(setting)]

    @property
    def title(self) -> str:
        """What it is called: the settings that tell it from the others."""
        return " ".join(self.own) or "as typed"

    def is_finished(self) -> bool:
        """Whether its folder holds all that a run leaves."""
        if self.config.get("stages"):  # whose last file to be put there this is
            return (self.folder / "checkpoints" / "last.ckpt").is_file()
        is_scored = any((self.folder / name).is_file() for name in ("scores.json", "measures.json"))
        return (self.folder / "costs.json").is_file() and (is_scored or not self.config.get("evaluate", True))

    def can_go_on(self) -> bool:
        """Whether its folder holds a checkpoint to go on from."""
        return (self.folder / "config.yaml").is_file() and has_saved(self.folder)

    def scores(self) -> dict[str, dict[str, float]]:
        """The means that it reached, by dataset and name; none if it did not come so far.

        Raises:
            DataError: its ``scores.json`` is damaged.
        """
        path = self.folder / "scores.json"
        if self.status != "finished" or not path.is_file():
            return {}
        try:
            results = json.loads(path.read_text(encoding="utf-8"))["results"]
            return {str(result["dataset"]): dict(result["scores"]) for result in results}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged: {error}: mend or remove it") from error


@dataclass(frozen=True)
class _Before:
    """A run that is there already, in a numbered folder."""

    folder: Path
    settings: Mapping[str, Any]
    lasting: Mapping[str, Any]


@dataclass
class Plan:
    """The jobs of a sweep in its folder.

    Attributes:
        folder: of the sweep; each job has a numbered one below it.
        jobs: in the order in which they are run.
        command: that goes on with it, as it is typed.
    """

    folder: Path
    jobs: Sequence[Job]
    command: str = ""
    _earlier: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def write(self) -> None:
        """Write ``sweep.json``: what it is, see docs/ablations.md.

        Raises:
            MachineError: it cannot be written.
        """
        rows = [
            {
                "number": job.number,
                "settings": job.typed,
                "own_settings": list(job.own),
                "folder": job.folder.name,
                "status": job.status,
                "exit_code": job.exit_code,
                "seconds": None if job.seconds is None else round(job.seconds, 1),
                "scores": job.scores(),
            }
            for job in self.jobs
        ]
        write_json(self.folder / SWEEP, {"command": self.command, "jobs": rows})

    def show(self) -> None:
        """Print the table of all jobs."""
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=_WIDTH_OF_A_LOG)
        table = Table(title=Text(f"jobs of {self.folder}"), title_justify="left")
        scores = [next(iter(job.scores().items()), ("", {})) for job in self.jobs]
        names = [name for name in _TITLES if any(name in means for _, means in scores)]
        datasets = {dataset for dataset, _ in scores if dataset}
        table.add_column("job", justify="right")
        table.add_column("settings", overflow="fold")
        for column in ("status", *(["dataset"] if len(datasets) > 1 else [])):
            table.add_column(column)
        for column in ("exit code", *(_TITLES[name] for name in names), "time"):
            table.add_column(column, justify="right")
        table.add_column("folder", overflow="fold")
        for job, (dataset, means) in zip(self.jobs, scores, strict=True):
            cells = [
                str(job.number),
                job.title,
                job.status,
                *([dataset] if len(datasets) > 1 else []),
                "" if job.exit_code is None else str(job.exit_code),
                *(_number(means.get(name), 2 if name.endswith("_db") else 4) for name in names),
                "" if job.seconds is None else duration(job.seconds),
                str(job.folder),
            ]
            table.add_row(*map(Text, cells))
        console.print(table)

    @property
    def exit_code(self) -> int:
        """Of the sweep: that of the first job that failed, or 0."""
        return next((job.exit_code or 1 for job in self.jobs if job.status == "failed"), 0)


def plan(
    folder: Path,
    jobs: Sequence[tuple[Sequence[str], DictConfig]],
    command: str = "",
    *,
    may_hold_others: bool = False,
) -> Plan:
    """Give each job a folder: that in which it was begun before, or a new one.

    A job is known by its settings, whatever its number was: those of its ``config.yaml``, without those that
    a resumed run may change. So one may type more values than before.

    Args:
        folder: of the sweep.
        jobs: the settings and the composed configuration of each.
        command: that goes on with the sweep.
        may_hold_others: whether runs may be there that are none of these jobs.

    Raises:
        ConfigurationError: the folder holds a run, or a job of another sweep; says by what it differs.
    """
    if (folder / "config.yaml").is_file():
        raise ConfigurationError(
            f"output={folder} holds a run, not a sweep: go on with it by resume={folder} without -m, or name "
            "another folder"
        )
    there = _runs_in(folder)
    earlier = _earlier(folder)
    now = [_settings_of(config, settings) for settings, config in jobs]
    lasting = [_lasting(settings) for settings in now]
    found: dict[int, _Before] = {}
    # First what is the same in all, so that a sweep over what a resumed run may change is not mixed up.
    for same_in_all in (True, False):
        for number in range(len(jobs)):
            for run in there if number not in found else ():
                same = run.settings == now[number] if same_in_all else run.lasting == lasting[number]
                if same and run not in found.values():
                    found[number] = run
                    break
    strangers = [run for run in there if run not in found.values()]
    if strangers and not may_hold_others:
        raise _another_sweep(folder, strangers[0], lasting, earlier.get(strangers[0].folder.name, {}))
    alike = set.intersection(*(set(settings) for settings, _ in jobs)) if jobs else set()
    taken = {run.folder.name for run in there}
    planned = []
    for number, (settings, config) in enumerate(jobs):
        known = found.get(number)
        typed = [setting for setting in settings if not of_hydra(setting)]
        name = known.folder.name if known is not None else _free(folder, number, typed, taken, earlier)
        taken.add(name)
        job = Job(
            number + 1,
            list(settings),
            [setting for setting in settings if setting not in alike],
            config,
            folder / name,
            differs="" if known is None else differences(known.settings, now[number]),
        )
        before = earlier.get(name, {})
        if known is not None or before.get("settings") == typed:
            job.seconds = before.get("seconds")
        planned.append(job)
    return Plan(folder, planned, command)


def of_hydra(setting: str) -> bool:
    """Whether a setting is one of Hydra's own, not of the training."""
    return setting.lstrip("+~").startswith(("hydra.", "hydra/"))


def sweep_faults(jobs: Sequence[DictConfig]) -> list[str]:
    """What keeps several trainings from being run by one command, one line each.

    Args:
        jobs: their configurations, with what Hydra keeps in them.
    """
    found = []
    for config in jobs:
        nodes = OmegaConf.select(config, "trainer.num_nodes")
        here = str(OmegaConf.select(config, "hydra.launcher._target_")).endswith(".BasicLauncher")
        if here and isinstance(nodes, int) and nodes > 1:
            found.append(
                f"trainer.num_nodes={nodes}: a sweep (-m) starts processes on this machine alone: choose "
                "hydra/launcher=submitit_slurm, or run each training by a command of its own"
            )
        as_written = OmegaConf.to_container(config.hydra.sweep, resolve=False)
        if not isinstance(as_written, dict) or as_written["subdir"] != "${hydra.job.num}":
            found.append("hydra.sweep.subdir: the folders of a sweep's jobs have numbers: leave it out")
    return list(dict.fromkeys(found))


def _free(
    folder: Path,
    number: int,
    settings: list[str],
    taken: set[str],
    earlier: Mapping[str, Mapping[str, Any]],
) -> str:
    """The number of a folder for a job that has begun none: what it had before, its own place, or the next.

    What another job has left in a folder, why it diverged say, is not mixed with its own.
    """
    for name, row in earlier.items():
        if row.get("settings") == settings and name not in taken:
            return name
    while str(number) in taken or any((folder / str(number)).glob("*")):
        number += 1
    return str(number)


def _runs_in(folder: Path) -> list[_Before]:
    """The runs in the numbered folders of a sweep, in the order of their numbers."""
    runs = []
    numbered = [path for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
    for place in sorted(numbered, key=lambda path: int(path.name)):
        path = place / "config.yaml"
        if not path.is_file():
            continue
        try:
            config = OmegaConf.load(path)
        except Exception as error:  # YAML's and OmegaConf's are of no common kind
            raise DataError(f"{path} is damaged: {' '.join(str(error).split())}: remove {place}") from error
        settings = _plain(config) if isinstance(config, DictConfig) else {}
        runs.append(_Before(place, settings, _lasting(settings)))
    return runs


def _earlier(folder: Path) -> dict[str, Mapping[str, Any]]:
    """What ``sweep.json`` says of jobs, by their folders; nothing if there is none, or it is damaged."""
    try:
        rows = json.loads((folder / SWEEP).read_text(encoding="utf-8"))["jobs"]
        return {str(row["folder"]): row for row in rows}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # the runs themselves say what is done


def _settings_of(config: DictConfig, typed: Sequence[str]) -> dict[str, Any]:
    """The settings of a job as the run writes them into its ``config.yaml``."""
    settings = _plain(config)
    names = experiments.chosen(typed)
    return {**settings, experiments.GROUP: names} if names else settings


def _plain(config: DictConfig) -> dict[str, Any]:
    """The values by dotted key, references as they stand, without those that are null."""
    container = OmegaConf.to_container(config, resolve=False)
    assert isinstance(container, dict)
    leaves = [plain_leaves(node, str(key)) for key, node in container.items() if key not in _LEFT_OUT]
    # What is null is as if it was not there: a newer version may have more settings, and has null for most.
    return {key: value for part in leaves for key, value in part.items() if value is not None}


def _lasting(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that a resumed run may not change."""
    return lasting(settings, CHANGEABLE_ON_RESUME)


def _another_sweep(
    folder: Path, stranger: _Before, jobs: Sequence[Mapping[str, Any]], row: Mapping[str, Any]
) -> ConfigurationError:
    """What is said of a run in a sweep's folder that is none of the jobs.

    Args:
        folder: the sweep's.
        stranger: that run.
        jobs: the lasting settings of each.
        row: what ``sweep.json`` says of the run; nothing if there is none.
    """
    of_run = stranger.lasting
    count, nearest = min(
        ((sum(of_run.get(key) != job.get(key) for key in {**of_run, **job}), job) for job in jobs),
        key=lambda pair: pair[0],
    )
    own = row.get("own_settings") or row.get("settings")
    if count > _FEW and own:
        what = f"{stranger.folder}, of {' '.join(map(str, own))}, is none of these jobs"
    else:
        what = f"{stranger.folder} is none of these jobs (nearest: {differences(of_run, nearest)})"
    return ConfigurationError(
        f"output={folder} holds another sweep: {what}: type its values as well, or name another folder"
    )


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
