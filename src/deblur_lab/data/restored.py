"""Pictures that another program restored: what lies in their folder, and what of it cannot be scored."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from deblur_lab.data.layouts import DataFolder
from deblur_lab.data.restored_names import Matched, listed
from deblur_lab.data.samples import Scene, SceneSet
from deblur_lab.errors import DataError
from deblur_lab.images import ImageError, check_picture, quoted, read_rgb

_JPEG = b"\xff\xd8\xff"


def pictures_below(folder: Path, key: str = "input") -> list[Path]:
    """All pictures in a folder and in those below it, sorted by name; hidden ones are left out.

    Args:
        folder: The folder; links in it are followed.
        key: The setting that it is given by, for messages.

    Raises:
        DataError: There is no such folder, it cannot be listed, or holds no pictures.
    """
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{key}={quoted(folder)} {state}: give the folder of restored pictures")
    data = DataFolder(folder, follow_links=True)
    found: list[Path] = []
    waiting, seen = [data.path], {data.path}
    while waiting:
        here = waiting.pop()
        found += data.pictures(here)
        for below in data.folders(here):
            target = below.resolve()  # a link may lead back to where we were
            if target not in seen:
                seen.add(target)
                waiting.append(below)
    if not found:
        raise DataError(f"{key}={quoted(folder)} holds no pictures: give the folder of restored pictures")
    return sorted(found)


def faults_of_files(
    matched: Matched, pair_of: Callable[[int], tuple[Path, Path] | None], num_threads: int = 4
) -> tuple[list[str], int]:
    """What keeps restored pictures from being scored, and how many of them are JPEGs.

    Args:
        matched: Which file is which picture.
        pair_of: The blurry and the sharp picture of an index; None where they are no files.
        num_threads: How many threads read files.

    Returns:
        A line for each file that cannot be read or is not as large as its sharp picture, and one of all that
        are the sharp picture itself, where the blurry one is not; and the JPEGs.
    """

    def look(item: tuple[int, Path]) -> tuple[str | None, bool, bool]:
        index, path = item
        try:
            size = check_picture(path)
            with path.open("rb") as file:
                is_jpeg = file.read(len(_JPEG)) == _JPEG
            pair = pair_of(index)
            if pair is None:
                return None, is_jpeg, False
            blurry, sharp = pair
            wanted = read_rgb(sharp)
            height, width = wanted.shape[:2]
            if size != (width, height):
                return wrong_size(path, size, (width, height)), is_jpeg, False
            restored = read_rgb(path)
            copied = np.array_equal(restored, wanted) and not np.array_equal(restored, read_rgb(blurry))
        except ImageError as error:
            return str(error), False, False
        return None, is_jpeg, copied

    with ThreadPoolExecutor(max_workers=max(num_threads, 1)) as pool:
        told = list(pool.map(look, matched.files.items()))
    faults = [fault for fault, _, _ in told if fault is not None]
    copies = [path for path, (_, _, copied) in zip(matched.files.values(), told, strict=True) if copied]
    if len(copies) == 1:
        faults.append(f"{quoted(copies[0])} is its sharp picture, pixel by pixel, and no restored one")
    elif copies:
        shown = listed([os.fspath(path) for path in copies])
        faults.append(
            f"{len(copies)} files are their sharp pictures, pixel by pixel, and no restored ones: {shown}"
        )
    return faults, sum(is_jpeg for _, is_jpeg, _ in told)


def wrong_size(path: Path, size: tuple[int, int], wanted: tuple[int, int]) -> str:
    """That a restored picture is not as large as its sharp one, in one line; sizes are (width, height)."""
    return (
        f"{quoted(path)} is {size[0]} x {size[1]}, but its sharp picture is {wanted[0]} x {wanted[1]}: "
        "sizes differ, and neither is resized"
    )


class PartOfScenes:
    """Some of a dataset's scenes, in their order.

    Args:
        scenes: All of them.
        indices: Of those that are kept.
    """

    def __init__(self, scenes: SceneSet, indices: Sequence[int]) -> None:
        self._whole = scenes
        self._indices = tuple(indices)
        # What is said of the whole is true of a part.
        self.made_up: bool = getattr(scenes, "made_up", False)
        self.layout: str | None = getattr(scenes, "layout", None)
        self.masks_from: str | None = getattr(scenes, "masks_from", None)

    def __len__(self) -> int:
        """How many scenes there are."""
        return len(self._indices)

    def name(self, index: int) -> str:
        """The name of a scene, without reading it."""
        return self._whole.name(self._indices[index])

    def load(self, index: int, epoch: int = 0) -> Scene:
        """Read a scene."""
        return self._whole.load(self._indices[index], epoch)
