"""What runs leave behind, read back."""

import csv
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def results_of(folder: Path) -> list[dict[str, Any]]:
    """The results in a folder's ``scores.json``, a dataset each."""
    return json.loads((folder / "scores.json").read_text(encoding="utf-8"))["results"]


def checkpoint_of(folder: Path, name: str = "last") -> dict[str, Any]:
    """A checkpoint of a run."""
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def assert_same_state(one: Path, other: Path) -> None:
    """Of two runs: equal weights (and average), optimizer and schedule, to the last bit."""
    first, second = checkpoint_of(one), checkpoint_of(other)
    assert first["global_step"] == second["global_step"]
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        _assert_same(first[key], second[key], key)


def largest_difference(one: Path, other: Path) -> float:
    """Of the weights of two runs."""
    first, second = (checkpoint_of(folder)["state_dict"] for folder in (one, other))
    assert first.keys() == second.keys()
    return max(float((first[key] - second[key]).abs().max()) for key in first)


def _assert_same(one: Any, other: Any, where: str) -> None:
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            _assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, (first, second) in enumerate(zip(one, other, strict=True)):
            _assert_same(first, second, f"{where}[{number}]")
    elif isinstance(one, Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where
