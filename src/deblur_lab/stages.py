"""A training in stages: each is a training of its own, and starts from what the one before it has reached."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from deblur_lab.config import did_you_mean
from deblur_lab.kinds import shown

STAGES = "stages"
# What a stage may set for itself; all else is the whole training's.
SETTINGS = (
    "model",
    "data",
    "datamodule",
    "trainer",
    "init_from",
    "val_every_steps",
    "checkpoint_every_steps",
    "evaluate",
    "pictures",
)
_NAME = re.compile(r"[A-Za-z]\w*")
_OUTPUT = "${output}"
# What a stage has left, by its name: stages that are left out change the numbers of folders.
_OF_STAGE = re.compile(r"(\$\{output\}/stages/)([A-Za-z]\w*)(?=/)")
# A fault begins with the key that it is about.
_KEY = re.compile(r"(there is no setting )?([a-z_]\w*(?:\.\w+|\[\d+\])*)")
_MEANT = re.compile(r"did you mean ([\w.]+)\?")


@dataclass(frozen=True)
class Stage:
    """One of several trainings that follow each other.

    Attributes:
        name: as it is typed, ``stages.NAME``.
        number: from 1.
        count: how many there are.
        whole: the folder of the whole training.
        own: what the stage sets for itself, plain, references as they stand.
        config: what it is trained by: the whole's settings and its own; references not resolved.
    """

    name: str
    number: int
    count: int
    whole: Path
    own: Mapping[str, Any]
    config: DictConfig

    @property
    def folder(self) -> Path:
        """Its own, that of an ordinary run."""
        return self.whole / STAGES / f"{self.number}-{self.name}"

    @property
    def title(self) -> str:
        """What it is called on the screen."""
        return f"stage {self.number} of {self.count}, {self.name}"

    def typed(self, key: str) -> str:
        """A setting's key as it is typed: the stage's own, where the stage sets it or what it is a part of.

        Args:
            key: dotted, as the stage's training knows it.
        """
        parts = re.sub(r"\[(\d+)\]", r".\1", key).split(".")
        own = _depth(self.own, parts)
        beside = 0 < own == len(parts) - 1  # of what it sets: if nobody sets it, it is its own mistake
        is_own = own == len(parts) or (beside and _depth(_plain(self.config), parts) < len(parts))
        return f"{STAGES}.{self.name}.{key}" if is_own else key

    def placed(self, fault: str) -> str:
        """A fault of the stage's training, with its key as it is typed."""
        found = _KEY.match(fault)
        if found is None or re.split(r"[.\[]", found[2])[0] not in self.config:
            return f"stage {self.name}: {fault}"
        key = self.typed(found[2])
        rest = fault[found.end() :]
        if key != found[2]:
            rest = _MEANT.sub(lambda meant: f"did you mean {self._beside(key, meant[1])}?", rest)
        return f"{found[1] or ''}{key}{rest}"

    def _beside(self, key: str, meant: str) -> str:
        """What may be meant, as it is typed, if it is a setting too and no argument alone."""
        return f"{STAGES}.{self.name}.{meant}" if meant.partition(".")[0] in key.split(".")[2:3] else meant


def _depth(node: Any, parts: Sequence[str]) -> int:  # noqa: ANN401 - any node
    """How far a key leads; what is in a list is there."""
    for depth, part in enumerate(parts):
        if isinstance(node, list):
            return len(parts)
        if not isinstance(node, Mapping) or part not in node:
            return depth
        node = node[part]
    return len(parts)


def in_its_stage(key: str) -> str:
    """A setting's key as the stage's training knows it, if it is one of a stage."""
    return re.sub(rf"^{STAGES}\.\w+\.", "", key)


def shape_faults(config: DictConfig) -> list[str]:
    """What keeps ``stages`` from being stages, one line each.

    Args:
        config: the whole training's.
    """
    stages = _plain(config)[STAGES]
    if not isinstance(stages, Mapping):
        return [f"{STAGES}={shown(stages)}: the names of stages are expected, each with what it sets"]
    found = []
    for name, own in stages.items():
        if not _NAME.fullmatch(str(name)):
            found.append(
                f"{STAGES}.{name}: a name of letters, digits and _ is expected, for it names a folder"
            )
        elif not isinstance(own, Mapping | None):
            found.append(f"{STAGES}.{name}={shown(own)}: settings are expected, as trainer.max_steps")
        else:
            found += [_no_setting(str(name), str(key), config) for key in own or {} if key not in SETTINGS]
    if not found:
        named = [name for _, name in _OF_STAGE.findall(json.dumps(_plain(config), default=str))]
        left_out = [name for name in named if name not in stages]
        found += [
            f"{STAGES}.{name} is left out, but what it leads to is needed: {_OUTPUT}/{STAGES}/{name}/... is "
            "referred to; give another file in its place"
            for name in dict.fromkeys(left_out)
        ]
    first = next(iter(stages), None)
    if not found and config.get("init_from") is not None and "init_from" in (stages[first] or {}):
        found.append(
            f"init_from={config.init_from}: the first stage sets {STAGES}.{first}.init_from: leave one out"
        )
    return found


def _no_setting(name: str, key: str, config: DictConfig) -> str:
    if key in config:
        return f"{STAGES}.{name}.{key} is a setting of the whole training: give it as {key}"
    known = [f"{STAGES}.{name}.{setting}" for setting in SETTINGS]
    hint = did_you_mean(f"{STAGES}.{name}.{key}", known, f"a stage sets {', '.join(SETTINGS)}")
    return f"there is no setting {STAGES}.{name}.{key}: {hint}"


def stages_of(config: DictConfig) -> list[Stage]:
    """The stages of a training, in their order.

    What a stage sets is merged into what the whole sets, before references are resolved; a node that names
    another class than the whole's takes its place altogether. Each but the first starts from the last
    checkpoint of the one before it, unless it sets ``init_from``. ``${output}`` is the whole's folder in all
    of them, but loggers write to the stage's own.

    Args:
        config: the whole training's, without faults of `shape_faults`.
    """
    whole = _plain(config)
    every: Mapping[str, Any] = whole[STAGES]
    base = {key: value for key, value in whole.items() if key != "hydra"} | {STAGES: {}}
    folder = Path(str(whole.get("output")))
    folders = {str(name): f"{number}-{name}" for number, name in enumerate(every, start=1)}

    def numbered(text: str) -> str:
        return _OF_STAGE.sub(lambda found: found[1] + folders.get(found[2], found[2]), text)

    stages: list[Stage] = []
    for number, (name, settings) in enumerate(every.items(), start=1):
        own = settings or {}
        merged = _rewritten(_merged(base, own), numbered)
        stage = Stage(str(name), number, len(every), folder, own, OmegaConf.create(merged))
        if stages and "init_from" not in own:
            before = stages[-1].folder.name
            stage.config.init_from = f"{_OUTPUT}/{STAGES}/{before}/checkpoints/last.ckpt"
        if isinstance(merged.get("logger"), Mapping):
            stage.config.logger = _loggers(merged["logger"], stage)
        stages.append(stage)
    return stages


def _plain(config: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(config, resolve=False)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _merged(below: Any, above: Any) -> Any:  # noqa: ANN401 - any node
    """A node with another laid over it, which wins."""
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    if "_target_" in above and below.get("_target_") not in (None, above["_target_"]):
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


def _rewritten(node: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - any node
    """A node, each text in it changed."""
    if isinstance(node, Mapping):
        return {key: _rewritten(value, change) for key, value in node.items()}
    if isinstance(node, list):
        return [_rewritten(value, change) for value in node]
    return change(node) if isinstance(node, str) else node


def unheard(config: DictConfig, typed: Sequence[str]) -> list[str]:
    """Settings that were typed for all stages, but that every stage sets for itself, one line each.

    Args:
        config: the whole training's, without faults of `shape_faults`.
        typed: as on the command line.
    """
    stages = stages_of(config)
    keys = [setting.lstrip("+~").partition("=")[0] for setting in typed]
    found = []
    for key in keys:
        mine = [stage.typed(key) for stage in stages]
        if mine and "." in key and all(name != key for name in mine):
            found.append(f"{key}= has no effect, as every stage sets its own: give {', '.join(mine)}")
    return found


def _loggers(loggers: Mapping[str, Any], stage: Stage) -> dict[str, Any]:
    """Loggers that write to a stage's folder."""
    own = f"{_OUTPUT}/{STAGES}/{stage.folder.name}"
    return dict(_rewritten(loggers, lambda text: text.replace(_OUTPUT, own)))
