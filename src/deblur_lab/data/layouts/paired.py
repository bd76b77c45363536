"""Two folders of pictures with equal names: how most people hand pairs around."""

from dataclasses import dataclass, field
from pathlib import Path

from deblur_lab.data.layouts.folders import DataFolder
from deblur_lab.data.layouts.pairing import Listing, Role, joined, name_key
from deblur_lab.data.samples import Split
from deblur_lab.errors import ConfigurationError, DataError
from deblur_lab.images import quoted


@dataclass(frozen=True)
class PairedFolders:
    """Two folders of pictures with equal names, perhaps a third of masks, in `train/`, `val/` and `test/`.

    Any split may be missing.

    Attributes:
        blurry: The name of the folder of blurry pictures.
        sharp: The name of the folder of sharp pictures.
        mask: The name of the folder of masks, None where there are none to look for. A split without this
            folder has no masks; a split with it has a mask for each pair.
        top: The split that the folders are of where they lie at the top, in no folder of a split, as test
            sets are handed around. None does not look there.
    """

    blurry: str = "blurry"
    sharp: str = "sharp"
    mask: str | None = None
    top: Split | None = None

    @property
    def description(self) -> str:
        """The folders and names that this layout is made of."""
        at_the_top = f" or {self.folders}/NAME.png" if self.top else ""
        return f"{{train,val,test}}/{self.folders}/NAME.png{at_the_top}"

    @property
    def folders(self) -> str:
        """The folders side by side, as in `{blurry,sharp[,mask]}`."""
        mask = f"[,{self.mask}]" if self.mask else ""
        return f"{{{self.blurry},{self.sharp}{mask}}}"

    def splits(self, data: DataFolder) -> tuple[Split, ...]:
        """The splits that a folder has in this layout."""
        splits: tuple[Split, ...] = ("train", "val", "test")
        return tuple(split for split in splits if self._folder(data, split) is not None)

    def listing(self, data: DataFolder, split: Split) -> Listing:
        """What a split is made of; see `Layout.listing`."""
        folder = self._folder(data, split)
        assert folder is not None, "`splits` lists it"
        return self.listing_of(folder, data)

    def fits(self, folder: Path, data: DataFolder) -> bool:
        """Whether a folder directly holds one of blurry and one of sharp pictures."""
        return data.is_folder(folder / self.blurry) and data.is_folder(folder / self.sharp)

    def _folder(self, data: DataFolder, split: Split) -> Path | None:
        """Where the folders of a split lie; None if nowhere. Its own folder comes before the top."""
        places = (data.path / split, *([data.path] if split == self.top else []))
        return next((place for place in places if self.fits(place, data)), None)

    def listing_of(self, folder: Path, data: DataFolder) -> Listing:
        """What a folder that `fits` is made of; see `Layout.listing`."""
        places: dict[Role, Path] = {"blurry": folder / self.blurry, "sharp": folder / self.sharp}
        if self.mask is not None and data.is_folder(folder / self.mask):
            places["mask"] = folder / self.mask
        return joined(
            [
                (role, name_key(path.stem), path)
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
