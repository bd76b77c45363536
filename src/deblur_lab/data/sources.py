"""Datasets of pictures in folders, as the field publishes them or as a person keeps their own."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from deblur_lab.data.layouts import (
    Found,
    HeldOutFolders,
    Layout,
    PairedFolders,
    RawGoPro,
    RawHIDE,
    RawRealBlur,
    RawReLoBlur,
    find_layouts,
    open_root,
)
from deblur_lab.data.layouts.realblur import names_of
from deblur_lab.data.made_up import RECORD_NAME, read_record
from deblur_lab.data.picture_scenes import PictureScenes
from deblur_lab.data.samples import Split
from deblur_lab.errors import ConfigurationError, DataError
from deblur_lab.images import quoted
from deblur_lab.ranges import Count, Range

# Test sets are handed around without a folder for the split.
_RELAID = PairedFolders("input", "target", top="test")
_FLAT = PairedFolders("blur", "sharp", top="test")


class PictureSource:
    """The splits of a folder, each of which is looked through once, when its scenes are first asked for.

    Args:
        root: The folder.
        protocol: How restored pictures are scored.
        layouts: The layouts that the dataset may have, by name, in the order in which they are tried.
        layout: The name of the only one to look for, `auto` for all of them, or another.
        val_images: `val` is an evenly spaced sample of at most so many test pairs, where there is no
            validation split. The scores of a checkpoint that is chosen by it are optimistic.
        follow_links: Whether links in `root` may leave it, as where a dataset is put together from links.
        root_key: The setting that `root` is given by, for messages.
        title: What the dataset is called in sentences; empty if it is nobody's but the user's.
        subfolders: What the dataset's folder may be called, where `root` is the one above it.
        blurred_all_over: See `PictureScenes`.
        masks_from: The name of the folder that masks are from, if there are any.
        mixed: See `find_layouts`.

    Raises:
        ConfigurationError: `val_images` is not positive, or there is no such layout.
    """

    def __init__(
        self,
        root: str | Path,
        protocol: object,
        layouts: Mapping[str, Layout],
        *,
        layout: str | Layout,
        val_images: int,
        follow_links: bool,
        root_key: str,
        title: str = "",
        subfolders: re.Pattern[str] | None = None,
        blurred_all_over: bool = False,
        masks_from: str | None = None,
        mixed: bool = True,
    ) -> None:
        if val_images < 1:
            raise ConfigurationError(f"data.val_images={val_images}: give 1 or more")
        self.protocol = protocol
        if isinstance(layout, str) and layout not in ("auto", *layouts):
            raise ConfigurationError(
                f"{root_key.replace('root', 'layout')}={layout}: choose {', '.join(('auto', *layouts))}"
            )
        self._root = root
        self._root_key = root_key
        self._layouts = layouts if isinstance(layout, str) else {type(layout).__name__: layout}
        self._only = layout if isinstance(layout, str) and layout != "auto" else None
        self._val_images = val_images
        self._follow_links = follow_links
        self._title = title
        self._subfolders = subfolders
        self._blurred_all_over = blurred_all_over
        self._masks_from = masks_from
        self._mixed = mixed
        self._scenes: dict[Split, PictureScenes] = {}

    def splits(self) -> tuple[Split, ...]:
        """The splits that lie on disk, without those that another stands in for.

        Raises:
            DataError: The folder or the layout is missing.
        """
        return tuple(self._found().layouts)

    @property
    def descriptions(self) -> tuple[str, ...]:
        """The folders and names that each of its layouts is made of."""
        return tuple(layout.description for layout in self._layouts.values())

    def scenes(self, split: Split) -> PictureScenes:
        """The scenes of a split; the folder is looked through when they are first asked for.

        Raises:
            DataError: The folder, the layout, the split or a partner is missing.
        """
        if split not in self._scenes:
            self._scenes[split] = self._look_up(split)
        return self._scenes[split]

    def _look_up(self, split: Split) -> PictureScenes:
        found = self._found()
        if split not in found.layouts:
            return self._stand_in(split, found)
        name, layout = found.layouts[split]
        listing = layout.listing(found.data, split)
        made_up = read_record(found.data.path) is not None
        notes = [layout.note] if isinstance(layout, HeldOutFolders) else []
        if made_up:
            instead = f", not {self._title}" if self._title else ""
            notes.append(f"made-up scenes ({RECORD_NAME}){instead}")
        has_masks = any(pair.mask is not None for pair in listing.pairs)
        return PictureScenes(
            listing.pairs,
            blurred_all_over=self._blurred_all_over,
            note="; ".join(notes),
            faults=listing.faults,
            layout=name,
            root=found.data.path,
            masks_from=self._masks_from if has_masks else None,
            made_up=made_up,
        )

    def _stand_in(self, split: Split, found: Found) -> PictureScenes:
        """The scenes of another split, or a sample of them, for one that there is not."""
        if split == "val" and "test" in found.layouts:
            test = self.scenes("test")
            chosen = [test.pairs[index] for index in evenly_spaced(len(test.pairs), self._val_images)]
            return test.standing_in(chosen, "val is a sample of test")
        if split == "test" and "val" in found.layouts:
            val = self.scenes("val")
            return val.standing_in(val.pairs, "test is val, as there is no test folder")
        raise DataError(
            f"{quoted(found.data.path)} has no {split} split ({found.description}): "
            f"it has {', '.join(found.layouts)} alone"
        )

    def _found(self) -> Found:
        root = open_root(self._root, self._root_key, follow_links=self._follow_links)
        return find_layouts(
            root, self._layouts, self._subfolders, self._root_key, only=self._only, mixed=self._mixed
        )


class ReLoBlur(PictureSource):
    """ReLoBlur: 2010 training and 395 test pairs of local motion, with masks (Li et al., AAAI 2023).

    Args:
        root: The folder that holds `dataset` and the masks, or the one above it, with `ReLoBlur`.
        protocol: How restored pictures are scored.
        masks: The folder of masks below `root`. There are two releases: name the one that is used. None
            trains and scores without masks.
        layout: `auto` or `raw`, which is the published one; or another, and `masks` is then not looked at.
        val_images: `val` is an evenly spaced sample of at most so many test pairs, as the dataset has no
            validation split. The scores of a checkpoint that is chosen by it are optimistic.
        follow_links: Whether links in `root` may leave it, as where a dataset is put together from links.
        root_key: The setting that `root` is given by, for messages.

    Raises:
        ConfigurationError: `val_images` is not positive, or there is no such layout.
    """

    name = "reloblur"

    def __init__(
        self,
        root: str | Path,
        protocol: object,
        *,
        masks: str | None = "masks",
        layout: Literal["auto", "raw"] | Layout = "auto",
        val_images: Count = 50,
        follow_links: bool = False,
        root_key: str = "data.root",
    ) -> None:
        super().__init__(
            root,
            protocol,
            {"raw": RawReLoBlur(masks)},
            layout=layout,
            val_images=val_images,
            follow_links=follow_links,
            root_key=root_key,
            title="ReLoBlur",
            subfolders=re.compile("reloblur", re.IGNORECASE),
            masks_from=masks if isinstance(layout, str) else None,
        )


class GoPro(PictureSource):
    """GoPro: 2103 training and 1111 test pairs of camera motion (Nah et al., CVPR 2017).

    All of every picture counts as blurred, and that is known: the mask is all ones, as in M2AENet's training.

    Args:
        root: The folder that holds `train` and `test`, or the one above it, with `GOPRO_Large` or `GoPro`.
        protocol: How restored pictures are scored.
        blur: Which blurry pictures of the published layout: `blur`, which papers of today use, or
            `blur_gamma`.
        layout: `raw`, as published; `relaid` as `{input,target}`; `flat` as `{blur,sharp}`; of both a test
            set perhaps without a folder for the split; `auto` finds out, split by split. Or another, and
            `blur` is then not looked at.
        val_images: As in `ReLoBlur`.
        follow_links: Likewise.
        root_key: Likewise.

    Raises:
        ConfigurationError: `val_images` is not positive, `blur` is neither of the two, or there is no such
            layout, or none with that blur.
    """

    name = "gopro"

    def __init__(
        self,
        root: str | Path,
        protocol: object,
        *,
        blur: Literal["blur", "blur_gamma"] = "blur",
        layout: Literal["auto", "raw", "relaid", "flat"] | Layout = "auto",
        val_images: Count = 50,
        follow_links: bool = False,
        root_key: str = "data.root",
    ) -> None:
        if blur not in ("blur", "blur_gamma"):
            raise ConfigurationError(f"data.blur={blur}: choose blur or blur_gamma")
        layouts: dict[str, Layout] = {"raw": RawGoPro(blur)}
        # Other layouts do not say which blur they hold, and by custom hold `blur`.
        others: dict[str, Layout] = {"relaid": _RELAID, "flat": _FLAT}
        if blur == "blur":
            layouts |= others
        elif layout in others:
            raise ConfigurationError(
                f"data.blur={blur}: the layout {layout} does not say which blur it holds; choose "
                "data.blur=blur or the raw layout"
            )
        # Looked for where there is no blur_gamma, to say what is there instead.
        self._without_gamma = {} if blur == "blur" else others
        super().__init__(
            root,
            protocol,
            layouts,
            layout=layout,
            val_images=val_images,
            follow_links=follow_links,
            root_key=root_key,
            title="GoPro",
            subfolders=re.compile("gopro(_large)?", re.IGNORECASE),
            blurred_all_over=True,
        )

    def _found(self) -> Found:
        try:
            return super()._found()
        except DataError as error:
            if not self._without_gamma:
                raise
            root = open_root(self._root, self._root_key, follow_links=self._follow_links)
            try:
                there = find_layouts(root, self._without_gamma, self._subfolders, self._root_key)
            except DataError:
                raise error from None
            laid_out = " and ".join(dict.fromkeys(name for name, _ in there.layouts.values()))
            raise DataError(
                f"{self._root_key}={quoted(self._root)} is laid out as {laid_out}, which does not say "
                "what blur it holds: data.blur=blur_gamma is known in the published layout (raw) alone; "
                "give that, or data.blur=blur"
            ) from error


class HIDE(PictureSource):
    """HIDE: 6397 training and 2025 test pairs of people in motion (Shen et al., ICCV 2019).

    All of every picture counts as blurred, as in `GoPro`, as whose its pairs are made.

    Args:
        root: The folder that holds `train`, `test` and `GT`, or the one above it, with `HIDE_dataset` or
            `HIDE`.
        protocol: How restored pictures are scored.
        layout: `raw`, as published, or `relaid` or `flat` as in `GoPro`; `auto` finds out, split by split.
            Or another.
        val_images: As in `ReLoBlur`.
        follow_links: Likewise.
        root_key: Likewise.

    Raises:
        ConfigurationError: `val_images` is not positive, or there is no such layout.
    """

    name = "hide"

    def __init__(
        self,
        root: str | Path,
        protocol: object,
        *,
        layout: Literal["auto", "raw", "relaid", "flat"] | Layout = "auto",
        val_images: Count = 50,
        follow_links: bool = False,
        root_key: str = "data.root",
    ) -> None:
        super().__init__(
            root,
            protocol,
            {"raw": RawHIDE(), "relaid": _RELAID, "flat": _FLAT},
            layout=layout,
            val_images=val_images,
            follow_links=follow_links,
            root_key=root_key,
            title="HIDE",
            subfolders=re.compile("hide(_dataset)?", re.IGNORECASE),
            blurred_all_over=True,
        )


class RealBlur(PictureSource):
    """RealBlur-J or -R: 3758 training and 980 test pairs of camera shake in the dark (Rim et al., ECCV 2020).

    All of every picture counts as blurred.

    Args:
        root: The folder that holds the scenes' folder and the lists of pairs, that of J, of R or both; or the
            scenes' folder itself, or the one above, with `RealBlur`.
        protocol: How restored pictures are scored.
        kind: `j`, from the camera's JPEGs, or `r`, from its raw pictures.
        layout: `raw`, as published, or `relaid` or `flat` as in `GoPro`; `auto` finds out, split by split.
            Or another.
        val_images: As in `ReLoBlur`.
        follow_links: Likewise.
        root_key: Likewise.

    Raises:
        ConfigurationError: `val_images` is not positive, there is no such layout, or `kind` is neither of the
            two.
    """

    def __init__(
        self,
        root: str | Path,
        protocol: object,
        *,
        kind: Literal["j", "r"],
        layout: Literal["auto", "raw", "relaid", "flat"] | Layout = "auto",
        val_images: Count = 50,
        follow_links: bool = False,
        root_key: str = "data.root",
    ) -> None:
        if kind not in ("j", "r"):
            raise ConfigurationError(f"kind={kind}: choose j or r")
        self.name = f"realblur_{kind}"
        super().__init__(
            root,
            protocol,
            {"raw": RawRealBlur(kind), "relaid": _RELAID, "flat": _FLAT},
            layout=layout,
            val_images=val_images,
            follow_links=follow_links,
            root_key=root_key,
            title=f"RealBlur-{kind.upper()}",
            subfolders=re.compile(rf"realblur(_dataset)?|{names_of(kind).pattern}", re.IGNORECASE),
            blurred_all_over=True,
        )


class Folder(PictureSource):
    """Pictures of one's own: `{blurry,sharp[,mask]}/NAME.png`, paired by name.

    The two or three folders lie in `train/`, `val/` and `test/`, of which `val` and `test` stand in for each
    other where one is missing (`val` as a sample). Or they lie in `root` itself: then each `holdout_every`-th
    pair is kept for testing and the others are trained on.

    Args:
        root: The folder.
        protocol: How restored pictures are scored.
        name: What the dataset is called in scores and messages.
        layout: `split` or `unsplit`, as said above; `auto` finds out. Or another, and `holdout_every` is then
            not looked at.
        holdout_every: Which pairs of an unsplit folder are kept for testing. None trains and scores on all of
            them: right for scoring a net that was trained on something else.
        val_images: As in `ReLoBlur`, where there is no `val` folder.
        follow_links: As in `ReLoBlur`.
        root_key: Likewise.

    Raises:
        ConfigurationError: `val_images` is not positive, `holdout_every` is less than two, or there is no
            such layout.
    """

    def __init__(
        self,
        root: str | Path,
        protocol: object,
        *,
        name: str = "folder",
        layout: Literal["auto", "split", "unsplit"] | Layout = "auto",
        holdout_every: Annotated[int, Range(2)] | None = 10,
        val_images: Count = 50,
        follow_links: bool = False,
        root_key: str = "data.root",
    ) -> None:
        self.name = name
        folders = PairedFolders(mask="mask")
        super().__init__(
            root,
            protocol,
            {"split": folders, "unsplit": HeldOutFolders(folders, holdout_every)},
            layout=layout,
            val_images=val_images,
            follow_links=follow_links,
            root_key=root_key,
            masks_from=folders.mask if isinstance(layout, str) else None,
            # What lies at the top is then all there is: it could hold what also lies in a split's folder.
            mixed=False,
        )


def evenly_spaced(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the numbers from 0 to `count - 1`, evenly spaced and away from both ends."""
    chosen = min(count, wanted)
    return [(2 * index + 1) * count // (2 * chosen) for index in range(chosen)]
