"""Test images with what was made of them, one by one, as a run's folder keeps them.

``pictures/exhibits/<dataset>-<name>/`` holds ``blurry.png``, ``restored.png`` and ``sharp.png``, as large as
they were scored, and where they are known, drawn over the blurry picture, ``true_mask.png``, the predicted
``mask.png`` and ``trajectories.png``; and ``exhibit.json``: what they are of, how they score, and what
colours and lines in them mean. It is written last: a folder without it is not whole, and no exhibit.
"""

import contextlib
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deblur_lab.errors import DataError
from deblur_lab.images import write_png
from deblur_lab.writing import write_json, writing

OVERLAYS = {"true_mask": "true mask", "mask": "predicted mask", "trajectories": "trajectories"}
"""What may lie over the blurry picture, in words; the truth first, then what a net predicts."""

KINDS = ("blurry", "restored", "sharp", *OVERLAYS)
"""What the pictures of an exhibit show."""

_ABOUT = "exhibit.json"
# What would be a folder in a file's name, what stands for it, and what says which of them it was.
_ESCAPES = str.maketrans({"/": "~", "~": "=7E", "=": "=3D"})


@dataclass(frozen=True)
class StoredExhibit:
    """A test image of a run, and its pictures as files.

    Attributes:
        dataset: its name.
        name: of the image.
        files: PNG files, by what they show: those of `KINDS` that there are.
        blurry_scores: by name, without those that do not exist.
        restored_scores: the same of the restored picture.
        legends: what colours and lines mean, by what has some.
    """

    dataset: str
    name: str
    files: Mapping[str, Path]
    blurry_scores: Mapping[str, float]
    restored_scores: Mapping[str, float]
    legends: Mapping[str, str]


def stem_of(dataset: str, name: str) -> str:
    """What the files of a test image are called; those of no two images are called the same.

    >>> stem_of("gopro", "GOPR0384_11_00/000001")
    'gopro-GOPR0384_11_00~000001'
    """
    return f"{dataset.translate(_ESCAPES).replace('-', '=2D')}-{name.translate(_ESCAPES)}"


def write_exhibit(
    folder: Path,
    dataset: str,
    name: str,
    pictures: Mapping[str, NDArray[np.uint8]],
    blurry_scores: Mapping[str, float],
    restored_scores: Mapping[str, float],
    legends: Mapping[str, str] | None = None,
) -> None:
    """Write an exhibit, in the place of an older one of the same image.

    Args:
        folder: for a folder of its own.
        dataset: its name.
        name: of the image.
        pictures: (H, W, 3) uint8 RGB, by what they show.
        blurry_scores: NaN where there is none.
        restored_scores: the same.
        legends: what colours and lines mean in those pictures that are drawn over.

    Raises:
        MachineError: the machine refuses.
    """
    own = folder / stem_of(dataset, name)
    with writing(own):
        own.mkdir(parents=True, exist_ok=True)
        (own / _ABOUT).unlink(missing_ok=True)
        for kind in KINDS:
            if kind not in pictures:
                (own / f"{kind}.png").unlink(missing_ok=True)
    for kind, picture in pictures.items():
        write_png(own / f"{kind}.png", picture)
    scores = {"blurry": dict(blurry_scores), "restored": dict(restored_scores)}
    about = {"dataset": dataset, "name": name, "scores": scores, "legends": dict(legends or {})}
    write_json(own / _ABOUT, about)


def keep_exhibits(folder: Path, stems: Collection[str]) -> None:
    """Remove the exhibits of an older test, which showed other images.

    Args:
        folder: that holds them; it need not exist.
        stems: of those that stay.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name not in stems and (path / _ABOUT).is_file():
            with writing(path):
                shutil.rmtree(path)
    with contextlib.suppress(OSError):  # it holds something
        folder.rmdir()


def read_exhibits(folder: Path) -> list[StoredExhibit]:
    """The exhibits in a folder, in the order of their names; none if there is no folder.

    Raises:
        DataError: one is damaged.
    """
    return [_read(path) for path in sorted(folder.glob(f"*/{_ABOUT}"))]


def _read(path: Path) -> StoredExhibit:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        scores: Sequence[Mapping[str, float]] = [
            {name: float(value) for name, value in about["scores"][kind].items() if value is not None}
            for kind in ("blurry", "restored")
        ]
        dataset, name = str(about["dataset"]), str(about["name"])
        legends = {str(kind): str(text) for kind, text in about.get("legends", {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged: {error!r}: mend it or remove its folder") from error
    files = {kind: path.with_name(f"{kind}.png") for kind in KINDS}
    found = {kind: file for kind, file in files.items() if file.is_file()}
    if "legends" not in about and "trajectories" not in found:
        # At first ``mask.png`` was the truth's outline where a net predicts no mask, which misleads.
        found.pop("mask", None)
    return StoredExhibit(dataset, name, found, scores[0], scores[1], legends)
