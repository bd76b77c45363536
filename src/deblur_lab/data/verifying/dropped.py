"""Splits that are not there because a folder of theirs is called otherwise: nothing would train on them."""

import re
from collections.abc import Sequence
from pathlib import Path

from deblur_lab.data.layouts import DataFolder, names_in, told_near_misses
from deblur_lab.data.samples import Split
from deblur_lab.data.verifying.findings import Finding
from deblur_lab.data.verifying.listings import Listed, named
from deblur_lab.images import quoted

_SPLIT_FOLDERS: tuple[tuple[Split, re.Pattern[str]], ...] = (
    ("train", re.compile(r"train(ing|s|_?set)?", re.IGNORECASE)),
    ("val", re.compile(r"val(id|idation|_?set)?", re.IGNORECASE)),
    ("test", re.compile(r"test(ing|s|_?set)?", re.IGNORECASE)),
)


def dropped_splits(
    data: DataFolder, listed: Sequence[Listed], descriptions: Sequence[str]
) -> dict[Path, Finding]:
    """Folders of splits that hold pictures of which none is of a pair, and what there is to say of each.

    Args:
        data: The dataset's folder.
        listed: The splits that were found.
        descriptions: The folders and names that the dataset's layouts are made of.
    """
    used = {folder for of_split in listed for pair in of_split.pairs for folder in pair.blurry.parents}
    there = {of_split.split for of_split in listed}
    found: dict[Path, Finding] = {}
    tops = data.folders(data.path)
    inner = [folder for top in tops if top.name == "dataset" for folder in data.folders(top)]
    for folder in (*tops, *inner):
        splits = [split for split, pattern in _SPLIT_FOLDERS if pattern.fullmatch(folder.name)]
        if not splits or splits[0] in there or folder in used or not _holds_pictures(data, folder):
            continue
        (split,) = splits
        looked_for = names_in(descriptions)
        held = [path.name for path in data.folders(folder)]
        asked = told_near_misses(held, looked_for)
        if folder.name != split:
            asked = f"is {quoted(folder.name)} meant to be {split}?"
        elif not asked:
            within = [path.name for one in data.folders(folder)[:1] for path in data.folders(one)]
            asked = told_near_misses(within, looked_for)
        holds = named(held) if held else "pictures"
        found[folder] = Finding(
            "split_missing",
            f"{quoted(folder)}/ holds {holds}, but no pairs" + (f": {asked}" if asked else ""),
            f"the {split} split in one of the layouts: {' or '.join(descriptions)}",
            split,
            advice="give its folders the names that are looked for",
        )
    return found


def _holds_pictures(data: DataFolder, folder: Path) -> bool:
    """Whether a picture lies in a folder, or in any below it."""
    if data.pictures(folder):
        return True
    return any(_holds_pictures(data, inner) for inner in data.folders(folder) if not inner.is_symlink())
