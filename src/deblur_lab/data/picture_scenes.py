"""Scenes that are read from files: what every dataset on disk hands out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deblur_lab.data.checking import Stamps, find_problems
from deblur_lab.data.layouts import Fault, Pair
from deblur_lab.data.samples import Scene
from deblur_lab.errors import DataError
from deblur_lab.images import quoted, read_mask, read_rgb


class PictureScenes:
    """Scenes that are read from files.

    Args:
        pairs: The files.
        blurred_all_over: Whether all of every picture is known to be blurred: where there is no mask file the
            mask is then all ones, and not unknown.
        note: What a person who reads the number of scenes should know beside it.
        faults: What keeps other files from being scenes, each in one line: refuse them before any is used.
        layout: The name of the layout that they were found in: one of those that `data.layout=` takes, or the
            class of another.
        root: The dataset's folder, as it was found; None where there is none.
        masks_from: The name of the folder that the mask files are from, as there may be several releases;
            None where there are none.
        made_up: Whether they are synthetic, written by `data.synthesize`: scores on them are never those on
            the dataset whose layout they have.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        blurred_all_over: bool = False,
        note: str = "",
        faults: Sequence[str] = (),
        layout: str = "",
        root: Path | None = None,
        masks_from: str | None = None,
        made_up: bool = False,
    ) -> None:
        self.pairs = tuple(pairs)
        self.blurred_all_over = blurred_all_over
        self.note = note
        self.faults = tuple(fault if isinstance(fault, Fault) else Fault(fault) for fault in faults)
        self.layout = layout
        self.root = root
        self.masks_from = masks_from
        self.made_up = made_up
        self._stamps = Stamps()

    def __len__(self) -> int:
        """How many scenes there are."""
        return len(self.pairs)

    def name(self, index: int) -> str:
        """The name of a scene, as in `layouts.Pair`."""
        return self.pairs[index].name

    def load(self, index: int, epoch: int = 0) -> Scene:
        """Read a scene; it is the same in every epoch.

        Raises:
            ImageError: A file cannot be read.
            DataError: The files differ in size, or one was changed since `problems` looked at it.
        """
        pair = self.pairs[index]
        blurry, sharp = read_rgb(pair.blurry), read_rgb(pair.sharp)
        _require_one_size(pair.blurry, blurry.shape, pair.sharp, sharp.shape)
        mask = None
        if pair.mask is not None:
            mask = read_mask(pair.mask)
            _require_one_size(pair.blurry, blurry.shape, pair.mask, mask.shape)
        elif self.blurred_all_over:
            mask = np.ones(blurry.shape[:2], np.uint8)
        for path in (pair.blurry, pair.sharp, pair.mask):
            if path is not None:
                self._stamps.require_unchanged(path)
        return Scene(pair.name, blurry, sharp, mask)

    def problems(
        self,
        num_workers: int,
        smallest_px: int,
        *,
        full: bool = False,
        pairs: Sequence[Pair] | None = None,
    ) -> list[str]:
        """What keeps the files of the pairs, or of some of them, from being used.

        See `checking.find_problems`.
        """
        pairs = self.pairs if pairs is None else pairs
        self._stamps.take(pairs, num_workers)
        return find_problems(pairs, num_workers, full=full, smallest_px=smallest_px)

    def standing_in(self, pairs: Sequence[Pair], note: str) -> "PictureScenes":
        """Some of the scenes, or all, for a split that there is not; `note` says what became of it."""
        return PictureScenes(
            pairs,
            blurred_all_over=self.blurred_all_over,
            note=note,
            faults=self.faults,
            layout=self.layout,
            root=self.root,
            masks_from=self.masks_from,
            made_up=self.made_up,
        )


def _require_one_size(first: Path, size: tuple[int, ...], second: Path, other: tuple[int, ...]) -> None:
    if size[:2] != other[:2]:
        raise DataError(
            f"{quoted(first)} is {size[1]} x {size[0]} but {quoted(second)} is {other[1]} x {other[0]}: "
            "sizes differ, and neither is resized"
        )
