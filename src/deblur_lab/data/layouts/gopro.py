"""GoPro as it is published."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deblur_lab.data.layouts.faults import Fault
from deblur_lab.data.layouts.folders import DataFolder
from deblur_lab.data.layouts.pairing import Listing, Role, joined, name_key
from deblur_lab.data.samples import Split
from deblur_lab.images import quoted


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
        lacking = [each for each in self.splits(data) if self._has_other_blur_alone(data, each)]
        if split in lacking:
            # One line, not one for each of two thousand pairs.
            where = data.path if lacking == [*self.splits(data)] else data.path / split
            fault = Fault(
                f"{quoted(where)}: only {self._other_blur} is here: fetch {self.blur}, or say "
                f"data.blur={self._other_blur}",
                "unpaired",
            )
            return Listing((), (*data.faults, fault))
        return joined(
            [*self._files(data.path / split, data)],
            data,
            where=data.path / split,
            partner=lambda role, path: path.parent.with_name(self._folder(role)) / path.name,
        )

    @property
    def _other_blur(self) -> str:
        return "blur" if self.blur == "blur_gamma" else "blur_gamma"

    def _has_other_blur_alone(self, data: DataFolder, split: Split) -> bool:
        """Whether the sequences of a split have folders of the other kind of blur, and none of this one."""
        sequences = data.folders(data.path / split)
        has = {
            name: any(data.is_folder(folder / name) for folder in sequences)
            for name in (self.blur, self._other_blur)
        }
        return has[self._other_blur] and not has[self.blur]

    def _folder(self, role: Role) -> str:
        return self.blur if role == "blurry" else "sharp"

    def _files(self, split: Path, data: DataFolder) -> Iterator[tuple[Role, str, Path]]:
        roles: tuple[Role, ...] = ("blurry", "sharp")
        for sequence in data.folders(split):
            for role in roles:
                folder = sequence / self._folder(role)
                for path in data.pictures(folder) if data.is_folder(folder) else ():
                    yield role, f"{name_key(sequence.name)}/{name_key(path.stem)}", path
