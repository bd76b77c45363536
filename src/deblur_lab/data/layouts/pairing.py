"""Files with equal names as pairs: what all layouts hand out, and how most of them get there."""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deblur_lab.data.layouts.faults import Fault, FaultKind
from deblur_lab.data.layouts.folders import DataFolder
from deblur_lab.errors import DataError
from deblur_lab.images import quoted

Role = Literal["blurry", "sharp", "mask"]


@dataclass(frozen=True)
class Pair:
    """The files of one scene.

    Attributes:
        name: Unique within its split: the path below the split's folder, without ending.
        blurry: The blurry picture.
        sharp: The sharp picture, of the same size.
        mask: The mask of what is blurred, of the same size; None where the dataset has none.
    """

    name: str
    blurry: Path
    sharp: Path
    mask: Path | None


@dataclass(frozen=True)
class Listing:
    """What a split is made of.

    Attributes:
        pairs: Sorted by name.
        faults: What keeps other files from being pairs, each in one line: partners and masks that are
            missing, names that two files have, links that leave the data folder.
    """

    pairs: tuple[Pair, ...]
    faults: tuple[Fault, ...] = ()


def joined(
    files: Sequence[tuple[Role, str, Path]],
    data: DataFolder,
    *,
    where: Path,
    partner: Callable[[Role, Path], Path],
    has_masks: bool = False,
) -> Listing:
    """The files with equal names as pairs, and what is wrong with the others.

    Args:
        files: What each file is, the name of its pair, and its path.
        data: In which they were found.
        where: The folder of the split, for messages.
        partner: Where the partner of a file in another role is expected.
        has_masks: Whether each pair needs a mask.

    Raises:
        DataError: There are neither blurry nor sharp pictures.
    """
    found: dict[Role, dict[str, Path]] = {"blurry": {}, "sharp": {}, "mask": {}}
    faults = [*data.faults]
    for role, name, path in files:
        first = found[role].setdefault(name, path)
        if first is not path:
            line = f"{quoted(first)} and {quoted(path)} have one name: remove one of them"
            faults.append(Fault(line, "same_name"))
    blurry, sharp, masks = found["blurry"], found["sharp"], found["mask"]
    if not blurry and not sharp:
        raise DataError(f"{quoted(where)} is empty: it holds no pictures in this layout")
    lone: list[tuple[Path, str, FaultKind]] = []

    def miss(path: Path, what: str, other: Role, kind: FaultKind) -> None:
        lone.append((path, f"has no {what}: {quoted(partner(other, path))} is missing", kind))

    for name in sorted({*blurry, *sharp}):
        if name not in sharp:
            miss(blurry[name], "partner", "sharp", "unpaired")
        elif name not in blurry:
            miss(sharp[name], "partner", "blurry", "unpaired")
        elif has_masks and name not in masks:
            miss(blurry[name], "mask", "mask", "mask_missing")
    faults += [Fault(f"{quoted(path)} {what}", kind) for path, what, kind in sorted(lone)]
    pairs = tuple(
        Pair(name, blurry[name], sharp[name], masks[name] if has_masks else None)
        for name in sorted(blurry)
        if name in sharp and (name in masks or not has_masks)
    )
    return Listing(pairs, tuple(faults))


def name_key(stem: str) -> str:
    """A name in Unicode's composed form; bytes that are no text become escapes, so that it can be printed."""
    return unicodedata.normalize("NFC", stem).encode("utf-8", "backslashreplace").decode("utf-8")
