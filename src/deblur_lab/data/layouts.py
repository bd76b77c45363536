"""How datasets lie on disk: which blurry picture, sharp picture and mask belong together.

A layout is recognised by its folders and finds its pairs by names alone: no picture is opened, and no name
is taken for a pattern. Pictures are the files with one of `images.PICTURE_SUFFIXES` whose names do not begin
with a dot; other files are left alone, as are masks that belong to no pair. Names are compared without what
follows their last dot, and in Unicode's composed form, as some systems store names decomposed.

A symbolic link may point to anything inside the data folder; one that leaves it is a fault, unless
`DataFolder` is told to follow it.
"""

import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from deblur_lab.data.samples import Split
from deblur_lab.errors import ConfigurationError, DataError
from deblur_lab.images import PICTURE_SUFFIXES, quoted

Role = Literal["blurry", "sharp", "mask"]

_SHOWN_NAMES = 5


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
    faults: tuple[str, ...] = ()


class DataFolder:
    """A folder that is looked through by names, and the links met in it that leave it.

    Args:
        path: The folder; links that lead to it are followed.
        follow_links: Whether links in it may leave it, as where a dataset is put together from links.
    """

    def __init__(self, path: Path, *, follow_links: bool = False) -> None:
        self.path = path.resolve()
        self.follow_links = follow_links
        self._inside = [self.path]
        self._leaving: dict[Path, Path] = {}

    @property
    def faults(self) -> tuple[str, ...]:
        """The links met so far that leave the folder, each in one line; none if they may."""
        return tuple(
            f"{quoted(link)} is a link to {quoted(target)}, outside the data folder {quoted(self.path)}: "
            "copy that into it, or allow such links by data.follow_links=true"
            for link, target in self._leaving.items()
        )

    def below(self, name: str) -> "DataFolder":
        """A folder in it, to be looked through by itself; all of this one counts as inside."""
        folder = DataFolder(self.path / name, follow_links=self.follow_links)
        folder._inside += self._inside
        folder._leaving = self._leaving
        return folder

    def is_folder(self, path: Path) -> bool:
        """Whether a path is that of a folder."""
        if not os.path.isdir(path):
            return False
        self._note(path)
        return True

    def pictures(self, folder: Path) -> list[Path]:
        """The pictures that lie directly in a folder, sorted by name.

        Raises:
            DataError: It cannot be listed.
        """
        return [
            Path(entry.path)
            for entry in self.entries(folder)
            if os.path.splitext(entry.name)[1].lower() in PICTURE_SUFFIXES and not entry.is_dir()
        ]

    def folders(self, folder: Path) -> list[Path]:
        """The folders that lie directly in a folder, sorted by name.

        Raises:
            DataError: It cannot be listed.
        """
        return [Path(entry.path) for entry in self.entries(folder) if entry.is_dir()]

    def entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """What lies directly in a folder, sorted by name, but for what is hidden.

        Raises:
            DataError: It cannot be listed.
        """
        try:
            with os.scandir(folder) as found:
                entries = sorted(
                    (entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name
                )
        except OSError as error:
            raise DataError(f"{quoted(folder)} cannot be listed: {error.strerror or error}") from error
        for entry in entries:
            if entry.is_symlink():
                self._note(Path(entry.path))
        return entries

    def _note(self, path: Path) -> None:
        if self.follow_links:
            return
        if self._is_inside(path):
            return
        # The link that leaves is the path itself or a folder above it.
        within = [above for above in (*reversed(path.parents), path) if above.is_relative_to(self.path)]
        link = next(above for above in within if not self._is_inside(above))
        self._leaving.setdefault(link, Path(os.path.realpath(link)))

    def _is_inside(self, path: Path) -> bool:
        target = Path(os.path.realpath(path))
        return any(target.is_relative_to(inside) for inside in self._inside)


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


def open_root(root: str | Path, root_key: str = "data.root", *, follow_links: bool = False) -> DataFolder:
    """The data folder; messages call it `root_key`.

    Raises:
        DataError: There is no such folder.
    """
    if not str(root):
        raise DataError(f"{root_key} is empty: give the folder that holds the dataset")
    path = Path(os.path.expanduser(root))
    if not os.path.isdir(path):
        state = "is not a folder" if os.path.exists(path) else "does not exist"
        raise DataError(f"{root_key}={quoted(path)} {state}: give the folder that holds the dataset")
    return DataFolder(path, follow_links=follow_links)


def find_layout(
    root: DataFolder, layouts: Sequence[Layout], subfolders: Sequence[str] = (), root_key: str = "data.root"
) -> tuple[Layout, DataFolder]:
    """The first layout that fits, and the folder that it fits: `root` or one of its `subfolders`.

    Messages call the root `root_key`.

    Raises:
        DataError: None fits; says what was looked for and what is there.
    """
    inner = [root.below(name) for name in subfolders if root.is_folder(root.path / name)]
    for folder in [root, *inner]:
        for layout in layouts:
            if layout.splits(folder):
                return layout, folder
    wanted = " or ".join(layout.description for layout in layouts)
    there = _listed([entry.name for entry in root.entries(root.path)]) or "nothing"
    raise DataError(
        f"{root_key}={quoted(root.path)} has no known layout: looked for {wanted}; it holds {there}"
    )


@dataclass(frozen=True)
class PairedFolders:
    """Two folders of pictures with equal names, perhaps a third of masks, in `train/`, `val/` and `test/`.

    Any split may be missing.

    Attributes:
        blurry: The name of the folder of blurry pictures.
        sharp: The name of the folder of sharp pictures.
        mask: The name of the folder of masks, None where there are none to look for. A split without this
            folder has no masks; a split with it has a mask for each pair.
    """

    blurry: str = "blurry"
    sharp: str = "sharp"
    mask: str | None = None

    @property
    def description(self) -> str:
        """The folders and names that this layout is made of."""
        return f"{{train,val,test}}/{self.folders}/NAME.png"

    @property
    def folders(self) -> str:
        """The folders side by side, as in `{blurry,sharp[,mask]}`."""
        mask = f"[,{self.mask}]" if self.mask else ""
        return f"{{{self.blurry},{self.sharp}{mask}}}"

    def splits(self, data: DataFolder) -> tuple[Split, ...]:
        """The splits that a folder has in this layout."""
        splits: tuple[Split, ...] = ("train", "val", "test")
        return tuple(split for split in splits if self.fits(data.path / split, data))

    def listing(self, data: DataFolder, split: Split) -> Listing:
        """What a split is made of; see `Layout.listing`."""
        return self.listing_of(data.path / split, data)

    def fits(self, folder: Path, data: DataFolder) -> bool:
        """Whether a folder directly holds one of blurry and one of sharp pictures."""
        return data.is_folder(folder / self.blurry) and data.is_folder(folder / self.sharp)

    def listing_of(self, folder: Path, data: DataFolder) -> Listing:
        """What a folder that `fits` is made of; see `Layout.listing`."""
        places: dict[Role, Path] = {"blurry": folder / self.blurry, "sharp": folder / self.sharp}
        if self.mask is not None and data.is_folder(folder / self.mask):
            places["mask"] = folder / self.mask
        return _joined(
            [
                (role, _key(path.stem), path)
                for role, place in places.items()
                for path in data.pictures(place)
            ],
            data,
            where=folder,
            partner=lambda role, path: places[role] / path.name,
            has_masks="mask" in places,
        )


@dataclass(frozen=True)
class HeldOutFolders:
    """Two folders of pictures directly below the root, not split: each so-many-th pair is kept for testing.

    Of the pairs in the order of their names, `test` has each `every`-th and `train` the others; of fewer than
    `every` pairs `test` has the last, and so a single pair is for testing. There is no `val`.

    Attributes:
        folders: The folders that lie below the root.
        every: Which pairs are held out; None puts all of them into both `train` and `test`.
    """

    folders: PairedFolders = field(default_factory=PairedFolders)
    every: int | None = 10

    def __post_init__(self) -> None:
        if self.every is not None and self.every < 2:
            raise ConfigurationError(
                f"data.holdout_every={self.every}: give 2 or more, or null to hold out none"
            )

    @property
    def description(self) -> str:
        """The folders and names that this layout is made of."""
        return f"{self.folders.folders}/NAME.png"

    @property
    def note(self) -> str:
        """What became of the pairs, in words."""
        if self.every is None:
            return "the same pairs train and test (data.holdout_every=null)"
        return f"one pair in {self.every} is kept for testing (data.holdout_every)"

    def splits(self, data: DataFolder) -> tuple[Split, ...]:
        """The splits that are made of a folder."""
        return ("train", "test") if self.folders.fits(data.path, data) else ()

    def listing(self, data: DataFolder, split: Split) -> Listing:
        """What a split is made of; see `Layout.listing`."""
        listing = self.folders.listing_of(data.path, data)
        pairs = listing.pairs
        if self.every is None or listing.faults:
            return listing
        held_out = set(range(self.every - 1, len(pairs), self.every)) or {len(pairs) - 1}
        chosen = tuple(pair for index, pair in enumerate(pairs) if (index in held_out) == (split == "test"))
        if not chosen:
            raise DataError(
                f"{quoted(data.path)} holds a single pair, which is kept for testing: add pairs to train on, "
                "or let data.holdout_every=null train and test on all"
            )
        return Listing(chosen)


@dataclass(frozen=True)
class RawGoPro:
    """GoPro as it is published: `{train,test}/SEQUENCE/{blur,blur_gamma,sharp}/NNNNNN.png`.

    Attributes:
        blur: The folder of blurry pictures: `blur`, averaged as recorded, which papers of today use, or
            `blur_gamma`, averaged after a gamma curve was undone.
    """

    blur: Literal["blur", "blur_gamma"] = "blur"

    @property
    def description(self) -> str:
        """The folders and names that this layout is made of."""
        return f"{{train,test}}/SEQUENCE/{{{self.blur},sharp}}/NNNNNN.png"

    def splits(self, data: DataFolder) -> tuple[Split, ...]:
        """The splits that a folder has in this layout."""
        splits: tuple[Split, ...] = ("train", "test")
        return tuple(
            split
            for split in splits
            if data.is_folder(data.path / split)
            and any(data.is_folder(folder / "sharp") for folder in data.folders(data.path / split))
        )

    def listing(self, data: DataFolder, split: Split) -> Listing:
        """What a split is made of; see `Layout.listing`."""
        return _joined(
            [*self._files(data.path / split, data)],
            data,
            where=data.path / split,
            partner=lambda role, path: path.parent.with_name(self._folder(role)) / path.name,
        )

    def _folder(self, role: Role) -> str:
        return self.blur if role == "blurry" else "sharp"

    def _files(self, split: Path, data: DataFolder) -> Iterator[tuple[Role, str, Path]]:
        roles: tuple[Role, ...] = ("blurry", "sharp")
        for sequence in data.folders(split):
            for role in roles:
                folder = sequence / self._folder(role)
                for path in data.pictures(folder) if data.is_folder(folder) else ():
                    yield role, f"{_key(sequence.name)}/{_key(path.stem)}", path


@dataclass(frozen=True)
class RawReLoBlur:
    """ReLoBlur as it is published: `dataset/{train,test}/SCENE/SEQ/NN_{blur,sharp}.png` and masks beside it.

    Attributes:
        masks: The folder of masks below the root, laid out as `masks/{train,test}/SCENE/SEQ/NN.png`; there is
            more than one release of them. None uses no masks.
    """

    masks: str | None = "masks"

    @property
    def description(self) -> str:
        """The folders and names that this layout is made of."""
        masks = f" with {self.masks}/{{train,test}}/SCENE/SEQ/NN.png" if self.masks else ""
        return f"dataset/{{train,test}}/SCENE/SEQ/NN_{{blur,sharp}}.png{masks}"

    def splits(self, data: DataFolder) -> tuple[Split, ...]:
        """The splits that a folder has in this layout."""
        splits: tuple[Split, ...] = ("train", "test")
        return tuple(split for split in splits if data.is_folder(data.path / "dataset" / split))

    def listing(self, data: DataFolder, split: Split) -> Listing:
        """What a split is made of; see `Layout.listing`."""
        pictures = data.path / "dataset" / split
        masks = None if self.masks is None else data.path / self.masks / split
        absent = masks is not None and not data.is_folder(masks.parent)

        def partner(role: Role, path: Path) -> Path:
            number = path.stem.rpartition("_")[0]
            if role == "mask":
                assert masks is not None, "masks are missed only where they are looked for"
                return masks / path.parent.relative_to(pictures) / f"{number}.png"
            return path.with_name(f"{number}_{'blur' if role == 'blurry' else 'sharp'}{path.suffix}")

        listing = _joined(
            [*self._files(pictures, masks, data)],
            data,
            where=pictures,
            partner=partner,
            has_masks=masks is not None and not absent,
        )
        if masks is None or not absent:
            return listing
        # One line, not one for each of two thousand pairs.
        fault = (
            f"{quoted(masks.parent)} is no folder: name that of the mask release by data.masks=..., or do "
            "without masks by data.masks=null"
        )
        return Listing(listing.pairs, (fault, *listing.faults))

    def _files(
        self, pictures: Path, masks: Path | None, data: DataFolder
    ) -> Iterator[tuple[Role, str, Path]]:
        roles: dict[str, Role] = {"blur": "blurry", "sharp": "sharp"}
        for folder, path in self._numbered(pictures, data):
            number, _, ending = path.stem.rpartition("_")
            if ending in roles:
                yield roles[ending], f"{folder}/{_key(number)}", path
        if masks is not None and data.is_folder(masks):
            for folder, path in self._numbered(masks, data):
                yield "mask", f"{folder}/{_key(path.stem)}", path

    def _numbered(self, split: Path, data: DataFolder) -> Iterator[tuple[str, Path]]:
        for scene in data.folders(split):
            for sequence in data.folders(scene):
                for path in data.pictures(sequence):
                    yield f"{_key(scene.name)}/{_key(sequence.name)}", path


def _joined(
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
    """
    found: dict[Role, dict[str, Path]] = {"blurry": {}, "sharp": {}, "mask": {}}
    faults = [*data.faults]
    for role, name, path in files:
        first = found[role].setdefault(name, path)
        if first is not path:
            faults.append(f"{quoted(first)} and {quoted(path)} have one name: remove one of them")
    blurry, sharp, masks = found["blurry"], found["sharp"], found["mask"]
    if not blurry and not sharp:
        raise DataError(f"{quoted(where)} is empty: it holds no pictures in this layout")
    lone: list[tuple[Path, str]] = []
    for name in sorted({*blurry, *sharp}):
        if name not in sharp:
            lone.append((blurry[name], f"partner: {quoted(partner('sharp', blurry[name]))} is missing"))
        elif name not in blurry:
            lone.append((sharp[name], f"partner: {quoted(partner('blurry', sharp[name]))} is missing"))
        elif has_masks and name not in masks:
            lone.append((blurry[name], f"mask: {quoted(partner('mask', blurry[name]))} is missing"))
    faults += [f"{quoted(path)} has no {what}" for path, what in sorted(lone)]
    pairs = tuple(
        Pair(name, blurry[name], sharp[name], masks[name] if has_masks else None)
        for name in sorted(blurry)
        if name in sharp and (name in masks or not has_masks)
    )
    return Listing(pairs, tuple(faults))


def _listed(names: list[str]) -> str:
    shown = ", ".join(quoted(name) for name in names[:_SHOWN_NAMES])
    return f"{shown} and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else shown


def _key(stem: str) -> str:
    """A name in Unicode's composed form; bytes that are no text become escapes, so that it can be printed."""
    return unicodedata.normalize("NFC", stem).encode("utf-8", "backslashreplace").decode("utf-8")
