"""Folders as runs and evaluations leave them, without any training."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


def result(psnr_db: float | None, **others: Any) -> dict[str, Any]:
    return {
        "dataset": "synthetic",
        "split": "test",
        "protocol": {"name": "local", "description": "as it is"},
        "tlc": False,
        "tlc_size_px": None,
        "images": 3,
        "scores": {"psnr_db": psnr_db, "ssim": 0.9},
        "blurry_scores": {"psnr_db": 20.0, "ssim": 0.8},
        "left_out": {},
        **others,
    }


def write_run(
    folder: Path,
    seed: int,
    settings: dict[str, Any],
    one: dict[str, Any],
    *experiments: str,
    trained_on: tuple[str, ...] = ("GoPro",),
    images: Mapping[str, tuple[float, float]] | None = None,
    **about: Any,
) -> None:
    """A finished run; ``images``, if given, its ``scores.csv``: PSNR of restored and blurry by name."""
    folder.mkdir(parents=True)
    known = {"experiment": list(experiments), "seed": seed, "max_steps": 8, "precision": "32-true"}
    known |= {"trained_on": list(trained_on), **about}
    scores = {**known, "commit": "abc", "hardware": "a CPU", "results": [one]}
    (folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    whole = OmegaConf.create({"seed": seed, "output": str(folder), "model": settings, "pictures": seed})
    OmegaConf.save(whole, folder / "config.yaml")
    if images is not None:
        rows = [f"{one['dataset']},{name},{psnr},{blurry}" for name, (psnr, blurry) in images.items()]
        lines = ["dataset,name,psnr_db,blurry_psnr_db", *rows]
        (folder / "scores.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_evaluation(folder: Path, one: dict[str, Any], **about: Any) -> None:
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text(json.dumps({**about, "results": [one]}), encoding="utf-8")
