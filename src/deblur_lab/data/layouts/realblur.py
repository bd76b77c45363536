"""RealBlur as it is published: scenes, and lists that say which of them train and which test."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from deblur_lab.data.layouts.faults import Fault
from deblur_lab.data.layouts.folders import DataFolder
from deblur_lab.data.layouts.pairing import Listing, Pair, name_key
from deblur_lab.data.samples import Split
from deblur_lab.errors import DataError
from deblur_lab.images import quoted

Kind = Literal["j", "r"]

TOP_FOLDERS: Mapping[Kind, str] = MappingProxyType(
    {
        "j": "RealBlur-J_ECC_IMCORR_centroid_itensity_ref",
        "r": "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref",
    }
)
"""What the folders of scenes are called as published, misspelt as they are."""

_SPLITS: tuple[Split, ...] = ("train", "test")
_BLURRY, _SHARP = "blur", "gt"


def names_of(kind: Kind) -> re.Pattern[str]:
    """What folders of the one kind are called: as published, and shorter."""
    return re.compile(rf"real_?blur[-_ ]?{kind}(?![a-z0-9]).*", re.IGNORECASE)


@dataclass(frozen=True)
class _Line:
    """What a line of a list names: scene and pictures as paths below the folder of scenes."""

    number: int
    scene: str
    sharp: str
    blurry: str


@dataclass(frozen=True)
class RawRealBlur:
    """RealBlur as it is published: `sceneNNN/{blur/blur_K,gt/gt_K}.png` and lists of the pairs of each split.

    The scenes lie in a folder that is called as published or, shorter, as in `RealBlur_J`; or at the top, if
    `data.root` is that folder itself. The lists, `RealBlur_{J,R}_{train,test}_list.txt`, lie in that folder
    or beside it. A line of a list is the sharp picture's path, the blurry one's, and perhaps a space. Of a
    path the last three parts count: what comes before is what the folder was called where the list was made.

    Attributes:
        kind: j, from the camera's JPEGs, or r, from its raw pictures.
    """

    kind: Kind

    @property
    def description(self) -> str:
        """The folders and names that this layout is made of."""
        scenes = f"{TOP_FOLDERS[self.kind]}/sceneNNN/{{blur/blur_K,gt/gt_K}}.png"
        return f"{scenes} with {self.list_name('{train,test}')}"

    def list_name(self, split: str) -> str:
        """What the list of a split is called."""
        return f"RealBlur_{self.kind.upper()}_{split}_list.txt"

    def splits(self, data: DataFolder) -> tuple[Split, ...]:
        """The splits that a folder has lists of; both where there are scenes but no list at all."""
        scenes = self.folder_of_scenes(data)
        if scenes is None:
            return ()
        return tuple(split for split in _SPLITS if self._list(scenes, split) is not None) or _SPLITS

    def folder_of_scenes(self, data: DataFolder) -> Path | None:
        """The folder of scenes: below a dataset's folder, or that itself; None if neither is one."""
        named = [path for path in data.named(names_of(self.kind)) if _has_scenes(path, data)]
        # The published name comes first, as some keep another version beside it.
        named.sort(key=lambda path: path.name != TOP_FOLDERS[self.kind])
        if named:
            return named[0]
        return data.path if _has_scenes(data.path, data) else None

    def listing(self, data: DataFolder, split: Split) -> Listing:
        """What a split is made of; see `Layout.listing`.

        Raises:
            DataError: The list is missing or names nothing, or cannot be read.
        """
        scenes = self.folder_of_scenes(data)
        assert scenes is not None, "`splits` lists splits only of scenes"
        path = self._list(scenes, split)
        if path is None:
            raise DataError(
                f"{quoted(scenes)} has no {self.list_name(split)} in it or beside it, which says what the "
                f"{split} split is: it is in the dataset's archive (https://github.com/rimchang/RealBlur)"
            )
        lines, wrong = _read(path)
        if not lines and not wrong:
            raise DataError(
                f"{quoted(path)} is empty: it should name a sharp and a blurry picture in each line"
            )
        faults = [*self._swapped(scenes), *wrong, *self._shared(scenes, path, split, lines)]
        pairs, missing = _pairs_of(lines, path, scenes, data)
        return Listing(pairs, (*data.faults, *faults, *missing))

    def _list(self, scenes: Path, split: str) -> Path | None:
        places = (folder / self.list_name(split) for folder in (scenes, scenes.parent))
        return next((path for path in places if path.is_file()), None)

    def _swapped(self, scenes: Path) -> list[Fault]:
        """Whether the scenes are, by the name of their folder, those of the other kind."""
        other: Kind = "r" if self.kind == "j" else "j"
        if not names_of(other).fullmatch(scenes.name):
            return []
        return [
            Fault(
                f"{quoted(scenes)} is called as RealBlur-{other.upper()} is, but "
                f"data=realblur_{self.kind} reads RealBlur-{self.kind.upper()}: choose data=realblur_{other}",
                "wrong_variant",
            )
        ]

    def _shared(self, scenes: Path, path: Path, split: Split, lines: Sequence[_Line]) -> list[Fault]:
        """The scenes that the list of the other split names as well, each in one line."""
        other = self._list(scenes, "test" if split == "train" else "train")
        if other is None:
            return []
        there = {line.scene for line in _read(other)[0]}
        both = sorted({line.scene for line in lines} & there)
        first, second = (path, other) if split == "train" else (other, path)
        return [
            Fault(
                f"{scene} is named by both {quoted(first)} and {quoted(second)}: what is tested on must not "
                "be trained on",
                "sequence_in_both",
            )
            for scene in both
        ]


def _has_scenes(folder: Path, data: DataFolder) -> bool:
    # Beside what is asked for other datasets may lie, as links: only those of pictures that are used count.
    return any(
        os.path.isdir(scene / _BLURRY) and os.path.isdir(scene / _SHARP) for scene in data.unnoted(folder)
    )


def _read(path: Path) -> tuple[list[_Line], list[Fault]]:
    """The lines of a list, and what is wrong with others.

    Raises:
        DataError: It cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{quoted(path)} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{quoted(path)} is not text: it should name two pictures in each line") from error
    lines: list[_Line] = []
    wrong: list[Fault] = []
    seen: dict[str, int] = {}
    for number, typed in enumerate(text.splitlines(), start=1):
        if not typed.strip():
            continue
        line = _parsed(number, typed)
        if line is None:
            what = (
                f"{typed.strip()!r} is not the path of a sharp picture (.../SCENE/{_SHARP}/NAME) and that of "
                f"a blurry one (.../SCENE/{_BLURRY}/NAME) of one scene"
            )
            wrong.append(Fault(f"{quoted(path)}, line {number}: {what}", "layout"))
        elif line.blurry in seen:
            what = f"names {line.blurry} again, as line {seen[line.blurry]} does"
            wrong.append(Fault(f"{quoted(path)}, line {number}: {what}", "listed_twice"))
        else:
            seen[line.blurry] = number
            lines.append(line)
    return lines, wrong


def _parsed(number: int, typed: str) -> _Line | None:
    paths = [path.replace("\\", "/").split("/")[-3:] for path in typed.split()]
    if [path[1:2] for path in paths] != [[_SHARP], [_BLURRY]] or any(len(path) != 3 for path in paths):
        return None
    sharp, blurry = paths
    if sharp[0] != blurry[0] or {"", ".", ".."} & {*sharp, *blurry}:
        return None
    return _Line(number, sharp[0], "/".join(sharp), "/".join(blurry))


def _pairs_of(
    lines: Sequence[_Line], path: Path, scenes: Path, data: DataFolder
) -> tuple[tuple[Pair, ...], list[Fault]]:
    """The pairs that are there, sorted by name, and what is missing of the others, each in one line."""
    there: dict[str, set[Path]] = {}
    pairs: list[Pair] = []
    missing: list[Fault] = []
    for line in lines:
        if line.scene not in there:
            folders = [scenes / line.scene / name for name in (_BLURRY, _SHARP)]
            found = [data.pictures(folder) for folder in folders if data.is_folder(folder)]
            there[line.scene] = {picture for pictures in found for picture in pictures}
        sharp, blurry = scenes / line.sharp, scenes / line.blurry
        absent = [picture for picture in (sharp, blurry) if picture not in there[line.scene]]
        if absent:
            missing += [
                Fault(f"{quoted(path)}, line {line.number}: {quoted(picture)} is missing", "listed_missing")
                for picture in absent
            ]
            continue
        number = blurry.stem.removeprefix(f"{_BLURRY}_")
        pairs.append(Pair(name_key(f"{line.scene}/{number}"), blurry, sharp, None))
    return tuple(sorted(pairs, key=lambda pair: pair.name)), missing
