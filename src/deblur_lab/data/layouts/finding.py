"""Which layout a folder has: each of a dataset's is tried, split by split."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from deblur_lab.data.layouts.folders import DataFolder
from deblur_lab.data.layouts.near import held_by, names_in, shown, told_near_misses
from deblur_lab.data.layouts.pairing import Listing
from deblur_lab.data.samples import Split
from deblur_lab.errors import DataError
from deblur_lab.images import quoted

_SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Layout(Protocol):
    """One way to lay out a dataset below its root."""

    @property
    def description(self) -> str:
        """The folders and names that this layout is made of."""
        ...

    def splits(self, data: DataFolder) -> tuple[Split, ...]:
        """The splits that a folder has in this layout; none at all where the layout is another."""
        ...

    def listing(self, data: DataFolder, split: Split) -> Listing:
        """What a split that `splits` lists is made of.

        Raises:
            DataError: It is empty, or cannot be listed.
        """
        ...


@dataclass(frozen=True)
class Found:
    """Where a dataset lies, and how.

    Attributes:
        data: Its folder.
        layouts: The layout of each split that it has, with the layout's name; in the order train, val, test.
    """

    data: DataFolder
    layouts: Mapping[Split, tuple[str, Layout]]

    @property
    def description(self) -> str:
        """The folders and names that the splits are made of."""
        return " and ".join(dict.fromkeys(layout.description for _, layout in self.layouts.values()))


def find_layouts(
    root: DataFolder,
    layouts: Mapping[str, Layout],
    subfolders: re.Pattern[str] | None = None,
    root_key: str = "data.root",
    *,
    only: str | None = None,
    mixed: bool = True,
) -> Found:
    """Where below a root a dataset lies, and the layout of each of its splits: the first that fits.

    Args:
        root: The root.
        layouts: The layouts that the dataset may have, by name.
        subfolders: What the dataset's folder may be called, if `root` is the one above it; whole names. It is
            looked for there only if `root` itself has none of the layouts.
        root_key: The setting that `root` is given by, for messages; that of the layout is called likewise.
        only: The name of the layout to look for, if it is no other.
        mixed: Whether the splits may be laid out each in its own way, as where a training set from one place
            lies beside a test set from another.

    Raises:
        DataError: None fits, and what was looked for and what is there; or several of the subfolders do.
    """
    wanted = dict(layouts) if only is None else {only: layouts[only]}
    found = _found_below(root, wanted, subfolders, mixed=mixed)
    if len(found) > 1:
        copies = shown([there.data.path.name for there in found])
        raise DataError(
            f"{root_key}={quoted(root.path)} holds more than one copy of the dataset ({copies}): give one"
        )
    if found:
        return found[0]
    place = f"{root_key}={quoted(root.path)}"
    looked_for = " or ".join(layout.description for layout in wanted.values())
    holds = shown([path.name for path in root.unnoted(root.path)])
    hints = _hints(root, wanted, subfolders, root_key)
    if only is None:
        raise DataError(f"{place} has no known layout: looked for {looked_for}; it holds {holds}{hints}")
    there = _found_below(root, layouts, subfolders)
    others = sorted({name for found_there in there for name, _ in found_there.layouts.values()})
    instead = f"; it is laid out as {' and '.join(others)}" if others else ""
    layout_key = root_key.replace("root", "layout")
    raise DataError(
        f"{place} is not laid out as {layout_key}={only} says: looked for {looked_for}; "
        f"it holds {holds}{instead or hints}"
    )


def _found_below(
    root: DataFolder,
    layouts: Mapping[str, Layout],
    subfolders: re.Pattern[str] | None,
    *,
    mixed: bool = True,
) -> list[Found]:
    """What the root is; or if it has none of the layouts, each of its subfolders that has."""
    here = _found_in(root, layouts, mixed=mixed)
    if here is not None or subfolders is None:
        return [here] if here is not None else []
    inner = [root.below(path.name) for path in root.named(subfolders)]
    return [there for folder in inner if (there := _found_in(folder, layouts, mixed=mixed)) is not None]


def _found_in(folder: DataFolder, layouts: Mapping[str, Layout], *, mixed: bool) -> Found | None:
    fitting: dict[Split, tuple[str, Layout]] = {}
    for name, layout in layouts.items():
        for split in layout.splits(folder):
            fitting.setdefault(split, (name, layout))
        if fitting and not mixed:
            break
    if not fitting:
        return None
    return Found(folder, {split: fitting[split] for split in _SPLITS if split in fitting})


def _hints(
    root: DataFolder, layouts: Mapping[str, Layout], subfolders: re.Pattern[str] | None, root_key: str
) -> str:
    """What may be meant where no layout fits: a folder above, or one nearly called as it should be."""
    descriptions = [layout.description for layout in layouts.values()]
    looked_for = names_in(descriptions)
    first = names_in(line.partition("/")[0] for line in descriptions)
    above = root.path
    while above.name in looked_for and above != above.parent:
        above = above.parent
        if _found_in(DataFolder(above, follow_links=True), layouts, mixed=True) is not None:
            return f"; this is a folder inside the dataset: give its parent, {root_key}={quoted(above)}"
    asked = told_near_misses(held_by(root), looked_for)
    hints = f": {asked}" if asked else ""
    for folder in root.named(subfolders) if subfolders is not None else ():
        hints += f"; {quoted(folder.name)} in it holds {_told_of(root.below(folder.name), first, looked_for)}"
    # Folders of a layout that hold others of it, as `dataset/` and `train/` do.
    inner = [name for name in held_by(root) if name in first and (root.path / name).is_dir()]
    for name in inner:
        asked = told_near_misses(held_by(root.below(name)), looked_for)
        hints += f"; {quoted(name)} in it holds {shown(held_by(root.below(name)))}: {asked}" if asked else ""
    return hints


def _told_of(folder: DataFolder, first: list[str], looked_for: list[str]) -> str:
    held = held_by(folder)
    asked = told_near_misses(held, looked_for)
    text = f"{shown(held)}: {asked}" if asked else shown(held)
    for name in held:
        if name in first and (folder.path / name).is_dir():
            inner = held_by(folder.below(name))
            asked = told_near_misses(inner, looked_for)
            text += f"; {quoted(name)} in that holds {shown(inner)}: {asked}" if asked else ""
    return text
