"""The folder of a run: how a new one makes it its own, and from where and with what an old one goes on."""

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from deblur_lab.checkpoint_names import BEST, LAST, PREVIOUS
from deblur_lab.config import plain_leaves
from deblur_lab.errors import CheckpointError, ConfigurationError
from deblur_lab.images import quoted
from deblur_lab.stages import STAGES, in_its_stage
from deblur_lab.writing import replacing, writing

ASIDE = "aside.ckpt"
# What a resumed run may do differently without becoming another run.
CHANGEABLE_ON_RESUME = (
    "checkpoint_every_steps",
    "data.check_files",
    "data.follow_links",
    "data.micro_batch_size",
    "data.num_workers",
    "data.prepared",
    "data.root",
    "data.skip_unreadable",
    "data.worker_timeout_s",
    "data.gopro_root",
    "data.reloblur_root",
    "evaluate",
    "logger",
    "pictures",
    "trusted_packages",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.log_every_n_steps",
    "trainer.num_nodes",
)


@dataclass(frozen=True)
class Reached:
    """From where a run goes on.

    Attributes:
        checkpoint: the newest whole one.
        step: optimizer steps that it had done.
        record: what stands in the checkpoint about the run.
        passed_over: why newer ones were not taken; empty if this is the last.
    """

    checkpoint: Path
    step: int
    record: Mapping[str, Any]
    passed_over: str = ""


def newest_checkpoint(folder: Path) -> Reached:
    """The newest whole checkpoint of a run's folder, by the step that it holds.

    A damaged one is passed over. One that would run code is not: somebody put it there, and that is refused.

    Raises:
        CheckpointError: there is none, all are damaged, or one is refused.
    """
    # PyTorch takes seconds to load, and nothing else here needs it.
    from deblur_lab.checkpoints import RECORD_KEY, RefusedError, read_checkpoint

    there = [folder / "checkpoints" / name for name in (LAST, PREVIOUS)]
    there = [path for path in there if path.exists()]
    if not there:
        raise CheckpointError(
            f"resume={folder}: there is no checkpoints/{LAST} to go on from; it was stopped "
            "before its first: start it again, its folder is free"
        )
    damage = []
    # What cannot even be asked for its step is looked at first.
    for path in sorted(there, key=_step_said, reverse=True):
        try:
            contents = read_checkpoint(path)
        except RefusedError:
            raise
        except CheckpointError as error:
            damage.append(str(error).removeprefix("checkpoint "))
            continue
        if not isinstance(contents.get("global_step"), int):
            raise CheckpointError(
                f"resume={folder}: {quoted(path)} is not the checkpoint of a run: it has no global_step"
            )
        step = contents["global_step"]
        if path.name != LAST and not damage:
            last = folder / "checkpoints" / LAST
            older = f"{quoted(last)} is of step {_step_said(last):.0f} alone"
            damage.append(older if last.exists() else f"there is no {quoted(last)}")
        return Reached(path, step, contents.get(RECORD_KEY, {}), "; ".join(damage))
    best = folder / "checkpoints" / BEST
    advice = f"start anew, perhaps with init_from={best}" if best.exists() else "start anew"
    raise CheckpointError(f"resume={folder}: no checkpoint is whole: {'; '.join(damage)}; {advice}")


def _step_said(path: Path) -> float:
    """The step of a checkpoint whose weights are not read; infinity where it does not tell."""
    import torch

    try:
        return float(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except Exception:  # whatever a damaged file may cause
        return float("inf")


def set_aside(folder: Path, reached: Reached) -> None:
    """Keep a ``last.ckpt`` that was passed over as ``aside.ckpt``; it would next become the previous one."""
    last = folder / "checkpoints" / LAST
    if reached.checkpoint != last and last.exists():
        with writing(last):
            os.replace(last, last.with_name(ASIDE))


def claim(folder: Path, config: DictConfig) -> None:
    """Write ``config.yaml``, which makes a folder that of a run.

    Raises:
        ConfigurationError: it is one already.
        MachineError: it cannot be written.
    """
    path = folder / "config.yaml"
    if path.exists():
        raise holds_a_run(folder)
    with replacing(path) as file:
        OmegaConf.save(config, file)


def make_free(folder: Path) -> None:
    """See to it that a new run can have a folder: one that was stopped before its first checkpoint gives way.

    Call it while the folder is kept for the new run.

    Raises:
        ConfigurationError: it holds a run that can be gone on with.
    """
    if not (folder / "config.yaml").exists():
        return
    if has_saved(folder):
        raise holds_a_run(folder)
    release(folder)


def has_saved(folder: Path) -> bool:
    """Whether a run, or one of its stages, has saved a checkpoint."""
    return any(any(folder.glob(f"{place}checkpoints/*.ckpt")) for place in ("", f"{STAGES}/*/"))


def release(folder: Path) -> None:
    """Take back what a run has written that was stopped by a mistake before its first checkpoint."""
    for name in ("config.yaml", "metrics.csv"):
        (folder / name).unlink(missing_ok=True)
    stages = folder / STAGES
    for stage in stages.iterdir() if stages.is_dir() else ():
        if stage.is_dir():
            release(stage)
    for empty in (folder / "checkpoints", *stages.glob("*"), stages):
        with contextlib.suppress(OSError):
            empty.rmdir()


def holds_a_run(folder: Path) -> ConfigurationError:
    """What is said where a new run is to write to the folder of an old one."""
    return ConfigurationError(
        f"output={folder} holds a run already: go on with it by resume={folder}, or name another folder"
    )


def run_of(resume: str) -> Path:
    """The folder that ``resume=`` names.

    Raises:
        ConfigurationError: it is not that of a run.
    """
    folder = Path(resume)
    if folder.is_file():
        run = folder.parent.parent if folder.parent.name == "checkpoints" else folder.parent
        run = _whole_of(run) or run
        hint = f", resume={run}" if (run / "config.yaml").is_file() else ""
        raise ConfigurationError(f"resume={folder} is a file: name the folder of the run{hint}")
    if not (folder / "config.yaml").is_file():
        hint = f": did you mean resume={folder.parent}?" if (folder.parent / "config.yaml").is_file() else ""
        raise ConfigurationError(
            f"resume={folder} is not the folder of a run: there is no config.yaml in it{hint}"
        )
    whole = _whole_of(folder)
    if whole is not None:
        raise ConfigurationError(
            f"resume={folder} is one stage of a training: go on with the whole, by resume={whole}"
        )
    return folder


def _whole_of(folder: Path) -> Path | None:
    """The training that a run is a stage of; None if it is of none."""
    place = folder.absolute()
    config = place.parent.parent / "config.yaml"
    if place.parent.name != STAGES or not config.is_file():
        return None
    with contextlib.suppress(Exception):  # damaged, or not ours
        stages = DictConfig(OmegaConf.load(config)).get(STAGES) or {}
        if any(place.name.endswith(f"-{name}") for name in stages):
            return folder.parent.parent
    return None


def resumed_settings(
    saved: DictConfig, composed: DictConfig, typed: Sequence[str], changeable: Sequence[str]
) -> list[str]:
    """Bring what was typed beside ``resume=`` into the configuration of a run.

    Args:
        saved: the run's; is changed.
        composed: what was typed, and the defaults of what was not.
        typed: the arguments, as Hydra lists them.
        changeable: the keys, and those of whole groups, that do not make it another run.

    Returns:
        The settings that differ, each with its old and its new value.

    Raises:
        ConfigurationError: one of them would make it another run; shows all such.
    """
    accepted, refused = [], []
    for key in _keys(typed, composed):
        if key in ("resume", "output"):
            if key == "output" and OmegaConf.select(composed, key) not in (
                None,
                OmegaConf.select(saved, key),
            ):
                refused.append(
                    _difference(key, OmegaConf.select(saved, key), OmegaConf.select(composed, key))
                )
            continue
        old, new = _leaves(saved, key), _leaves(composed, key)
        differing = [name for name in {**old, **new} if old.get(name, _UNSET) != new.get(name, _UNSET)]
        # What a choice leaves to be typed, and was not, stays as it is.
        differing = [name for name in differing if new.get(name) != "???"]
        told = [_difference(name, old.get(name, _UNSET), new.get(name, _UNSET)) for name in differing]
        if all(_may_change(name, changeable) and _has(saved, name, changeable) for name in differing):
            if key in changeable:  # a whole group, as the loggers, of which some may go
                OmegaConf.update(saved, key, OmegaConf.select(composed, key), merge=False)
            else:
                for name in differing:
                    OmegaConf.update(saved, name, new[name], force_add=True)
            accepted += told
        else:
            refused += told
    if refused:
        raise ConfigurationError(
            f"{_few(refused)} would make this another run; with resume= only these may change: "
            + ", ".join(changeable)
        )
    return accepted


_UNSET = "not set"
# Where a run writes and began, and what is made of other settings.
_NOT_OF_THE_RUN = ("output", "resume", "init_from", "datamodule")
_FOLLOWS_WHAT_MAY_CHANGE = re.compile(r"data\.sources\[\d+\]\.(root|follow_links)")


def require_same_settings(
    folder: Path, reached: Reached, settings: Mapping[str, Any], changeable: Sequence[str]
) -> None:
    """See that nobody has edited ``config.yaml`` into that of another run since the checkpoint was saved.

    Args:
        folder: of the run.
        reached: from where it goes on.
        settings: what it is to go on with, plain.
        changeable: as in `resumed_settings`.

    Raises:
        ConfigurationError: somebody has; shows the differences.
    """
    moved = str(reached.record.get("config", settings).get("output")), str(settings.get("output"))
    before, now = (
        lasting(
            {
                name: _moved(value, *moved)
                for key, node in config.items()
                if key not in _NOT_OF_THE_RUN
                for name, value in plain_leaves(node, key).items()
            },
            changeable,
        )
        for config in (reached.record.get("config", settings), settings)
    )
    told = differences(before, now)
    if told:
        raise ConfigurationError(
            f"{folder / 'config.yaml'} was edited since {reached.checkpoint.name} was saved: {told}; "
            f"put it back, or start a new run with init_from={reached.checkpoint}"
        )


def lasting(settings: Mapping[str, Any], changeable: Sequence[str]) -> dict[str, Any]:
    """Those settings, by dotted key, that a resumed run may not change.

    Args:
        settings: of a run, by dotted key.
        changeable: as in `resumed_settings`.
    """
    return {
        name: value
        for name, value in settings.items()
        if not _may_change(name, changeable) and not _FOLLOWS_WHAT_MAY_CHANGE.fullmatch(name)
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two runs' settings, by dotted key, in words; empty if nothing does."""
    return _few(
        [
            _difference(name, before.get(name, _UNSET), now.get(name, _UNSET))
            for name in {**before, **now}
            if before.get(name, _UNSET) != now.get(name, _UNSET)
        ]
    )


def _moved(value: Any, before: str, now: str) -> Any:  # noqa: ANN401 - any plain value
    """A value, or the file of the run's folder that it names, where that folder is now."""
    inside = isinstance(value, str) and value.startswith(f"{before}/")
    return f"{now}{value.removeprefix(before)}" if inside else value


def _few(told: Sequence[str]) -> str:
    return ", ".join(told[:5]) + (f" and {len(told) - 5} more" if len(told) > 5 else "")


def _keys(typed: Sequence[str], composed: DictConfig) -> list[str]:
    """What arguments set; an experiment may set anything."""
    keys: list[str] = []
    for argument in typed:
        key = argument.lstrip("+~").partition("=")[0].partition("@")[0].replace("/", ".")
        if key == "experiment":
            keys += [
                str(name) for name in composed if name not in ("resume", "output", "hydra", "experiment")
            ]
        else:
            keys.append(key)
    return list(dict.fromkeys(keys))


def _leaves(config: DictConfig, key: str) -> dict[str, Any]:
    node = OmegaConf.select(config, key, throw_on_missing=False, throw_on_resolution_failure=False)
    if not OmegaConf.is_config(node):
        return {key: node} if _holds(config, key) else {}
    return plain_leaves(OmegaConf.to_container(node, resolve=False), key)


def _holds(config: DictConfig, key: str) -> bool:
    """Whether there is such a setting, be it null or not."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return isinstance(node, DictConfig) and name in list(node)


def _may_change(name: str, changeable: Sequence[str]) -> bool:
    plain = in_its_stage(name)
    return any(plain == key or plain.startswith(f"{key}.") for key in changeable)


def _has(saved: DictConfig, name: str, changeable: Sequence[str]) -> bool:
    """Whether a run knows a setting, or the group that it belongs to, as a logger to ``logger``."""
    plain = in_its_stage(name)
    if plain != name:
        return _holds(saved, ".".join(name.split(".")[:2])) and _has(saved, plain, changeable)
    return _holds(saved, name) or any(name.startswith(f"{key}.") and _holds(saved, key) for key in changeable)


def _difference(name: str, old: Any, new: Any) -> str:  # noqa: ANN401
    def shown(value: Any) -> str:  # noqa: ANN401
        return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

    return f"{name}: {shown(old)} -> {shown(new)}"


def other_machine(record: Mapping[str, Any], made_by: Mapping[str, Any]) -> str | None:
    """What a run goes on with that it was not begun with, in words; None if nothing differs.

    Args:
        record: of its checkpoint.
        made_by: what `provenance` says of now.
    """
    names = {"version": "deblur_lab", "commit": "commit", "torch": "PyTorch", "hardware": "machine"}
    differing = [
        f"{shown} {record.get(key)} -> {made_by.get(key)}"
        for key, shown in names.items()
        if key in record and record.get(key) != made_by.get(key)
    ]
    if not differing:
        return None
    return f"{', '.join(differing)}: weights may differ in the last digits from those of a run never stopped"
