"""How datasets lie on disk: which blurry picture, sharp picture and mask belong together.

A layout is recognised by its folders and finds its pairs by names alone: no picture is opened, and no name
is taken for a pattern. Pictures are the files with one of `images.PICTURE_SUFFIXES` whose names do not begin
with a dot; other files are left alone, as are masks that belong to no pair. Names are compared without what
follows their last dot, and in Unicode's composed form, as some systems store names decomposed.

A symbolic link may point to anything inside the data folder; one that leaves it is refused.
"""

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from deblur_lab.data.samples import Split
from deblur_lab.errors import ConfigurationError, DataError
from deblur_lab.images import PICTURE_SUFFIXES, ImageError, check_picture, quoted

Role = Literal["blurry", "sharp", "mask"]

_SHOWN_NAMES = 5
_SHOWN_PROBLEMS = 200


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


class Layout(Protocol):
    """One way to lay out a dataset below its root."""

    @property
    def description(self) -> str:
        """The folders and names that this layout is made of."""
        ...

    def splits(self, root: Path) -> tuple[Split, ...]:
        """The splits that `root` has in this layout; none at all where the layout is another."""
        ...

    def pairs(self, root: Path, split: Split) -> list[Pair]:
        """The pairs of a split that `splits` lists, sorted by name.

        Raises:
            DataError: The split is empty, a picture has no partner, a mask is missing, a link leaves `root`.
        """
        ...


def open_root(root: str | Path, root_key: str = "data.root") -> Path:
    """The data folder, absolute and with the links that lead to it followed; messages call it `root_key`.

    Raises:
        DataError: There is no such folder.
    """
    if not str(root):
        raise DataError(f"{root_key} is empty: give the folder that holds the dataset")
    path = Path(os.path.expanduser(root))
    if not os.path.isdir(path):
        state = "is not a folder" if os.path.exists(path) else "does not exist"
        raise DataError(f"{root_key}={quoted(path)} {state}: give the folder that holds the dataset")
    return path.resolve()


def find_layout(
    root: Path, layouts: Sequence[Layout], subfolders: Sequence[str] = (), root_key: str = "data.root"
) -> tuple[Layout, Path]:
    """The first layout that fits, and the folder that it fits: `root` or one of its `subfolders`.

    Messages call the root `root_key`.

    Raises:
        DataError: None fits; says what was looked for and what is there.
    """
    inner = [root / name for name in subfolders if _is_folder(root / name, root)]
    for folder in [root, *inner]:
        for layout in layouts:
            if layout.splits(folder):
                return layout, folder.resolve()
    wanted = " or ".join(layout.description for layout in layouts)
    names = [entry.name for entry in _entries(root, root)]
    there = _listed(names) or "nothing"
    raise DataError(f"{root_key}={quoted(root)} has no known layout: looked for {wanted}; it holds {there}")


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

    def splits(self, root: Path) -> tuple[Split, ...]:
        """The splits that `root` has in this layout."""
        splits: tuple[Split, ...] = ("train", "val", "test")
        return tuple(split for split in splits if self.fits(root / split, root))

    def pairs(self, root: Path, split: Split) -> list[Pair]:
        """The pairs of a split; see `Layout.pairs`."""
        return self.pairs_in(root / split, root)

    def fits(self, folder: Path, root: Path) -> bool:
        """Whether a folder directly holds one of blurry and one of sharp pictures."""
        return _is_folder(folder / self.blurry, root) and _is_folder(folder / self.sharp, root)

    def pairs_in(self, folder: Path, root: Path) -> list[Pair]:
        """The pairs of a folder that `fits`; see `Layout.pairs`."""
        places: dict[Role, Path] = {"blurry": folder / self.blurry, "sharp": folder / self.sharp}
        if self.mask is not None and _is_folder(folder / self.mask, root):
            places["mask"] = folder / self.mask
        return _joined(
            (
                (role, _key(path.stem), path)
                for role, place in places.items()
                for path in _pictures(place, root)
            ),
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

    def splits(self, root: Path) -> tuple[Split, ...]:
        """The splits that are made of `root`."""
        return ("train", "test") if self.folders.fits(root, root) else ()

    def pairs(self, root: Path, split: Split) -> list[Pair]:
        """The pairs of a split; see `Layout.pairs`."""
        pairs = self.folders.pairs_in(root, root)
        if self.every is None:
            return pairs
        held_out = set(range(self.every - 1, len(pairs), self.every)) or {len(pairs) - 1}
        chosen = [pair for index, pair in enumerate(pairs) if (index in held_out) == (split == "test")]
        if not chosen:
            raise DataError(
                f"{quoted(root)} holds a single pair, which is kept for testing: add pairs to train on, "
                "or let data.holdout_every=null train and test on all"
            )
        return chosen


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

    def splits(self, root: Path) -> tuple[Split, ...]:
        """The splits that `root` has in this layout."""
        splits: tuple[Split, ...] = ("train", "test")
        return tuple(
            split
            for split in splits
            if _is_folder(root / split, root)
            and any(_is_folder(folder / "sharp", root) for folder in _folders(root / split, root))
        )

    def pairs(self, root: Path, split: Split) -> list[Pair]:
        """The pairs of a split; see `Layout.pairs`."""
        return _joined(
            self._files(root / split, root),
            where=root / split,
            partner=lambda role, path: path.parent.with_name(self._folder(role)) / path.name,
        )

    def _folder(self, role: Role) -> str:
        return self.blur if role == "blurry" else "sharp"

    def _files(self, split: Path, root: Path) -> Iterator[tuple[Role, str, Path]]:
        roles: tuple[Role, ...] = ("blurry", "sharp")
        for sequence in _folders(split, root):
            for role in roles:
                folder = sequence / self._folder(role)
                for path in _pictures(folder, root) if _is_folder(folder, root) else ():
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

    def splits(self, root: Path) -> tuple[Split, ...]:
        """The splits that `root` has in this layout."""
        splits: tuple[Split, ...] = ("train", "test")
        return tuple(split for split in splits if _is_folder(root / "dataset" / split, root))

    def pairs(self, root: Path, split: Split) -> list[Pair]:
        """The pairs of a split; see `Layout.pairs`."""
        pictures = root / "dataset" / split
        masks = None if self.masks is None else root / self.masks / split

        def partner(role: Role, path: Path) -> Path:
            number = path.stem.rpartition("_")[0]
            if role == "mask":
                assert masks is not None, "masks are missed only where they are looked for"
                return masks / path.parent.relative_to(pictures) / f"{number}.png"
            return path.with_name(f"{number}_{'blur' if role == 'blurry' else 'sharp'}{path.suffix}")

        return _joined(
            self._files(pictures, masks, root),
            where=pictures,
            partner=partner,
            has_masks=masks is not None,
        )

    def _files(self, pictures: Path, masks: Path | None, root: Path) -> Iterator[tuple[Role, str, Path]]:
        roles: dict[str, Role] = {"blur": "blurry", "sharp": "sharp"}
        for folder, path in self._numbered(pictures, root):
            number, _, ending = path.stem.rpartition("_")
            if ending in roles:
                yield roles[ending], f"{folder}/{_key(number)}", path
        if masks is not None and _is_folder(masks, root):
            for folder, path in self._numbered(masks, root):
                yield "mask", f"{folder}/{_key(path.stem)}", path

    def _numbered(self, split: Path, root: Path) -> Iterator[tuple[str, Path]]:
        for scene in _folders(split, root):
            for sequence in _folders(scene, root):
                for path in _pictures(sequence, root):
                    yield f"{_key(scene.name)}/{_key(sequence.name)}", path


def find_problems(
    pairs: Sequence[Pair], num_workers: int = 4, *, full: bool = False, smallest_px: int = 1
) -> list[str]:
    """Everything that keeps pairs from being used, each in one line.

    Looked for are files that are missing, empty, cut off or otherwise unreadable (`images.check_picture` says
    what is seen in which format), pictures and masks whose size is not that of their partner, and
    pictures that are too small.

    Args:
        pairs: The pairs.
        num_workers: How many threads read files.
        full: Decode every file, which finds damage anywhere in it.
        smallest_px: The smallest width and height allowed.
    """
    with ThreadPoolExecutor(max_workers=max(num_workers, 1)) as pool:
        found = pool.map(lambda pair: _problems_of(pair, full, smallest_px), pairs)
        return [problem for problems in found for problem in problems]


def refuse(problems: Sequence[str]) -> None:
    """Raise what `find_problems` found, if anything.

    Raises:
        DataError: Of several lines: how many problems there are, and the first 200.
    """
    if not problems:
        return
    lines = [
        f"{len(problems)} problem(s) with the pictures; mend or remove these files:",
        *problems[:_SHOWN_PROBLEMS],
    ]
    if len(problems) > _SHOWN_PROBLEMS:
        lines.append(f"and {len(problems) - _SHOWN_PROBLEMS} more")
    raise DataError("\n  ".join(lines))


def _problems_of(pair: Pair, full: bool, smallest_px: int) -> list[str]:
    problems: list[str] = []
    sizes: dict[Path, tuple[int, int]] = {}
    for path in (pair.blurry, pair.sharp, pair.mask):
        if path is None:
            continue
        try:
            sizes[path] = check_picture(path, full=full, as_mask=path == pair.mask)
        except ImageError as error:
            known = path == pair.mask and path.is_file() and path.stat().st_size == 0
            hint = "; ReLoBlur's first release of masks is known for this (train/s09): take the later one"
            problems.append(f"{error}{hint if known else ''}")
    for path in (pair.sharp, pair.mask):
        if path is not None and path in sizes and pair.blurry in sizes and sizes[path] != sizes[pair.blurry]:
            problems.append(f"{_with_size(pair.blurry, sizes)} but {_with_size(path, sizes)}: sizes differ")
    if pair.blurry in sizes and min(sizes[pair.blurry]) < smallest_px:
        problems.append(
            f"{_with_size(pair.blurry, sizes)}, smaller than data.patch_size={smallest_px}: "
            f"data.patch_size={min(sizes[pair.blurry])} at most would fit"
        )
    return problems


def _with_size(path: Path, sizes: dict[Path, tuple[int, int]]) -> str:
    width, height = sizes[path]
    return f"{quoted(path)} is {width} x {height}"


def _joined(
    files: Iterable[tuple[Role, str, Path]],
    *,
    where: Path,
    partner: Callable[[Role, Path], Path],
    has_masks: bool = False,
) -> list[Pair]:
    """The files with equal names as pairs.

    Args:
        files: What each file is, the name of its pair, and its path.
        where: The folder of the split, for messages.
        partner: Where the partner of a file in another role is expected.
        has_masks: Whether each pair needs a mask.
    """
    found: dict[Role, dict[str, Path]] = {"blurry": {}, "sharp": {}, "mask": {}}
    for role, name, path in files:
        first = found[role].setdefault(name, path)
        if first is not path:
            raise DataError(f"{quoted(first)} and {quoted(path)} have one name: remove one of them")
    blurry, sharp, masks = found["blurry"], found["sharp"], found["mask"]
    if not blurry and not sharp:
        raise DataError(f"{quoted(where)} is empty: it holds no pictures in this layout")
    alone = [(path, partner("sharp", path)) for name, path in blurry.items() if name not in sharp]
    alone += [(path, partner("blurry", path)) for name, path in sharp.items() if name not in blurry]
    if alone:
        raise DataError(f"{len(alone)} picture(s) in {quoted(where)} have no partner: {_missing(alone)}")
    unmasked = [
        (path, partner("mask", path)) for name, path in blurry.items() if has_masks and name not in masks
    ]
    if unmasked:
        raise DataError(f"{len(unmasked)} picture(s) in {quoted(where)} have no mask: {_missing(unmasked)}")
    return [
        Pair(name, blurry[name], sharp[name], masks[name] if has_masks else None) for name in sorted(blurry)
    ]


def _missing(partners: list[tuple[Path, Path]]) -> str:
    shown = [f"{quoted(path)} has no {quoted(missing)}" for path, missing in sorted(partners)[:_SHOWN_NAMES]]
    return "; ".join([*shown, *(["..."] if len(partners) > _SHOWN_NAMES else [])])


def _listed(names: list[str]) -> str:
    shown = ", ".join(quoted(name) for name in names[:_SHOWN_NAMES])
    return f"{shown} and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else shown


def _key(stem: str) -> str:
    """A name in Unicode's composed form; bytes that are no text become escapes, so that it can be printed."""
    return unicodedata.normalize("NFC", stem).encode("utf-8", "backslashreplace").decode("utf-8")


def _pictures(folder: Path, root: Path) -> list[Path]:
    return [
        Path(entry.path)
        for entry in _entries(folder, root)
        if os.path.splitext(entry.name)[1].lower() in PICTURE_SUFFIXES and not entry.is_dir()
    ]


def _folders(folder: Path, root: Path) -> list[Path]:
    return [Path(entry.path) for entry in _entries(folder, root) if entry.is_dir()]


def _entries(folder: Path, root: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, sorted by name, but for what is hidden."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(
                (entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name
            )
    except OSError as error:
        raise DataError(f"{quoted(folder)} cannot be listed: {error.strerror or error}") from error
    for entry in entries:
        if entry.is_symlink():
            _refuse_leaving(Path(entry.path), root)
    return entries


def _is_folder(path: Path, root: Path) -> bool:
    if not os.path.isdir(path):
        return False
    _refuse_leaving(path, root)
    return True


def _refuse_leaving(path: Path, root: Path) -> None:
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(os.path.realpath(root)):
        raise DataError(
            f"{quoted(path)} is a link to {quoted(target)}, outside the data folder {quoted(root)}: "
            "copy what it points to into the folder, or give the folder that holds it as data.root"
        )
