"""Time training steps under three ways for OpenMP threads to wait, alone and beside a busy process; one JSON.

    python benchmarks/waiting_threads.py [--rounds 3] [--steps 10] [--limit 60] [--output FILE]

Each measurement is a process of its own, as the setting is read when PyTorch is loaded; the ways take turns
within a round, so that all meet the same load. A process that does not end within the limit counts as that
long. The busy process keeps one core at work.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

WAYS = {"default": {}, "short spin": {"GOMP_SPINCOUNT": "1000"}, "passive": {"OMP_WAIT_POLICY": "passive"}}

STEPS = """
import statistics, sys, time, torch
from deblur_lab.losses import LocalBlurLoss
from deblur_lab.models import M2AENet
torch.manual_seed(0)
net = M2AENet(16, [1, 1, 4], 1, [1, 1, 1], predictor_stages=[3]).train()
loss, optimizer = LocalBlurLoss(), torch.optim.AdamW(net.parameters())
blurry, sharp, mask = torch.rand(8, 3, 64, 64), torch.rand(8, 3, 64, 64), torch.ones(8, 1, 64, 64)
known, times = torch.ones(8, dtype=torch.bool), []
for _ in range(2 + int(sys.argv[1])):
    start = time.perf_counter()
    said = net.analyze(blurry, torch.arange(8))
    stages = [(stage.mask_logits, net.trajectory(stage.offsets, 9)) for stage in said.stages]
    optimizer.zero_grad()
    loss.total(loss(said.restored, blurry, sharp, mask, known, stages)).backward()
    optimizer.step()
    times.append(time.perf_counter() - start)
print(statistics.median(times[2:]))
"""


def step_seconds(way: dict[str, str], steps: int, limit_s: float) -> float:
    """The median time of a training step of a small M2AENet in a fresh process, or the limit's share."""
    plain = {
        key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    command = [sys.executable, "-c", STEPS, str(steps)]
    try:
        done = subprocess.run(
            command, env=plain | way, capture_output=True, text=True, check=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        return limit_s / (steps + 2)
    return float(done.stdout)


def main() -> None:
    """Measure, print, and save if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--limit", type=float, default=60.0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    measured: dict[str, dict[str, list[float]]] = {}
    for load in ("alone", "beside a busy process"):
        busy = None
        if load != "alone":
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            for _ in range(options.rounds):
                for name, way in WAYS.items():
                    seconds = step_seconds(way, options.steps, options.limit)
                    measured.setdefault(load, {}).setdefault(name, []).append(seconds)
        finally:
            if busy is not None:
                busy.kill()
                busy.wait()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    result = {
        "commit": commit.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "step_seconds": measured,
        "median_step_seconds": {
            load: {name: statistics.median(values) for name, values in ways.items()}
            for load, ways in measured.items()
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
