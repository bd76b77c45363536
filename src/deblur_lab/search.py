"""A search for the best settings of a training: what to try next is Optuna's, all else is as in a sweep.

Optuna is asked and told (its ask-and-tell interface); each trial is a training with a folder of its own. What
was asked and told stands in a journal in the folder of the search, from which one that was killed goes on.
"""

import contextlib
import csv
import json
import math
import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from deblur_lab.cluster import executor_of
from deblur_lab.config import did_you_mean, own_faults
from deblur_lab.endings import STOPPED_BY_CTRL_C, STOPPED_BY_SIGTERM, Terminated
from deblur_lab.errors import ConfigurationError, DivergedError, MachineError
from deblur_lab.folder_lock import FolderLock
from deblur_lab.ranges import Count, Natural, Seed
from deblur_lab.search_space import Dimension
from deblur_lab.writing import write_json, writing

if TYPE_CHECKING:
    import optuna

RESULTS, JOURNAL, CURVES = "search.json", "search.journal", "metrics.csv"
_BEST = "best"
_KINDS: Mapping[str, Any] = {
    "trials": Count,
    "objective": str,
    "of": Literal["best", "last"],
    "direction": Literal["auto", "maximize", "minimize"],
    "seed": Seed,
    "startup_trials": Natural,
    "pruning": Literal["none", "median"],
    "at_once": Count,
}
# By which names a measure is known to be better the more, or the less, of it there is.
_MORE, _LESS = ("psnr_db", "ssim"), ("lpips", "nll_bits", "loss")
_LOOK_EVERY_S = 0.5
_OTHERS = ("config.yaml", "sweep.json")  # of a run, of a sweep
_NAME = "search"
_SIGNALS = (STOPPED_BY_CTRL_C, STOPPED_BY_SIGTERM)

# Runs trials: yields the number of one that has ended, and its exit code.
Runner = Callable[[Sequence["Asked"]], Iterator[tuple[int, int]]]


@dataclass(frozen=True)
class Asked:
    """A trial to be run.

    Attributes:
        number: counts from 0.
        settings: those that are searched for, as they are typed.
        folder: of its run.
    """

    number: int
    settings: tuple[str, ...]
    folder: Path


def settings_of(config: DictConfig) -> dict[str, Any]:
    """``hydra.sweeper`` of a composed configuration, plain."""
    settings = OmegaConf.to_container(OmegaConf.select(config, "hydra.sweeper"))
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}


def search_faults(config: DictConfig) -> list[str]:
    """What is wrong with the settings of a search, one line each.

    Args:
        config: composed, with what Hydra keeps in it.
    """
    on_cluster = executor_of(config) is not None
    settings = settings_of(config)
    known = [*_KINDS, "params", "_target_", "max_batch_size"]  # the last is of Hydra's own sweeper
    there = f"there are {', '.join(_KINDS)}"
    found = [
        f"there is no setting hydra.sweeper.{key}: {did_you_mean(key, _KINDS, there)}"
        for key in settings
        if key not in known
    ]
    faults = own_faults(settings, _KINDS)
    found += [f"hydra.sweeper.{fault}" for fault in faults]
    if not faults:
        if settings["direction"] == "auto" and direction_of(settings["objective"]) is None:
            found.append(
                f"hydra.sweeper.objective={settings['objective']}: whether more or less of it is better is "
                "not known: add hydra.sweeper.direction=maximize or =minimize"
            )
        if on_cluster and settings["pruning"] != "none":
            found.append(
                "hydra.sweeper.pruning=median: trials on a cluster are not watched: leave it, or "
                "hydra/launcher, out"
            )
        if not on_cluster and settings["at_once"] > 1:
            found.append(
                f"hydra.sweeper.at_once={settings['at_once']}: this machine runs one trial at a time: leave "
                "it out, or choose hydra/launcher=submitit_slurm"
            )
    return found


def direction_of(objective: str) -> str | None:
    """Whether a measure is to be maximized or minimized; None if its name does not tell.

    >>> direction_of("val/synthetic/weighted_ssim"), direction_of("val/nll_bits"), direction_of("val/epoch")
    ('maximize', 'minimize', None)
    """
    name = objective.rpartition("/")[2]
    if any(name.endswith(word) for word in _LESS):
        return "minimize"
    return "maximize" if any(name.endswith(word) for word in _MORE) else None


def measured(path: Path, objective: str) -> dict[int, float]:
    """What a training has logged of a measure so far: by optimizer step, finite values alone.

    Args:
        path: its ``metrics.csv``.
        objective: the column.

    Raises:
        ConfigurationError: there is no such column, though others of validation.
    """
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    columns = [name for name in reader.fieldnames or () if name.startswith("val/")]
    if objective not in (reader.fieldnames or ()) and columns:
        hint = did_you_mean(objective, columns, f"there are {', '.join(columns)}")
        raise ConfigurationError(f"hydra.sweeper.objective={objective} is not logged: {hint}")
    values: dict[int, float] = {}
    for row in rows:
        with contextlib.suppress(ValueError, TypeError):  # a row that is being written
            step, value = int(row["step"]), float(row[objective])
            if math.isfinite(value):
                values[step] = value
    return values


class Search:
    """A search; see the module.

    Args:
        settings: ``hydra.sweeper`` of the composed configuration, plain.
        space: what is searched.
        fixed: all other settings, as a person would type them again, without ``output``.
        folder: of the search; trial N is in its folder N.
        runner: runs trials.
        evaluates: whether trials score the test split, as the best shall when it is trained anew.

    Raises:
        MachineError: Optuna is not installed.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        space: Sequence[Dimension],
        fixed: Sequence[str],
        folder: Path,
        runner: Runner,
        *,
        evaluates: bool = True,
    ) -> None:
        try:
            import optuna
        except ImportError as error:
            raise MachineError(
                "hydra/sweeper=optuna needs Optuna: pip install 'deblur_lab[search]'"
            ) from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self._settings = settings
        self._space = {dimension.key: dimension for dimension in space}
        self._fixed = tuple(fixed)
        self._folder = folder
        self._runner = runner
        self._evaluates = evaluates
        direction = settings["direction"]
        objective = settings["objective"]
        self._direction: Literal["maximize", "minimize"] = (
            "maximize"
            if (direction_of(objective) if direction == "auto" else direction) == "maximize"
            else "minimize"
        )
        self._pruned: set[int] = set()
        self._console = Console(highlight=False, soft_wrap=True)

    def run(self) -> int:
        """Search, and print and write what was found.

        Returns:
            0, or the exit code of the first trial that failed otherwise than by diverging.

        Raises:
            ConfigurationError: the folder has another search, or another process searches in it.
            SystemExit: a trial was stopped by a signal: the same command goes on.
        """
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        with FolderLock(self._folder, f"output={self._folder}"):
            self._study = self._opened()
            wanted = self._settings["trials"]
            before = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]
            if before:
                self._say(f"going on with {self._folder}: {len(before)} of {wanted} trials are done")
            while batch := self._next(wanted):
                self._run(batch)
            self._write()
            self._show()
        codes = [trial.user_attrs.get("exit_code", 0) for trial in self._study.get_trials(deepcopy=False)]
        return next((code for code in codes if code not in (0, DivergedError.exit_code)), 0)

    def _opened(self) -> "optuna.Study":
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        path = self._folder / JOURNAL
        _mend(path)
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))
        study = self._optuna.create_study(
            storage=storage, study_name=_NAME, direction=self._direction, load_if_exists=True
        )
        about = {
            "searched": {key: repr(dimension) for key, dimension in self._space.items()},
            "settings": sorted(self._fixed),
            **{key: self._settings[key] for key in ("objective", "of", "seed", "startup_trials")},
            "direction": self._direction,
        }
        known = study.user_attrs.get("about")
        differing = [key for key in about if known is not None and known.get(key) != about[key]]
        found = any(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False))
        if known is None:
            others = [
                path for path in self._folder.iterdir() if path.name.isdecimal() or path.name in _OTHERS
            ]
            if others:
                raise ConfigurationError(
                    f"output={self._folder} holds {others[0].name}, and no search: name another folder"
                )
        if known is None or (not found and set(differing) <= {"objective", "of"}):
            study.set_user_attr("about", about)  # where a measure was meant that there is not, too
        elif differing:
            told = "; ".join(f"{key}: {_differs(known.get(key), about[key])}" for key in differing)
            raise ConfigurationError(
                f"output={self._folder} holds another search ({told}): type what was typed then, or name "
                "another folder"
            )
        return study

    def _next(self, wanted: int) -> list["optuna.trial.Trial"]:
        """The trials to be run: those that were begun and did not end, or new ones; none if all is done."""
        optuna, study = self._optuna, self._study
        trials = study.get_trials(deepcopy=False)
        begun = [trial for trial in trials if not trial.state.is_finished()]
        if begun:
            return [optuna.trial.Trial(study, trial._trial_id) for trial in begun]
        space = {key: dimension.distribution() for key, dimension in self._space.items()}
        asked = []
        for number in range(len(trials), min(wanted, len(trials) + self._settings["at_once"])):
            # Of the trial: a search that goes on proposes what it would have proposed without the break.
            study.sampler = optuna.samplers.TPESampler(
                seed=self._settings["seed"] * 1_000_003 + number & 0xFFFFFFFF,
                n_startup_trials=self._settings["startup_trials"],
                constant_liar=self._settings["at_once"] > 1,
            )
            asked.append(study.ask(fixed_distributions=space))
        return asked

    def _texts(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(dimension.setting(params[key]) for key, dimension in self._space.items())

    def _run(self, trials: Sequence["optuna.trial.Trial"]) -> None:
        by_number = {trial.number: trial for trial in trials}
        jobs = []
        for trial in trials:
            texts = self._texts(trial.params)
            twin = self._twin(trial.number, texts)
            if twin is not None:
                self._say(f"trial {trial.number + 1}: {' '.join(texts)}: as trial {twin.number + 1}")
                trial.set_user_attr("as", twin.number)
                self._study.tell(trial.number, twin.values[0])
                continue
            self._say(f"trial {trial.number + 1} of {self._settings['trials']}: {' '.join(texts)}")
            jobs.append(Asked(trial.number, texts, self._folder / str(trial.number)))
        if not jobs:
            return
        stopped = 0
        with self._watching(by_number[jobs[0].number], jobs[0].folder):
            for number, code in self._runner(jobs):
                folder = self._folder / str(number)
                stopped = self._tell(by_number[number], folder, code) or stopped
                self._write()
        if stopped:
            self._say(f"the same command goes on with {self._folder}")
            raise SystemExit(stopped)

    def _twin(self, number: int, texts: tuple[str, ...]) -> "optuna.trial.FrozenTrial | None":
        """A trial that is done and had the same settings: it would come to the same."""
        state = self._optuna.trial.TrialState.COMPLETE
        done = self._study.get_trials(deepcopy=False, states=(state,))
        return next(
            (trial for trial in done if trial.number != number and self._texts(trial.params) == texts), None
        )

    def _tell(self, trial: "optuna.trial.Trial", folder: Path, code: int) -> int:
        """Write down how a trial ended.

        Returns:
            The exit code if a signal stopped it, and it is to be gone on with; else 0.
        """
        state = self._optuna.trial.TrialState
        number, objective = trial.number, self._settings["objective"]
        if number in self._pruned:
            self._study.tell(number, state=state.PRUNED)
            self._say(f"trial {number + 1}: pruned, being worse than half of those before it")
            return 0
        if code in _SIGNALS:
            return code
        values = measured(folder / CURVES, objective) if code == 0 else {}
        if values:
            value = self._value(values)
            self._study.tell(number, value)
            self._say(f"trial {number + 1}: {objective} {value:.6g}")
            return 0
        why = f"failed with exit code {code}" if code else f"failed: it logged no {objective}"
        trial.set_user_attr("exit_code", code or ConfigurationError.exit_code)
        self._study.tell(number, state=state.FAIL)
        self._say(f"trial {number + 1}: {why}")
        return 0

    def _value(self, values: Mapping[int, float]) -> float:
        if self._settings["of"] == "last":
            return values[max(values)]
        return max(values.values()) if self._direction == "maximize" else min(values.values())

    @contextlib.contextmanager
    def _watching(self, trial: "optuna.trial.Trial", folder: Path) -> Iterator[None]:
        """Prunes a trial that runs in this process, by the way in which a person would stop it."""
        if self._settings["pruning"] == "none":
            yield
            return
        self._study.pruner = self._optuna.pruners.MedianPruner()
        over = threading.Event()
        lock = threading.Lock()

        def look() -> None:
            known: set[int] = set()
            while not over.wait(_LOOK_EVERY_S):
                with contextlib.suppress(ConfigurationError):  # told when it has ended
                    values = measured(folder / CURVES, self._settings["objective"])
                    for step in sorted(set(values) - known):
                        trial.report(values[step], step)
                    known |= set(values)
                if not known or not trial.should_prune():
                    continue
                with lock:
                    if not over.is_set():
                        self._pruned.add(trial.number)
                        os.kill(os.getpid(), signal.SIGTERM)
                return

        thread = threading.Thread(target=look, daemon=True, name="pruning")
        thread.start()
        try:
            yield
        except Terminated:
            if trial.number not in self._pruned:
                raise
            self._tell(trial, folder, STOPPED_BY_SIGTERM)
        finally:
            with lock:
                over.set()
            thread.join()

    def _write(self) -> None:
        """``search.json``: what was tried, and what was best."""
        trials = []
        for trial in self._study.get_trials(deepcopy=False):
            same = trial.user_attrs.get("as")
            folder = self._folder / str(trial.number if same is None else same)
            trials.append(
                {
                    "number": trial.number,
                    "settings": list(self._texts(trial.params)),
                    "folder": str(folder),
                    "status": _STATUS[trial.state.name],
                    "value": trial.values[0] if trial.state.name == "COMPLETE" else None,
                    "exit_code": trial.user_attrs.get("exit_code", 0),
                }
            )
        done = [trial for trial in trials if trial["value"] is not None]
        best = None
        if done:
            better = max if self._direction == "maximize" else min
            found = better(done, key=lambda trial: float(str(trial["value"])))
            best = {**found, "command": self._command(found["settings"])}
        write_json(
            self._folder / RESULTS,
            {
                **{key: self._settings[key] for key in ("objective", "of", "seed")},
                "direction": self._direction,
                "settings": list(self._fixed),
                "best": best,
                "trials": trials,
            },
        )

    def _command(self, settings: Sequence[str]) -> str:
        """What trains anew with some settings, scores the test split and has a folder of its own."""
        other = ("evaluate", "output")
        fixed = [one for one in self._fixed if one.lstrip("+~").partition("=")[0] not in other]
        more = [*([] if self._evaluates else ["evaluate=true"]), f"output={self._folder / _BEST}"]
        return shlex.join(["python", "-m", "deblur_lab.train", *fixed, *settings, *more])

    def _show(self) -> None:
        found = json.loads((self._folder / RESULTS).read_text(encoding="utf-8"))
        table = Table(title=f"{found['objective']} ({found['of']} validation), the best first")
        for column in ("trial", "settings"):
            table.add_column(column, overflow="fold")
        for column in ("value", "status"):
            table.add_column(column, justify="right")
        sign = -1.0 if self._direction == "maximize" else 1.0
        for trial in sorted(
            found["trials"], key=lambda trial: math.inf if trial["value"] is None else sign * trial["value"]
        ):
            failed = f" ({trial['exit_code']})" if trial["exit_code"] else ""
            table.add_row(
                str(trial["number"] + 1),
                " ".join(trial["settings"]),
                "-" if trial["value"] is None else f"{trial['value']:.6g}",
                f"{trial['status']}{failed}",
            )
        self._console.print(table)
        if found["best"] is None:
            self._say(f"no trial came to {found['objective']}; all is in {self._folder}")
            return
        self._say(
            f"the best is trial {found['best']['number'] + 1}, in {found['best']['folder']}; trained anew by"
        )
        self._say(f"  {found['best']['command']}")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False)


def _mend(path: Path) -> None:
    """Take away what a kill left of writing to a journal: its lock, and a line that is not whole.

    The folder is this process's alone.
    """
    with writing(path):
        path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
        if path.is_file():
            whole = path.read_bytes().rpartition(b"\n")
            if whole[2]:
                with path.open("rb+") as file:
                    file.truncate(len(whole[0]) + len(whole[1]))


_STATUS = {
    "COMPLETE": "finished",
    "FAIL": "failed",
    "PRUNED": "pruned",
    "RUNNING": "stopped",
    "WAITING": "not run",
}


def _differs(before: Any, now: Any) -> str:  # noqa: ANN401 - plain
    if isinstance(before, list) and isinstance(now, list):
        gone, new = [x for x in before if x not in now], [x for x in now if x not in before]
        return f"{' '.join(gone) or 'nothing'} -> {' '.join(new) or 'nothing'}"
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return ", ".join(keys)
    return f"{before} -> {now}"
