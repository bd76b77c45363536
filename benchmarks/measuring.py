"""What the benchmarks here share: made masks, calls timed in turn, their spread, what is told beside them."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SHORTEST_SAMPLE_S = 0.005  # a quicker call is repeated until it takes as long


def seconds(call: Callable[[], object], repeats: int = 1) -> float:
    """Mean time of one call."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def in_turn(calls: Mapping[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """Time calls one after the other, again and again, so that all meet the same load: seconds by name."""
    repeats = {}
    for name, call in calls.items():
        first = seconds(call)  # the first call pays for allocations
        usual = seconds(call, 2) if first < 10 * SHORTEST_SAMPLE_S else first
        repeats[name] = max(1, round(SHORTEST_SAMPLE_S / usual))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            times[name].append(seconds(call, repeats[name]))
    return times


def ratios(times: Mapping[str, Sequence[float]], over: str, under: str) -> list[float]:
    """The ratio of two calls within each turn."""
    return [above / below for above, below in zip(times[over], times[under], strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, extremes and quartiles; of a single value they are all that one."""
    quartiles = statistics.quantiles(values if len(values) > 1 else [*values] * 2, n=4, method="inclusive")
    numbers = {
        "median": statistics.median(values),
        "min": min(values),
        "quartile_1": quartiles[0],
        "quartile_3": quartiles[2],
        "max": max(values),
    }
    return {name: float(f"{number:.4g}") for name, number in numbers.items()}


def milliseconds(times: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """The spread of each call's times."""
    return {name: spread([1000 * value for value in values]) for name, values in times.items()}


def discs(size: tuple[int, int], share: float, radius_px: tuple[float, float], seed: int = 0) -> Tensor:
    """Discs, added until they cover a share of a picture of (height, width): (1, 1, H, W), 0 or 1."""
    height, width = size
    rng = np.random.default_rng(seed)
    mask = np.full(size, share >= 1)
    y, x = np.mgrid[:height, :width]
    while mask.mean() < share:
        row, column, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(*radius_px)
        mask |= (y - row) ** 2 + (x - column) ** 2 < radius**2
    return torch.from_numpy(mask)[None, None].float()


def parser(description: str) -> argparse.ArgumentParser:
    """A command line with what every benchmark takes: ``--turns``, ``--threads`` and ``--output``."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--output", type=Path, help="also write the JSON to this file")
    result.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: 2)")
    result.add_argument(
        "--turns", type=int, default=7, help="turns, each running everything once (default: 7)"
    )
    return result


def report(benchmark: str, arguments: argparse.Namespace, results: Mapping[str, Any]) -> None:
    """Print one JSON, with commit, versions and device beside the results, and write it where asked."""
    about = {
        "benchmark": benchmark,
        "commit": git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(git("status", "--porcelain")),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "device": {"processor": processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith(("MALLOC_", "OMP_"))
        },
        "turns": arguments.turns,
    }
    text = json.dumps({**about, **results}, indent=2)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text + "\n")


def git(*arguments: str) -> str | None:
    """What git says of the folder of this file, or None where it has nothing to say."""
    result = subprocess.run(
        ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return result.stdout.strip() if result.returncode == 0 else None


def processor() -> str:
    """The processor's model."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
