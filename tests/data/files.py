"""Files by name, and what layouts make of them."""

from collections.abc import Iterable
from pathlib import Path

from deblur_lab.data.layouts import DataFolder, Layout, Pair
from deblur_lab.data.samples import Split


def touch(root: Path, names: Iterable[str]) -> None:
    """Write empty files: layouts look at names alone."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def pairs_in(layout: Layout, root: Path, split: Split) -> list[Pair]:
    """The pairs of a split with which nothing is wrong."""
    listing = layout.listing(DataFolder(root), split)
    assert listing.faults == ()
    return list(listing.pairs)


def faults_in(layout: Layout, root: Path, split: Split) -> list[str]:
    """What is wrong with a split; each fits a line."""
    faults = layout.listing(DataFolder(root), split).faults
    assert all("\n" not in fault for fault in faults)
    return list(faults)
