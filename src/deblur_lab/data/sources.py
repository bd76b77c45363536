"""Datasets of pictures in folders, as the field publishes them or as a person keeps their own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from deblur_lab.data.checking import Stamps, find_problems
from deblur_lab.data.layouts import (
    HeldOutFolders,
    Layout,
    Listing,
    Pair,
    PairedFolders,
    RawGoPro,
    RawReLoBlur,
    find_layout,
    open_root,
)
from deblur_lab.data.samples import Scene, Split
from deblur_lab.errors import ConfigurationError, DataError
from deblur_lab.images import quoted, read_mask, read_rgb
from deblur_lab.ranges import Count, Range


class PictureScenes:
    """Scenes that are read from files.

    Args:
        pairs: The files.
        blurred_all_over: Whether all of every picture is known to be blurred: where there is no mask file the
            mask is then all ones, and not unknown.
        note: What a person who reads the number of scenes should know beside it.
        faults: What keeps other files from being scenes, each in one line: refuse them before any is used.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        blurred_all_over: bool = False,
        note: str = "",
        faults: Sequence[str] = (),
    ) -> None:
        self.pairs = tuple(pairs)
        self.blurred_all_over = blurred_all_over
        self.note = note
        self.faults = tuple(faults)
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

    def problems(self, num_workers: int, smallest_px: int, *, full: bool = False) -> list[str]:
        """What keeps the files of the pairs from being used; see `checking.find_problems`."""
        self._stamps.take(self.pairs, num_workers)
        return find_problems(self.pairs, num_workers, full=full, smallest_px=smallest_px)


class ReLoBlur:
    """ReLoBlur: 2010 training and 395 test pairs of local motion, with masks (Li et al., AAAI 2023).

    Args:
        root: The folder that holds `dataset` and the masks, or the one above it, with `ReLoBlur`.
        protocol: How restored pictures are scored.
        masks: The folder of masks below `root`. There are two releases: name the one that is used. None
            trains and scores without masks.
        layout: Another layout than the published one; `masks` is then not looked at.
        val_images: `val` is an evenly spaced sample of at most so many test pairs, as the dataset has no
            validation split. The scores of a checkpoint that is chosen by it are optimistic.
        follow_links: Whether links in `root` may leave it, as where a dataset is put together from links.
        root_key: The setting that `root` is given by, for messages.

    Raises:
        ConfigurationError: `val_images` is not positive.
    """

    name = "reloblur"

    def __init__(
        self,
        root: str | Path,
        protocol: object,
        *,
        masks: str | None = "masks",
        layout: Layout | None = None,
        val_images: Count = 50,
        follow_links: bool = False,
        root_key: str = "data.root",
    ) -> None:
        self.protocol = protocol
        self._splits = _Splits(
            root,
            [layout or RawReLoBlur(masks)],
            ("ReLoBlur",),
            val_images,
            root_key,
            follow_links=follow_links,
        )

    def scenes(self, split: Split) -> PictureScenes:
        """The scenes of a split; the folder is looked through when they are first asked for.

        Raises:
            DataError: The folder, the layout, the split or a partner is missing.
        """
        return self._splits.scenes(split)


class GoPro:
    """GoPro: 2103 training and 1111 test pairs of camera motion (Nah et al., CVPR 2017).

    All of every picture counts as blurred, and that is known: the mask is all ones, as in M2AENet's training.

    Args:
        root: The folder that holds `train` and `test`, or the one above it, with `GOPRO_Large`; as published,
            relaid as `{input,target}`, or flat as `{blur,sharp}`.
        protocol: How restored pictures are scored.
        blur: Which blurry pictures of the published layout: `blur`, which papers of today use, or
            `blur_gamma`.
        layout: The only layout to look for; `blur` is then not looked at.
        val_images: As in `ReLoBlur`.
        follow_links: Likewise.
        root_key: Likewise.

    Raises:
        ConfigurationError: `val_images` is not positive, or `blur` is neither of the two.
    """

    name = "gopro"

    def __init__(
        self,
        root: str | Path,
        protocol: object,
        *,
        blur: Literal["blur", "blur_gamma"] = "blur",
        layout: Layout | None = None,
        val_images: Count = 50,
        follow_links: bool = False,
        root_key: str = "data.root",
    ) -> None:
        self.protocol = protocol
        if blur not in ("blur", "blur_gamma"):
            raise ConfigurationError(f"data.blur={blur}: choose blur or blur_gamma")
        layouts: list[Layout] = [RawGoPro(blur)]
        if blur == "blur":
            # Other layouts do not say which blur they hold, and by custom hold this one.
            layouts += [PairedFolders("input", "target"), PairedFolders("blur", "sharp")]
        if layout is not None:
            layouts = [layout]
        self._splits = _Splits(
            root,
            layouts,
            ("GOPRO_Large",),
            val_images,
            root_key,
            blurred_all_over=True,
            follow_links=follow_links,
        )

    def scenes(self, split: Split) -> PictureScenes:
        """The scenes of a split; the folder is looked through when they are first asked for.

        Raises:
            DataError: The folder, the layout, the split or a partner is missing.
        """
        return self._splits.scenes(split)


class Folder:
    """Pictures of one's own: `{blurry,sharp[,mask]}/NAME.png`, paired by name.

    The two or three folders lie in `train/`, `val/` and `test/`, of which `val` and `test` stand in for each
    other where one is missing (`val` as a sample). Or they lie in `root` itself: then each `holdout_every`-th
    pair is kept for testing and the others are trained on.

    Args:
        root: The folder.
        protocol: How restored pictures are scored.
        name: What the dataset is called in scores and messages.
        layout: The only layout to look for; `holdout_every` is then not looked at.
        holdout_every: Which pairs of an unsplit folder are kept for testing. None trains and scores on all of
            them: right for scoring a net that was trained on something else.
        val_images: As in `ReLoBlur`, where there is no `val` folder.
        follow_links: As in `ReLoBlur`.
        root_key: Likewise.

    Raises:
        ConfigurationError: `val_images` is not positive, or `holdout_every` is less than two.
    """

    def __init__(
        self,
        root: str | Path,
        protocol: object,
        *,
        name: str = "folder",
        layout: Layout | None = None,
        holdout_every: Annotated[int, Range(2)] | None = 10,
        val_images: Count = 50,
        follow_links: bool = False,
        root_key: str = "data.root",
    ) -> None:
        self.protocol = protocol
        self.name = name
        folders = PairedFolders(mask="mask")
        layouts: list[Layout] = [folders, HeldOutFolders(folders, holdout_every)]
        if layout is not None:
            layouts = [layout]
        self._splits = _Splits(root, layouts, (), val_images, root_key, follow_links=follow_links)

    def scenes(self, split: Split) -> PictureScenes:
        """The scenes of a split; the folder is looked through when they are first asked for.

        Raises:
            DataError: The folder, the layout, the split or a partner is missing.
        """
        return self._splits.scenes(split)


def evenly_spaced(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the numbers from 0 to `count - 1`, evenly spaced and away from both ends."""
    chosen = min(count, wanted)
    return [(2 * index + 1) * count // (2 * chosen) for index in range(chosen)]


class _Splits:
    """The scenes of each split of a folder, which is looked through once a split.

    Args:
        root: The folder.
        layouts: The layouts to look for.
        subfolders: Where below `root` to look for them, too.
        val_images: See `ReLoBlur`.
        root_key: See `ReLoBlur`.
        blurred_all_over: See `PictureScenes`.
        follow_links: See `ReLoBlur`.

    Raises:
        ConfigurationError: `val_images` is not positive.
    """

    def __init__(
        self,
        root: str | Path,
        layouts: Sequence[Layout],
        subfolders: Sequence[str],
        val_images: int,
        root_key: str,
        *,
        blurred_all_over: bool = False,
        follow_links: bool = False,
    ) -> None:
        if val_images < 1:
            raise ConfigurationError(f"data.val_images={val_images}: give 1 or more")
        self._root = root
        self._layouts = tuple(layouts)
        self._subfolders = tuple(subfolders)
        self._val_images = val_images
        self._root_key = root_key
        self._blurred_all_over = blurred_all_over
        self._follow_links = follow_links
        self._found: dict[Split, PictureScenes] = {}

    def scenes(self, split: Split) -> PictureScenes:
        """The scenes of a split.

        Raises:
            DataError: The folder, the layout, the split or a partner is missing.
        """
        if split not in self._found:
            listing, note = self._listing(split)
            self._found[split] = PictureScenes(
                listing.pairs, blurred_all_over=self._blurred_all_over, note=note, faults=listing.faults
            )
        return self._found[split]

    def _listing(self, split: Split) -> tuple[Listing, str]:
        """What a split is made of, and what there is to say of it."""
        root = open_root(self._root, self._root_key, follow_links=self._follow_links)
        layout, data = find_layout(root, self._layouts, self._subfolders, self._root_key)
        there = layout.splits(data)
        note = layout.note if isinstance(layout, HeldOutFolders) else ""
        if split in there:
            return layout.listing(data, split), note
        if split == "val" and "test" in there:
            test = self.scenes("test")
            chosen = [test.pairs[index] for index in evenly_spaced(len(test.pairs), self._val_images)]
            return Listing(tuple(chosen), test.faults), "val is a sample of test"
        if split == "test" and "val" in there:
            val = self.scenes("val")
            return Listing(val.pairs, val.faults), "test is val, as there is no test folder"
        raise DataError(
            f"{quoted(data.path)} has no {split} split ({layout.description}): "
            f"it has {', '.join(there)} alone"
        )


def _require_one_size(first: Path, size: tuple[int, ...], second: Path, other: tuple[int, ...]) -> None:
    if size[:2] != other[:2]:
        raise DataError(
            f"{quoted(first)} is {size[1]} x {size[0]} but {quoted(second)} is {other[1]} x {other[0]}: "
            "sizes differ, and neither is resized"
        )
