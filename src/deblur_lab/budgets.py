"""Equal budgets: how long each of several models is trained so that all take the same steps or multiply-adds.

What counts is training: the optimizer steps on pictures, or the multiply-adds of the net in them
(`deblur_lab.net_costs.cost_of_training`). Validation and scoring are not in it, nor is what a checkpoint has
learnt before; that is said in words.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf

from deblur_lab.config import build, plain
from deblur_lab.errors import ConfigurationError
from deblur_lab.kinds import problems, shown
from deblur_lab.ranges import Count
from deblur_lab.stages import STAGES, in_its_stage, stages_of

BUDGET = "budget"
NOT_SET: Mapping[str, None] = {"steps": None, "multiply_adds": None}
_STEPS = "trainer.max_steps"
_WARM_UP = "model.scheduler.warmup_steps"
_NOT_OF_THE_NET = ("loss", "optimizer", "scheduler")
_counted: dict[str, int] = {}  # of a sample, by the settings of the net: each is asked for several times


@dataclass(frozen=True)
class Training:
    """One training, or one of several stages, as far as it counts.

    Attributes:
        name: of the stage; empty if there are none.
        config: what it is trained by.
        steps: optimizer steps of its recipe.
        batch_size: samples in one of them.
        patch_size_px: of what it sees of pictures; None if it looks at none.
    """

    name: str
    config: DictConfig
    steps: int
    batch_size: int
    patch_size_px: int | None

    def multiply_adds_of_a_step(self) -> int:
        """What one optimizer step takes.

        Raises:
            ConfigurationError: the task cannot be built.
            RuntimeError: PyTorch's, of a net that cannot run without numbers.
            TypeError: likewise.
        """
        # Their imports take seconds: only where multiply-adds are asked for.
        import torch

        from deblur_lab.net_costs import cost_of_training

        settings = plain(
            OmegaConf.masked_copy(self.config, [str(key) for key in self.config if key != "hydra"])
        )
        of_the_net = {key: node for key, node in settings["model"].items() if key not in _NOT_OF_THE_NET}
        key = json.dumps([of_the_net, self.patch_size_px], default=str)
        if key not in _counted:
            with torch.device("meta"):
                task = build(settings["model"], tuple(settings["trusted_packages"]), key="model")
                _counted[key] = cost_of_training(task, self.patch_size_px or 0)
        return self.batch_size * _counted[key]


@dataclass
class Spent:
    """What trainings take together.

    Attributes:
        steps: optimizer steps on pictures.
        patches: seen in them.
        multiply_adds: of all of it, stages that look at no pictures included; None where a net cannot be
            counted without running it.
        besides: what is not in these numbers, in words.
    """

    steps: int = 0
    patches: int = 0
    multiply_adds: int | None = 0
    besides: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """As plain containers."""
        numbers = {"steps": self.steps, "patches": self.patches, "multiply_adds": self.multiply_adds}
        return {**numbers, **({"besides": self.besides} if self.besides else {})}


def asked(config: DictConfig) -> tuple[str, int] | None:
    """The budget that a configuration sets: its kind, and how much; None if it sets none, or a faulty one."""
    budget = config.get(BUDGET) or {}
    given = [(kind, budget[kind]) for kind in NOT_SET if budget.get(kind) is not None]
    if len(given) != 1:
        return None
    kind, amount = given[0]
    is_count = isinstance(amount, int) and not isinstance(amount, bool) and amount >= 1
    return (kind, amount) if is_count else None


def shape_faults(budget: Any) -> list[str]:  # noqa: ANN401 - as typed
    """What keeps ``budget`` from being one, or from being none, one line each."""
    if not isinstance(budget, Mapping):
        return [f"{BUDGET}={shown(budget)}: budget.steps=N or budget.multiply_adds=N is expected"]
    found = [
        fault for kind in NOT_SET for fault in problems(budget.get(kind), Count | None, f"{BUDGET}.{kind}")
    ]
    found += [
        f"there is no setting {BUDGET}.{kind}: there are {', '.join(NOT_SET)}"
        for kind in budget
        if kind not in NOT_SET
    ]
    given = [f"{BUDGET}.{kind}={budget[kind]}" for kind in NOT_SET if budget.get(kind) is not None]
    if len(given) > 1:
        found.append(f"{' and '.join(given)} exclude each other: leave one out")
    return found


def typed_faults(config: DictConfig, settings: Sequence[str]) -> list[str]:
    """What was given beside a budget that decides, one line each.

    Args:
        config: composed.
        settings: of the run, as they are typed or swept over.
    """
    budget = asked(config)
    if budget is None:
        return []
    found = []
    for setting in settings:
        key, _, value = setting.lstrip("+~").partition("=")
        of_stage, alone = key != in_its_stage(key), in_its_stage(key)
        if alone == _STEPS:
            found.append(
                f"{key}={value} and budget.{budget[0]}={budget[1]} exclude each other: leave one out"
            )
        elif of_stage and alone.partition(".")[0] == "data" and _looks_at_pictures(config, key):
            found.append(
                f"{key}={value}: under budget.{budget[0]} all stages see the same patches: give "
                f"{alone}={value}"
            )
    return found


def _looks_at_pictures(config: DictConfig, key: str) -> bool:
    name = key.split(".")[1]
    return any(stage.name == name and "sources" in stage.config.datamodule for stage in stages_of(config))


def apply(config: DictConfig, typed: Sequence[str] = ()) -> list[str]:
    """Set how long a training, and each of its stages, goes on, by its budget; nothing without one.

    Stages share the budget in proportion to the steps that the recipe gives them, and those that look at
    pictures see patches as the whole training's ``data`` says. A warm-up keeps its share of the steps, in
    whole steps, rounded down; one that was typed stays as it is.

    Args:
        config: of ``conf/train.yaml``, composed and otherwise without faults; is changed.
        typed: the settings of the run, as they are typed or swept over.

    Returns:
        What became of the budget, in lines to print.

    Raises:
        ConfigurationError: it is too small, or a net cannot be counted.
    """
    budget = asked(config)
    if budget is None:
        return []
    kind, amount = budget
    lines = _give_stages_the_same_patches(config)
    trainings = trainings_of(config)
    costs = [_cost(training, kind) for training in trainings]
    share = amount / sum(cost * training.steps for cost, training in zip(costs, trainings, strict=True))
    steps = [int(share * training.steps + 1e-9) for training in trainings]
    # What rounding down has left goes to the last one, whose pictures are scored.
    left = amount - sum(cost * count for cost, count in zip(costs, steps, strict=True))
    steps[-1] += left // costs[-1] if costs[-1] else 0
    if min(steps) < 1:
        short = trainings[steps.index(min(steps))]
        what = f"stage {short.name}" if short.name else "one step"
        needed = f", which takes {costs[-1]}" if not short.name else " would have none"
        raise ConfigurationError(f"budget.{kind}={amount} is too small: {what}{needed}")
    keys = {setting.lstrip("+~").partition("=")[0] for setting in typed}
    every = _own_settings(config)
    warm_ups = []
    for training, count in zip(trainings, steps, strict=True):
        is_own = _holds(every.get(training.name), _WARM_UP)
        warm_up = _warm_up(training, count, keys, is_own=is_own)
        if warm_up is not None:
            warm_ups.append(f"{training.name} {warm_up[0]:,} -> {warm_up[1]:,}".strip())
        if training.name:
            own = every[training.name]
            own["trainer"] = {**own.get("trainer", {}), "max_steps": count}
            if warm_up is not None:
                _put(own, _WARM_UP, warm_up[1])
        else:
            config.trainer.max_steps = count
            if warm_up is not None:
                OmegaConf.update(config, _WARM_UP, warm_up[1])
    _replace_stages(config, every)
    changed = f"; warm-up, in steps: {', '.join(warm_ups)}" if warm_ups else ""
    return [*lines, f"{_told(kind, amount, trainings_of(config))}{changed}"]


def _warm_up(
    training: Training, steps: int, typed: Collection[str], *, is_own: bool
) -> tuple[int, int] | None:
    """The steps of warm-up that a recipe has, and those that it comes to; None where it stays as it is.

    Args:
        training: of the recipe.
        steps: that the training takes by its budget.
        typed: the keys that were.
        is_own: whether it is one of a stage that sets its warm-up itself, whatever the whole training does.
    """
    parts = _WARM_UP.split(".")
    # All of what it is a part of may be typed too, but `model` alone chooses a YAML.
    deciding = [f"{STAGES}.{training.name}.{'.'.join(parts[:depth])}" for depth in (1, 2, 3)]
    if not is_own:
        deciding += [".".join(parts[:depth]) for depth in (2, 3)]
    if not set(typed).isdisjoint(deciding):
        return None
    node: Any = training.config
    for part in parts:
        # What a reference leads to is not the recipe's own.
        if not OmegaConf.is_dict(node) or part not in node or OmegaConf.is_interpolation(node, part):
            return None
        node = None if OmegaConf.is_missing(node, part) else node[part]
    before = node
    if not isinstance(before, int) or isinstance(before, bool):
        return None
    now = before * steps // training.steps
    return None if now == before else (before, now)


def _holds(node: Any, key: str) -> bool:  # noqa: ANN401 - any plain node
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True


def _put(node: dict[str, Any], key: str, value: int) -> None:
    """Set what a dotted key leads to in plain nodes, which are not changed where others may have them."""
    first, _, rest = key.partition(".")
    if not rest:
        node[first] = value
        return
    node[first] = dict(node.get(first) or {})
    _put(node[first], rest, value)


def _cost(training: Training, kind: str) -> int:
    """What a step of a training takes of a budget."""
    if kind == "steps":
        return 0 if training.patch_size_px is None else 1
    try:
        return training.multiply_adds_of_a_step()
    except (RuntimeError, TypeError) as error:
        said = str(error).strip().partition("\n")[0]
        raise ConfigurationError(
            f"budget.multiply_adds: the net cannot be counted without running it ({said}): give budget.steps"
        ) from error


def trainings_of(config: DictConfig) -> list[Training]:
    """The stages of a training, or it alone, as far as they count.

    Args:
        config: of ``conf/train.yaml``, without faults in its stages.
    """
    if not config.get(STAGES):
        return [_training("", config)]
    return [_training(stage.name, stage.config) for stage in stages_of(config)]


def _training(name: str, config: DictConfig) -> Training:
    sees_pictures = "sources" in config.datamodule
    patch_size_px = config.data.patch_size if sees_pictures else None
    return Training(name, config, config.trainer.max_steps, config.data.batch_size, patch_size_px)


def spent(parts: Sequence[tuple[str, DictConfig]]) -> Spent:
    """What trainings that follow each other take, by their configurations.

    Args:
        parts: of each its name, empty if it is no stage, and what it is trained by.
    """
    total, before = Spent(), []
    for training in (_training(*part) for part in parts):
        before += _before(training.config)
        if training.patch_size_px is None:
            total.besides.append(
                f"{training.steps} steps of {training.name or 'a training'}, which looks at no pictures: "
                "they are in the multiply-adds alone"
            )
        else:
            total.steps += training.steps
            total.patches += training.steps * training.batch_size
        if total.multiply_adds is not None:
            try:
                total.multiply_adds += training.steps * training.multiply_adds_of_a_step()
            except (RuntimeError, TypeError):
                total.multiply_adds = None
    total.besides += dict.fromkeys(before)
    return total


def _before(config: DictConfig) -> list[str]:
    """What was trained before, elsewhere, in words."""
    output = f"{config.get('output')}/"
    found = []
    for key in ("init_from", "model.encoder.checkpoint"):
        value = OmegaConf.select(config, key, throw_on_missing=False, throw_on_resolution_failure=False)
        if value and not str(value).startswith(output):
            found.append(f"what {key}={value} has learnt before")
    return found


def _give_stages_the_same_patches(config: DictConfig) -> list[str]:
    """Let stages that look at pictures see what the whole training's data settings say."""
    every = _own_settings(config)
    lines = []
    for stage in stages_of(config):
        if "sources" in stage.config.datamodule and "data" in every[stage.name]:
            given = every[stage.name].pop("data")
            whole = OmegaConf.select(config, "data")
            differing = [f"data.{key}" for key, value in given.items() if whole.get(key) != value]
            if differing:
                keys = ", ".join(differing)
                lines.append(f"budget: stage {stage.name} takes the whole training's {keys}, not its own")
    _replace_stages(config, every)
    return lines


def _own_settings(config: DictConfig) -> dict[str, dict[str, Any]]:
    """What each stage sets for itself, references as they stand; to be changed."""
    if not config.get(STAGES):
        return {}
    every = OmegaConf.to_container(config[STAGES], resolve=False)
    assert isinstance(every, dict)
    return {str(name): dict(own or {}) for name, own in every.items()}


def _replace_stages(config: DictConfig, stages: Mapping[str, Any]) -> None:
    if not stages:
        return
    is_struct = OmegaConf.is_struct(config)
    OmegaConf.set_struct(config, False)
    config[STAGES] = stages
    OmegaConf.set_struct(config, is_struct)


def _told(kind: str, amount: int, trainings: Sequence[Training]) -> str:
    """What became of a budget."""
    of_stages = [f"{training.name} {training.steps:,}" for training in trainings if training.name]
    pictures = [training for training in trainings if training.patch_size_px is not None]
    patches = sum(training.steps * training.batch_size for training in pictures)
    steps = sum(training.steps for training in pictures)
    split = f" ({', '.join(of_stages)})" if of_stages else ""
    blind = [training.name for training in trainings if training.patch_size_px is None]
    counted = "its multiply-adds count" if kind == "multiply_adds" else "it does not count"
    said = f"; {', '.join(blind)} looks at no pictures: {counted}" if blind else ""
    return f"budget.{kind}={amount}: {steps:,} steps{split}, {patches:,} patches{said}"
