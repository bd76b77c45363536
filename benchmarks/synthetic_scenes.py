"""How fast synthetic scenes are made, on one core.

    python benchmarks/synthetic_scenes.py [--output FILE.json] [--scenes 60]

Prints and saves one JSON: for each kind of scene and size the time of a scene (median, spread and least; wall
clock and processor time, which does not grow on a busy machine) and the scenes a second that a core makes.
"""

import argparse
import json
import platform
import statistics
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from deblur_lab.data.photographs import pictures
from deblur_lab.data.scenes import CameraShake, LocalMotion, SceneKind

KINDS: dict[str, SceneKind] = {"local motion": LocalMotion(), "camera shake": CameraShake()}
SIZES_PX = ((128, 128), (256, 256), (320, 240), (1280, 720))


def measure(kind: SceneKind, width_px: int, height_px: int, scenes: int) -> dict[str, float | int]:
    """Make scenes that differ, and time each of them."""
    cut_from = pictures("train")
    kind.scene("warm-up", np.random.default_rng(0), cut_from, width_px, height_px)
    wall_ms, processor_ms = [], []
    for number in range(scenes):
        rng = np.random.default_rng([1, number])
        wall, processor = time.perf_counter(), time.process_time()
        kind.scene("timed", rng, cut_from, width_px, height_px)
        processor_ms.append((time.process_time() - processor) * 1e3)
        wall_ms.append((time.perf_counter() - wall) * 1e3)
    quarters = statistics.quantiles(wall_ms, n=4)
    return {
        "width_px": width_px,
        "height_px": height_px,
        "scenes": scenes,
        "wall_ms_median": round(quarters[1], 3),
        "wall_ms_quarter": round(quarters[0], 3),
        "wall_ms_three_quarters": round(quarters[2], 3),
        "wall_ms_least": round(min(wall_ms), 3),
        "processor_ms_median": round(statistics.median(processor_ms), 3),
        "processor_ms_mean": round(statistics.mean(processor_ms), 3),
        "scenes_a_second_a_core": round(1e3 / statistics.mean(processor_ms), 1),
    }


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="where to save the JSON")
    parser.add_argument("--scenes", type=int, default=60, help="of 128x128; of larger ones fewer, at least 5")
    arguments = parser.parse_args()
    began = time.perf_counter()
    pictures("train")
    result = {
        "benchmark": "synthetic_scenes",
        "commit": commit(),
        "machine": {"processor": platform.processor() or platform.machine(), "system": platform.platform()},
        "versions": {
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in ("deblur_lab", "numpy", "opencv-python-headless", "scikit-image")
            },
        },
        "first_use_ms": round((time.perf_counter() - began) * 1e3, 1),
        "measured": {
            name: [
                measure(kind, *size, max(arguments.scenes * 128 * 128 // (size[0] * size[1]), 5))
                for size in SIZES_PX
            ]
            for name, kind in KINDS.items()
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text + "\n", encoding="utf-8")


def commit() -> str:
    """The commit of the source tree, and whether it has been changed since."""
    asked = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    described = subprocess.run(asked, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return described.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
