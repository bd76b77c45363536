"""Time our PNG writer against Pillow's, on one core; print one JSON.

    python benchmarks/png.py [--rounds 5] [--output FILE]

Photographs of scikit-image, enlarged to 12 megapixels with a little noise, as a camera has it. What both
write is read again and compared with what was given, before anything is timed. The two are then run in turns;
a ratio is taken within each turn, Pillow's time over ours.
"""

import argparse
import io
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from deblur_lab.images.png import encode_png


def by_pillow(pixels: NDArray[np.uint8]) -> bytes:
    """At its default, level 6."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def photographs() -> dict[str, NDArray[np.uint8]]:
    """Of 4000 x 3000 pixels."""
    rng = np.random.default_rng(0)
    found = {}
    for name in ("astronaut", "coffee", "chelsea"):
        large = cv2.resize(getattr(skimage.data, name)(), (4000, 3000), interpolation=cv2.INTER_CUBIC)
        noise = rng.normal(0, 1.5, large.shape).round()
        found[name] = (large + noise).clip(0, 255).astype(np.uint8)
    return found


def seconds(write: Callable[[NDArray[np.uint8]], bytes], pixels: NDArray[np.uint8]) -> float:
    """One call."""
    started = time.perf_counter()
    write(pixels)
    return time.perf_counter() - started


def main() -> None:
    """Compare, time, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    results = []
    for name, pixels in photographs().items():
        sizes = {}
        for write in (by_pillow, encode_png):
            contents = write(pixels)
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(contents))), pixels), write.__name__
            sizes[write.__name__] = len(contents)
        turns = [(seconds(by_pillow, pixels), seconds(encode_png, pixels)) for _ in range(arguments.rounds)]
        results.append(
            {
                "photograph": name,
                "pillow_s": round(statistics.median(turn[0] for turn in turns), 3),
                "ours_s": round(statistics.median(turn[1] for turn in turns), 3),
                "pillow_over_ours": round(statistics.median(turn[0] / turn[1] for turn in turns), 2),
                "pillow_mb": round(sizes["by_pillow"] / 1e6, 2),
                "ours_mb": round(sizes["encode_png"] / 1e6, 2),
            }
        )
    report = json.dumps(
        {"machine": platform.machine(), "pillow": PIL.__version__, "results": results}, indent=2
    )
    print(report)
    if arguments.output:
        arguments.output.write_text(report + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
