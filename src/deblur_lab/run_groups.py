"""What runs are grouped by where many stand side by side: their sweep, their model, their data."""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deblur_lab.budgets import BUDGET, NOT_SET
from deblur_lab.model_names import model_name
from deblur_lab.search import JOURNAL
from deblur_lab.stages import STAGES
from deblur_lab.sweep_jobs import SWEEP

ID_FILE, GROUP_FILE = Path("wandb") / "run_id", Path("wandb") / "run_group"
"""Hold a run's id and its group at W&B, below the run's folder, so that it goes on as it began."""

# W&B takes longer names, but no table has room for them.
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Place:
    """Where a run stands among others, by the folders around it.

    Attributes:
        group: the name of its sweep's folder, or of the training that it is a stage of; None of a run that
            stands alone.
        name: its own: of a job of a sweep the settings that tell it from the others, else its folder's.
        job: its number in a sweep, from 0, which is the name of its folder; None if it is of none.
        stage: its name; None if it is no stage.
    """

    group: str | None
    name: str
    job: int | None = None
    stage: str | None = None


def place_of(folder: Path) -> Place:
    """Where a run stands among others."""
    here = folder.resolve()
    if here.parent.name == STAGES:
        whole = place_of(here.parent.parent)
        stage = here.name.partition("-")[2] or here.name
        if whole.job is None:
            return Place(whole.group or whole.name, here.name, stage=stage)
        return Place(whole.group, _short(f"{whole.name} {here.name}"), whole.job, stage)
    around = here.parent
    if here.name.isdecimal() and any((around / name).is_file() for name in (SWEEP, JOURNAL)):
        own = " ".join(_own_settings(around / SWEEP, here.name))
        return Place(around.name, _short(own) or f"{around.name}/{here.name}", int(here.name))
    return Place(None, here.name)


def group_of(folder: Path) -> str | None:
    """The group that a run has at W&B, or would have; None if it has none.

    A folder of a whole sweep has that of its jobs.
    """
    if (folder / SWEEP).is_file() or (folder / JOURNAL).is_file():
        return folder.resolve().name
    return kept_group(folder) or place_of(folder).group


def kept_group(folder: Path) -> str | None:
    """The group in which a run was recorded at W&B; None if it was in none, or not recorded."""
    return _kept(folder, GROUP_FILE)


def kept_id(folder: Path) -> str | None:
    """The id of a run's own run at W&B; None if it was not recorded."""
    return _kept(folder, ID_FILE)


def common_group(folders: Iterable[Path]) -> str | None:
    """The group that all of some runs have; None if they have several, or one has none."""
    groups = {group_of(folder) for folder in folders}
    return groups.pop() if len(groups) == 1 else None


def about_training(
    settings: Mapping[str, Any], trained_on: Sequence[str], folder: Path, *, is_last: bool = True
) -> dict[str, Any]:
    """What a training is grouped and filtered by; what there is none of is left out.

    Args:
        settings: of the training, resolved; of a stage its own.
        trained_on: the names of its training sets.
        folder: of the run.
        is_last: whether no stage follows; the model of one that others follow is told apart, so that its
            scores are not taken for those of a whole training.
    """
    net = settings["model"].get("net") or {}
    place = place_of(folder)
    budget = settings.get(BUDGET) or {}
    asked = [f"{budget[kind]} {kind}" for kind in NOT_SET if budget.get(kind) is not None]
    model = model_name(str(net.get("_target_", "")), net.get("sub_decoders"))
    found = {
        "model": model if is_last else f"{model}, stage {place.stage}",
        "data": " + ".join(trained_on),
        "seed": settings["seed"],
        "experiment": ", ".join(settings.get("experiment") or []),
        "budget": ", ".join(asked),
        "steps": settings["trainer"]["max_steps"],
        "job": place.job,
        "stage": place.stage,
    }
    return {name: value for name, value in found.items() if value not in (None, "")}


def _kept(folder: Path, name: Path) -> str | None:
    """What a file in a run's folder says; of a training in stages, that in the folder of its last stage."""
    stages = sorted(folder.glob(f"{STAGES}/*/"), key=lambda path: int(path.name.partition("-")[0] or 0))
    for place in (folder, *reversed(stages)):
        with contextlib.suppress(FileNotFoundError):
            return (place / name).read_text(encoding="utf-8").strip() or None
    return None


def _own_settings(path: Path, folder: str) -> list[str]:
    """The settings that tell a job from the others; none if the sweep's file does not say."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["jobs"]
        return next(([*map(str, row["own_settings"])] for row in rows if row["folder"] == folder), [])
    except (OSError, ValueError, KeyError, TypeError):
        return []  # a name is not worth an error: the run has its folder's


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."
