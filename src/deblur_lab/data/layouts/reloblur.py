"""ReLoBlur as it is published."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deblur_lab.data.layouts.faults import Fault
from deblur_lab.data.layouts.folders import DataFolder
from deblur_lab.data.layouts.pairing import Listing, Role, joined, name_key
from deblur_lab.data.samples import Split
from deblur_lab.images import quoted


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

        listing = joined(
            [*self._files(pictures, masks, data)],
            data,
            where=pictures,
            partner=partner,
            has_masks=masks is not None and not absent,
        )
        if masks is None or not absent:
            return listing
        # One line, not one for each of two thousand pairs.
        fault = Fault(
            f"{quoted(masks.parent)} is no folder: name that of the mask release by data.masks=..., or do "
            "without masks by data.masks=null",
            "mask_missing",
        )
        return Listing(listing.pairs, (fault, *listing.faults))

    def _files(
        self, pictures: Path, masks: Path | None, data: DataFolder
    ) -> Iterator[tuple[Role, str, Path]]:
        roles: dict[str, Role] = {"blur": "blurry", "sharp": "sharp"}
        for folder, path in self._numbered(pictures, data):
            number, _, ending = path.stem.rpartition("_")
            if ending in roles:
                yield roles[ending], f"{folder}/{name_key(number)}", path
        if masks is not None and data.is_folder(masks):
            for folder, path in self._numbered(masks, data):
                yield "mask", f"{folder}/{name_key(path.stem)}", path

    def _numbered(self, split: Path, data: DataFolder) -> Iterator[tuple[str, Path]]:
        for scene in data.folders(split):
            for sequence in data.folders(scene):
                for path in data.pictures(sequence):
                    yield f"{name_key(scene.name)}/{name_key(sequence.name)}", path
