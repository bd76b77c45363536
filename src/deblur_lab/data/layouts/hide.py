"""HIDE as it is published."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deblur_lab.data.layouts.folders import DataFolder
from deblur_lab.data.layouts.pairing import Listing, Role, joined, name_key
from deblur_lab.data.samples import Split

_SHARP = "GT"
_OF_RELAID = frozenset({"input", "target", "blur", "sharp"})


@dataclass(frozen=True)
class RawHIDE:
    """HIDE as it is published: `train`, `test/{test-close-ups,test-long-shot}` and `GT`, paired by name.

    The sharp pictures of both splits lie in `GT/`; in some copies in `GT/train` and `GT/test`, which may be
    divided as the blurry ones are. Sharp pictures without a blurry one are left alone, as a copy without the
    training pictures may still have theirs. Folders in `train` and `test` may have other names.
    """

    @property
    def description(self) -> str:
        """The folders and names that this layout is made of."""
        return "{train,test/test-close-ups,test/test-long-shot}/NAME.png with GT/NAME.png"

    def splits(self, data: DataFolder) -> tuple[Split, ...]:
        """The splits that a folder has in this layout."""
        if not data.is_folder(data.path / _SHARP):
            return ()
        splits: tuple[Split, ...] = ("train", "test")
        return tuple(
            split
            for split in splits
            if data.is_folder(data.path / split)
            and not any(data.is_folder(data.path / split / name) for name in _OF_RELAID)
        )

    def listing(self, data: DataFolder, split: Split) -> Listing:
        """What a split is made of; see `Layout.listing`."""
        files: list[tuple[Role, str, Path]] = [
            ("blurry", name_key(path.stem), path) for path in _pictures(data.path / split, data)
        ]
        names = {name for _, name, _ in files}
        files += [
            ("sharp", name, path)
            for path in self._sharp(data, split)
            if (name := name_key(path.stem)) in names
        ]
        return joined(
            files,
            data,
            where=data.path / split,
            partner=lambda role, path: data.path / _SHARP / path.name,
        )

    def _sharp(self, data: DataFolder, split: Split) -> Iterator[Path]:
        sharp = data.path / _SHARP
        yield from data.pictures(sharp)
        if data.is_folder(sharp / split):
            yield from _pictures(sharp / split, data)
        for shot in data.folders(data.path / split):
            if data.is_folder(sharp / shot.name):
                yield from data.pictures(sharp / shot.name)


def _pictures(folder: Path, data: DataFolder) -> Iterator[Path]:
    """The pictures in a folder and in the folders that lie in it."""
    yield from data.pictures(folder)
    for inner in data.folders(folder):
        yield from data.pictures(inner)
