"""Which layout a folder has: each of a dataset's is tried, split by split."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from deblur_lab.data.layouts.folders import DataFolder
from deblur_lab.data.layouts.pairing import Listing
from deblur_lab.data.samples import Split
from deblur_lab.errors import DataError
from deblur_lab.images import quoted

_SHOWN_NAMES = 5
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
        copies = _listed([there.data.path.name for there in found])
        raise DataError(
            f"{root_key}={quoted(root.path)} holds more than one copy of the dataset ({copies}): give one"
        )
    if found:
        return found[0]
    place = f"{root_key}={quoted(root.path)}"
    looked_for = " or ".join(layout.description for layout in wanted.values())
    holds = _listed([path.name for path in root.unnoted(root.path)]) or "nothing"
    if only is None:
        raise DataError(f"{place} has no known layout: looked for {looked_for}; it holds {holds}")
    there = _found_below(root, layouts, subfolders)
    others = sorted({name for found_there in there for name, _ in found_there.layouts.values()})
    instead = f"; it is laid out as {' and '.join(others)}" if others else ""
    layout_key = root_key.replace("root", "layout")
    raise DataError(
        f"{place} is not laid out as {layout_key}={only} says: looked for {looked_for}; "
        f"it holds {holds}{instead}"
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


def _listed(names: list[str]) -> str:
    shown = ", ".join(quoted(name) for name in names[:_SHOWN_NAMES])
    return f"{shown} and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else shown
