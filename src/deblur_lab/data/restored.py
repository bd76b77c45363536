"""Pictures that another program restored, and which picture of a dataset each of them is.

They are told by their names alone, never by their order: a program that left one out would else be scored on
the wrong pictures without a word. Programs name what they write in their own ways, so that a name is looked
for in steps, each looser than the one before; what a step has settled is out of those that follow:

1. the dataset's own name, as a path below the folder, without its ending: ``GOPR0384_11_00/000001.png``;
2. the same with any separators: ``GOPR0384_11_00-000001.png``, ``GOPR0384_11_00_000001.png``;
3. the same without words that only say what a picture is: ``GOPR0384_11_00/blur/000001.png``,
   ``scene001_blur_1.png``, ``scene001-1_restored.png``;
4. the end of a longer name: ``RealBlur-J/test/scene001-1.png``, or ``000001.png`` alone, where one picture of
   the dataset ends so.

Where more than one file, or more than one picture, fits in a step, none is taken.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from deblur_lab.data.layouts import DataFolder
from deblur_lab.data.samples import Scene, SceneSet
from deblur_lab.errors import DataError
from deblur_lab.images import MAX_PIXELS, ImageError, check_picture, quoted
from deblur_lab.images.files import opened

_SEPARATORS = re.compile(r"[/\\\-_\s]+")
# What a picture is, and not which. `sharp`, `gt` and `target` are no such words: programs write the sharp
# picture beside the restored one, and it must not pass for that.
_KINDS = frozenset(
    {
        *("blur", "blurry", "blurred", "input"),
        *("restored", "restoration", "deblur", "deblurred", "output", "outputs", "result", "results", "pred"),
    }
)
_JPEG = b"\xff\xd8\xff"
_SHOWN = 3


@dataclass(frozen=True)
class Matched:
    """Which file is which picture of a dataset.

    Attributes:
        files: By the picture's index; pictures that no file was found for are left out.
        missing: The indices of these.
        faults: Files of which it cannot be told which picture they are, each in one line.
        extra: Files that are none of the pictures, sorted by name.
    """

    files: Mapping[int, Path]
    missing: tuple[int, ...]
    faults: tuple[str, ...]
    extra: tuple[Path, ...]


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


def match(names: Sequence[str], files: Sequence[Path], folder: Path) -> Matched:
    """Tell which file is which picture, by names.

    Args:
        names: Of the pictures, by their index; as in `samples.Scene`.
        files: To choose from, as `pictures_below` gives them.
        folder: In which they lie.
    """
    # What a name says: a path without ending, as the dataset's names are.
    top = folder.resolve()
    paths = [_composed(file.relative_to(top).with_suffix("").as_posix()) for file in files]
    names = [_composed(name) for name in names]
    open_names, open_files = set(range(len(names))), set(range(len(files)))
    settled: dict[int, int] = {}
    faults: list[str] = []
    steps: tuple[Callable[[str], Hashable], ...] = (str, _words, _telling_words)
    for step in steps:
        groups: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for number in sorted(open_names):
            groups[step(names[number])][0].append(number)
        for number in sorted(open_files):
            groups[step(paths[number])][1].append(number)
        for of_names, of_files in groups.values():
            _settle(of_names, of_files, names, files, settled, faults, open_names, open_files)
    for of_names, of_files in _by_ending(names, paths, open_names, open_files):
        _settle(of_names, of_files, names, files, settled, faults, open_names, open_files)
    return Matched(
        {number: files[settled[number]] for number in sorted(settled)},
        tuple(number for number in range(len(names)) if number in open_names),
        tuple(faults),
        tuple(files[number] for number in sorted(open_files)),
    )


def faults_of_files(
    matched: Matched, sharp_of: Callable[[int], Path | None], num_threads: int = 4
) -> tuple[list[str], int]:
    """What keeps restored pictures from being scored, and how many of them are JPEGs.

    Args:
        matched: Which file is which picture.
        sharp_of: The sharp picture of an index; None where it is no file.
        num_threads: How many threads read files.

    Returns:
        A line for each file that cannot be read or is not as large as its sharp picture; and the JPEGs.
    """

    def look(item: tuple[int, Path]) -> tuple[str | None, bool]:
        index, path = item
        try:
            size = check_picture(path)
            with path.open("rb") as file:
                is_jpeg = file.read(len(_JPEG)) == _JPEG
            sharp = sharp_of(index)
            # All of a file is looked at only where its header, which does not know of a rotation, differs.
            if sharp is not None and size != _size_in_header(sharp) and size != check_picture(sharp):
                return wrong_size(path, size, check_picture(sharp)), is_jpeg
        except ImageError as error:
            return str(error), False
        return None, is_jpeg

    with ThreadPoolExecutor(max_workers=max(num_threads, 1)) as pool:
        told = list(pool.map(look, matched.files.items()))
    return [fault for fault, _ in told if fault is not None], sum(is_jpeg for _, is_jpeg in told)


def wrong_size(path: Path, size: tuple[int, int], wanted: tuple[int, int]) -> str:
    """That a restored picture is not as large as its sharp one, in one line; sizes are (width, height)."""
    return (
        f"{quoted(path)} is {size[0]} x {size[1]}, but its sharp picture is {wanted[0]} x {wanted[1]}: "
        "sizes differ, and neither is resized"
    )


def listed(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(quoted(name) for name in names[:_SHOWN]) + more


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


def _size_in_header(path: Path) -> tuple[int, int]:
    with opened(path, MAX_PIXELS) as image:
        return image.size


def _composed(name: str) -> str:
    """A name as those of scenes are: Unicode's composed form, bytes that are no text as escapes."""
    return unicodedata.normalize("NFC", name).encode("utf-8", "backslashreplace").decode("utf-8")


def _words(name: str) -> tuple[str, ...]:
    return tuple(word for word in _SEPARATORS.split(name.casefold()) if word)


def _telling_words(name: str) -> tuple[str, ...]:
    """The words that say which picture it is; all of them, if none does."""
    words = _words(name)
    return tuple(word for word in words if word not in _KINDS) or words


def _settle(
    of_names: Sequence[int],
    of_files: Sequence[int],
    names: Sequence[str],
    files: Sequence[Path],
    settled: dict[int, int],
    faults: list[str],
    open_names: set[int],
    open_files: set[int],
) -> None:
    """Take what fits alone, and say what does not; do nothing where one side is empty."""
    if not of_names or not of_files:
        return
    open_names -= set(of_names)
    open_files -= set(of_files)
    if len(of_names) == len(of_files) == 1:
        settled[of_names[0]] = of_files[0]
        return
    shown = listed([os.fspath(files[number]) for number in of_files])
    pictures = listed([names[number] for number in of_names])
    verb = "is" if len(of_files) == 1 else "are each"
    faults.append(
        f"{shown} {verb} as good a match for {pictures}: name each file as the dataset does, one a picture"
    )


def _by_ending(
    names: Sequence[str], paths: Sequence[str], open_names: set[int], open_files: set[int]
) -> list[tuple[list[int], list[int]]]:
    """Names and files of which one ends as the other, those that are connected by that together."""
    words_of_names = {number: _telling_words(names[number]) for number in sorted(open_names)}
    by_last: dict[str, list[int]] = defaultdict(list)
    words_of_files = {number: _telling_words(paths[number]) for number in sorted(open_files)}
    for number, words in words_of_files.items():
        by_last[words[-1]].append(number)
    # Each connected group once, by a union of those that fit each other.
    group_of: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for number, words in words_of_names.items():
        for other in by_last.get(words[-1], ()):
            shorter = min(len(words), len(words_of_files[other]))
            if words[-shorter:] != words_of_files[other][-shorter:]:
                continue
            one = group_of.setdefault(("name", number), [("name", number)])
            two = group_of.setdefault(("file", other), [("file", other)])
            if one is not two:
                one += two
                for member in two:
                    group_of[member] = one
    groups = list({id(group): group for group in group_of.values()}.values())
    return [
        (
            sorted(number for kind, number in group if kind == "name"),
            sorted(number for kind, number in group if kind == "file"),
        )
        for group in groups
    ]
