"""Two models of two seeds each, with all that a page draws from, without any training."""

from pathlib import Path

import cv2
import numpy as np

from deblur_lab.exhibits import write_exhibit
from tests.written_runs import result, write_run

NETS = {"naf": "NAFNet", "m2ae": "M2AENet"}
NAMES = tuple(f"scene/{number:03d}" for number in range(8))
# Of M2AENet; NAFNet predicts none.
_OVERLAYS = {"mask": (255, 120, 0), "trajectories": (0, 220, 255)}
_TRUE_MASK = (64, 224, 255)
LEGENDS = {kind: f"what {kind} means" for kind in ("true_mask", *_OVERLAYS)}


def write_compared(folder: Path, size_px: tuple[int, int] = (48, 32), images: int = 4) -> None:
    """``naf/0``, ``naf/1``, ``m2ae/0`` and ``m2ae/1``, scored on `NAMES`, with pictures of the first images.

    M2AENet is better by 1 dB than NAFNet on each image but the last, which it makes worse by 2 dB.

    Args:
        folder: for them.
        size_px: width and height of a picture.
        images: of how many there are pictures, beside the last one.
    """
    for folder_name, net in NETS.items():
        for seed in range(2):
            run = folder / folder_name / str(seed)
            gain = 0.5 + (folder_name == "m2ae") + 0.1 * seed
            scores = {name: (25.0 + at + gain, 25.0 + at) for at, name in enumerate(NAMES)}
            if folder_name == "m2ae":
                scores[NAMES[-1]] = (30.0, 32.0)
            means = [float(np.mean(column)) for column in zip(*scores.values(), strict=True)]
            one = result(
                means[0], images=len(NAMES), made_up=True, blurry_scores={"psnr_db": means[1], "ssim": 0.8}
            )
            cost = {
                "net": net,
                "parameters": 10**6 * (1 + seed),
                "multiply_adds": 10**9,
                "size_px": [*size_px],
            }
            cost["multiply_adds"] *= 1 + (folder_name == "m2ae")
            settings = {"net": {"_target_": f"deblur_lab.models.{net}", "width": 4}}
            write_run(run, seed, settings, one, trained_on=("synthetic (made up)",), images=scores, cost=cost)
            rows = [
                f"{step},{1 / (step + 1)},{24 + step / 10 if step % 5 == 4 else ''}" for step in range(20)
            ]
            (run / "metrics.csv").write_text(
                "\n".join(["step,train/loss,val/psnr_db", *rows]), encoding="utf-8"
            )
            for name in [*NAMES[:images], NAMES[-1]]:
                pictures = _pictures(size_px, NAMES.index(name), seed if folder_name == "naf" else 2 + seed)
                drawn = {"true_mask": _TRUE_MASK} | (_OVERLAYS if folder_name == "m2ae" else {})
                pictures |= {
                    kind: _figure(size_px, colour, NAMES.index(name)) for kind, colour in drawn.items()
                }
                after, before = scores[name]
                write_exhibit(
                    run / "pictures" / "exhibits",
                    "synthetic",
                    name,
                    pictures,
                    {"psnr_db": before},
                    {"psnr_db": after},
                    {kind: LEGENDS[kind] for kind in drawn},
                )


def _pictures(size_px: tuple[int, int], image: int, sharpness: int) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(image).integers(0, 256, (size_px[1], size_px[0], 3), dtype=np.uint8)
    sharp = cv2.GaussianBlur(noise, (0, 0), 1)
    blurry, restored = (cv2.GaussianBlur(sharp, (0, 0), sigma) for sigma in (4, 3 - sharpness / 2))
    return {"blurry": blurry, "restored": restored, "sharp": sharp}


def _figure(size_px: tuple[int, int], colour: tuple[int, int, int], image: int) -> np.ndarray:
    """A layer over a picture, twice as large as what it is of; no two images have the same."""
    figure = np.full((2 * size_px[1], 2 * size_px[0], 3), colour, np.uint8)
    figure[: 2 + image] = 20
    return figure
