"""Time `LayerNorm2d` against the plain formula on a CPU; print one JSON.

    python benchmarks/layernorm.py [--rounds 20] [--threads 2] [--output FILE]

Three contenders, checked against each other first and then timed in turn, so that all meet the same load:
the formula on contiguous tensors, as NAFNet's own code has it; the formula on channels_last tensors; and ours
on channels_last tensors. A ratio is taken within each round. The formula makes more temporary tensors: to
leave the price of fresh memory out, set MALLOC_MMAP_MAX_=0 and MALLOC_TRIM_THRESHOLD_=4000000000.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from deblur_lab.models.layers import LayerNorm2d

SHAPES = [(1, 256, 180, 270), (1, 32, 512, 512), (8, 16, 128, 128), (8, 8, 128, 128)]


class PlainLayerNorm2d(LayerNorm2d):
    """The formula, one tensor operation after the other."""

    def forward(self, features: Tensor) -> Tensor:
        """Normalise each pixel's channels."""
        mean = features.mean(1, keepdim=True)
        variance = (features - mean).pow(2).mean(1, keepdim=True)
        normed = (features - mean) / (variance + self.eps).sqrt()
        return self.weight.view(1, -1, 1, 1) * normed + self.bias.view(1, -1, 1, 1)


def inference(norm: LayerNorm2d, features: Tensor) -> Callable[[], None]:
    """Return a call that normalises without gradients."""

    def run() -> None:
        with torch.no_grad():
            norm(features)

    return run


def training(norm: LayerNorm2d, features: Tensor) -> Callable[[], None]:
    """Return a call that normalises and comes back with the gradients."""
    features = features.clone().requires_grad_()
    gradient = torch.randn_like(features)

    def run() -> None:
        features.grad = None
        norm(features).backward(gradient)

    return run


def milliseconds(call: Callable[[], None]) -> float:
    """Time one call."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def summary(values: list[float]) -> dict[str, float]:
    """Return the least value, the median and the quartiles."""
    low, _, high = statistics.quantiles(values, n=4)
    return {
        "min": round(min(values), 3),
        "median": round(statistics.median(values), 3),
        "quartile_low": round(low, 3),
        "quartile_high": round(high, 3),
    }


def measure(
    shape: tuple[int, ...], make: Callable[..., Callable[[], None]], rounds: int
) -> dict[str, object]:
    """Time the contenders at one shape, in turn, and take ratios within each round."""
    plain, ours = PlainLayerNorm2d(shape[1]), LayerNorm2d(shape[1])
    features = torch.randn(shape)
    last = features.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours(last), plain(features), atol=1e-5, rtol=1e-5)
    contenders = {
        "plain_contiguous": make(plain, features),
        "plain_channels_last": make(plain, last),
        "ours_channels_last": make(ours, last),
    }
    for call in contenders.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            times[name].append(milliseconds(call))
    mine = times["ours_channels_last"]
    return {
        "shape": list(shape),
        "mode": "inference" if make is inference else "training",
        "times_ms": {name: summary(values) for name, values in times.items()},
        "times_faster": {
            name: summary([theirs / own for theirs, own in zip(values, mine, strict=True)])
            for name, values in times.items()
            if name != "ours_channels_last"
        },
    }


def commit() -> str:
    """Return the commit of this working tree, or "unknown" outside of one."""
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"


def main() -> None:
    """Measure every shape and print the JSON."""
    parser = argparse.ArgumentParser(description="Time LayerNorm2d against the plain formula on a CPU.")
    parser.add_argument("--rounds", type=int, default=20, help="how often each is timed")
    parser.add_argument("--threads", type=int, default=2, help="threads that PyTorch may use")
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    report = {
        "benchmark": "layernorm",
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "allocator": {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")},
        "results": [
            measure(shape, make, arguments.rounds) for shape in SHAPES for make in (inference, training)
        ],
    }
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
