"""What the settings of several runs differ in, and how it is written."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from deblur_lab.run_folders import CHANGEABLE_ON_RESUME
from deblur_lab.stages import in_its_stage

# Where and by whom a run is done, and what is made of other settings: not what is compared.
_NOT_COMPARED = (
    "datamodule",
    "experiment",
    "output",
    "resume",
    "seed",
    *(key for key in CHANGEABLE_ON_RESUME if not key.endswith("root")),
)
# The task and the loss follow from the net where they differ with it.
_FOLLOW_THE_NET = ("model._target_", "model.loss._target_")
_GROUPS = ("model.net.", "model.", "data.", "trainer.")
UNSET = "not set"
"""The value of a setting that a run does not have."""


def differing(settings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The dotted keys that several runs do not all have the same value of.

    Seeds are left out, and what says where and by whom a run is done. Of classes that differ, their own
    arguments are left out.
    """
    keys = dict.fromkeys(key for one in settings for key in one)
    found = [
        key
        for key in keys
        if not any(f"{in_its_stage(key)}.".startswith(f"{other}.") for other in _NOT_COMPARED)
        if len({typed(one.get(key, UNSET)) for one in settings}) > 1
    ]
    classes = [key.removesuffix("_target_") for key in found if key.endswith("._target_")]
    found = [
        key
        for key in found
        if key.endswith("._target_")
        or all(key in one for one in settings)
        or not any(key.startswith(place) for place in classes)
    ]
    if "model.net._target_" in found:
        found = [key for key in found if key not in _FOLLOW_THE_NET]
    return tuple(found)


def typed(value: Any) -> str:  # noqa: ANN401 - any plain value
    """A value as it is typed; of a class its name.

    >>> typed([1, 2]), typed(True), typed("deblur_lab.models.LinearTrajectory")
    ('[1,2]', 'true', 'LinearTrajectory')
    """
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(typed, value))}]"
    is_class = isinstance(value, str) and re.fullmatch(r"(\w+\.)+[A-Z]\w*", value)
    return value.rpartition(".")[2] if is_class else str(value)


def shortened(key: str) -> str:
    """A dotted key without the group that it belongs to; of a class what it is the class of.

    >>> shortened("model.net.trajectory._target_"), shortened("model.loss.mask"), shortened("seed")
    ('trajectory', 'loss.mask', 'seed')
    """
    key = key.removesuffix("._target_")
    group = next((group for group in _GROUPS if key.startswith(group)), "")
    return key.removeprefix(group)
