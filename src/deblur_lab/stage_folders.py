"""The folders of a training in stages: which are done, where it begins, and what it leaves behind."""

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from deblur_lab import ranks
from deblur_lab.checkpoint_names import BEST, LAST, PREVIOUS
from deblur_lab.checkpoints import net_weights, read_checkpoint
from deblur_lab.config import build, plain
from deblur_lab.console import say
from deblur_lab.errors import DataError, MachineError
from deblur_lab.stages import Stage
from deblur_lab.writing import require_space, temporary_of, write_json, writing

COSTS = "costs.json"
# Stands in the folder of a stage that was not trained, as the whole began from a checkpoint of its net.
TAKEN = "taken.json"
# What the last stage leaves is what the whole leaves.
_RESULTS = ("metrics.csv", "measures.json", "scores.csv", "scores.json")
_PATIENCE_S = 600.0


def is_done(stage: Stage) -> bool:
    """Whether a stage was trained to its end, or a checkpoint stands for it."""
    taken = (stage.folder / TAKEN).is_file() and _last(stage).is_file()
    return taken or (stage.folder / COSTS).is_file()


def unfinished(stages: Sequence[Stage]) -> list[Stage]:
    """The stages that are still to be trained: those after the last that is done."""
    done = max((stage.number for stage in stages if is_done(stage)), default=0)
    return list(stages[done:])


def can_go_on(stage: Stage) -> bool:
    """Whether a stage has a checkpoint to go on from, be it whole or damaged."""
    return any((stage.folder / "checkpoints" / name).exists() for name in (LAST, PREVIOUS))


def clear(stage: Stage) -> None:
    """Remove the best checkpoint of a stage that was killed before its last one was saved."""
    (stage.folder / "checkpoints" / BEST).unlink(missing_ok=True)


def stage_held(stages: Sequence[Stage], checkpoint: Path, trusted: tuple[str, ...] = ()) -> Stage | None:
    """The stage that a checkpoint is the result of: the one whose net has the same tensors.

    Args:
        stages: of a training.
        checkpoint: the file.
        trusted: packages whose classes may be built.

    Returns:
        It; None if no stage's net has these tensors, or several have, or only the last one's.

    Raises:
        CheckpointError: the file cannot be read.
    """
    weights = {name: value.shape for name, value in net_weights(read_checkpoint(checkpoint)).items()}
    fitting = []
    for stage in stages:
        with torch.device("meta"):
            net = build(plain(stage.config)["model"]["net"], trusted, key=stage.typed("model.net"))
        if {name: value.shape for name, value in net.state_dict().items()} == weights:
            fitting.append(stage)
    return fitting[0] if len(fitting) == 1 and fitting[0].number < len(stages) else None


def begin(stages: Sequence[Stage], init_from: str | None, trusted: tuple[str, ...]) -> None:
    """Let a checkpoint that is the result of a stage stand for it, so that the next one is trained first.

    Where a run has begun already, nothing is done: it needs the file no more.

    Args:
        stages: of the training.
        init_from: the checkpoint, if one was named.
        trusted: packages whose classes may be built.

    Raises:
        CheckpointError: the file cannot be read.
        MachineError: it cannot be copied.
    """
    begun = any(can_go_on(stage) and not (stage.folder / TAKEN).is_file() for stage in stages)
    if init_from is None or begun or any(map(is_done, stages)):
        return
    path = Path(init_from)
    held = stage_held(stages, path, trusted)
    if held is None:
        return
    marker = held.folder / TAKEN
    if not ranks.is_first():
        _wait_for(_last(held))
        return
    require_space(held.whole, path.stat().st_size, "the checkpoint to begin with and others")
    # The marker first: a checkpoint without it would be one that the stage itself has reached.
    with writing(marker):
        marker.parent.mkdir(parents=True, exist_ok=True)
    write_json(marker, {"init_from": str(path)})
    _place(path, _last(held), by_link=False)
    say(f"{path} is what {held.title} leads to: it is not trained again")


def _last(stage: Stage) -> Path:
    return stage.folder / "checkpoints" / LAST


def _wait_for(path: Path) -> None:
    """Wait until the first process has written a file."""
    deadline = time.monotonic() + _PATIENCE_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise MachineError(
                f"the first process of the run has not written {path} within {_PATIENCE_S:g} s"
            )
        time.sleep(0.2)


def is_complete(whole: Path) -> bool:
    """Whether the results of the last stage stand in the folder of the whole, all of them."""
    return (whole / "checkpoints" / LAST).exists()


def put_results(last: Stage) -> None:
    """Put what the last stage left into the folder of the whole, without taking more space if that can be.

    What says that all is there comes last, so that a kill at any moment leaves the rest to be done.

    Raises:
        MachineError: it cannot be written.
    """
    pictures = sorted(path for path in (last.folder / "pictures").rglob("*") if path.is_file())
    checkpoints = [last.folder / "checkpoints" / name for name in (BEST, LAST)]
    for path in (*(last.folder / name for name in _RESULTS), *pictures, *checkpoints):
        if path.exists():
            _place(path, last.whole / path.relative_to(last.folder), by_link=True)


def _place(source: Path, target: Path, *, by_link: bool) -> None:
    temporary = temporary_of(target)
    with writing(target, source.stat().st_size):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            if not by_link:
                raise OSError
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, target)
        # Renaming one name of a file to another of the same file leaves both.
        temporary.unlink(missing_ok=True)


def rows_of(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """What each stage that was trained to its end took and reached; see `deblur_lab.stage_table.row_of`.

    Raises:
        DataError: somebody has damaged a file.
    """
    rows = []
    for path in (stage.folder / COSTS for stage in stages):
        if path.is_file():
            try:
                rows.append(json.loads(path.read_text(encoding="utf-8")))
            except ValueError as error:
                raise DataError(f"{path} is not JSON: {error}") from error
    return rows
