"""A folder of pictures that another program restored, taken for a dataset's test split."""

from functools import partial
from pathlib import Path
from typing import Any

from deblur_lab.console import say
from deblur_lab.data import DeblurDataModule
from deblur_lab.data.checking import refuse
from deblur_lab.data.picture_scenes import PictureScenes
from deblur_lab.data.restored import PartOfScenes, faults_of_files, pictures_below
from deblur_lab.data.restored_names import Matched, listed, match
from deblur_lab.data.samples import SceneSet, Source, Split
from deblur_lab.errors import DataError
from deblur_lab.images import quoted
from deblur_lab.tasks import GivenPictures


def restored_folder(
    folder: Path, datamodule: DeblurDataModule, *, subset: bool = False
) -> tuple[GivenPictures, DeblurDataModule, list[dict[str, Any]]]:
    """Tell which picture of the test split each picture of a folder is; say what is noteworthy of them.

    Of several datasets, each has a folder of its name in it.

    Args:
        folder: of the restored pictures.
        datamodule: whose test split was set up.
        subset: score those that there are, though others are missing.

    Returns:
        What hands them on; the data to score, which are a part of the given ones if pictures are missing; and
        what there is to say in each dataset's result.

    Raises:
        DataError: of all pictures that are missing, ambiguous, cannot be read or have another size.
    """
    several = len(datamodule.sources) > 1
    found: list[Matched] = []
    faults: list[str] = []
    more: list[dict[str, Any]] = []
    threads = max(datamodule.num_workers, 4)
    for source in datamodule.sources:
        scenes = source.scenes("test")
        place = folder / source.name if several else folder
        pictures = pictures_below(place)
        matched = match([scenes.name(index) for index in range(len(scenes))], pictures, place)
        wrong, jpegs = faults_of_files(matched, partial(_pair_of, scenes), threads)
        faults += [*matched.faults, *wrong]
        if matched.missing and (not subset or not matched.files):
            faults.append(_missing(matched, scenes, place, subset=subset))
        if matched.extra:
            names = listed([_below(path, place) for path in matched.extra])
            say(f"{source.name}: {len(matched.extra)} other pictures in {place} are not looked at: {names}")
        if jpegs:
            say(
                f"{source.name}: {jpegs} of {len(matched.files)} restored pictures are JPEGs, which lose "
                "detail: published numbers are those of pictures that do not"
            )
        more.append({"missing": len(matched.missing), "jpegs": jpegs})
        found.append(matched)
    if any(matched.files for matched in found):
        refuse(faults)
    refuse(faults, advice="")  # where no picture was found, files are not to blame
    if not any(matched.missing for matched in found):
        return GivenPictures([matched.files for matched in found]), datamodule, more
    parts: list[Source] = []
    files: list[dict[int, Path]] = []
    for source, matched in zip(datamodule.sources, found, strict=True):
        indices = list(matched.files)
        parts.append(_PartOfSource(source, PartOfScenes(source.scenes("test"), indices)))
        files.append({place: matched.files[index] for place, index in enumerate(indices)})
    part = DeblurDataModule(
        parts,
        num_workers=datamodule.num_workers,
        worker_timeout_s=datamodule.worker_timeout_s,
        seed=datamodule.seed,
        check_files=False,  # which was done
    )
    return GivenPictures(files), part, more


def _missing(matched: Matched, scenes: SceneSet, place: Path, *, subset: bool) -> str:
    """That pictures of a dataset are missing from a folder, in one line."""
    names = listed([scenes.name(index) for index in matched.missing])
    few = f"{len(matched.missing)} of {len(scenes)} test pictures are not in input={quoted(place)}: {names}"
    others = [path for path in matched.extra if path not in matched.sharp]
    there = f" (it has {quoted(others[0].name)}, say)" if others else ""
    sharp = ""
    if matched.sharp:
        sharp = f"; {len(matched.sharp)} files are called sharp pictures ({_below(matched.sharp[0], place)})"
    if len(matched.missing) == len(scenes):  # then names are the matter, and no part of the pictures is there
        if others:
            there = f"; expected {quoted(scenes.name(0))}, found {quoted(_below(others[0], place))}{sharp}"
        return f"{few}{there or sharp}; none can be scored"
    there += sharp
    if subset:
        return f"{few}{there}; none is left to score"
    return f"{few}{there}; name them as the dataset does, or score the others alone by subset=true"


def _below(path: Path, place: Path) -> str:
    return str(path.relative_to(place.resolve()))


def _pair_of(scenes: SceneSet, index: int) -> tuple[Path, Path] | None:
    if not isinstance(scenes, PictureScenes):
        return None
    pair = scenes.pairs[index]
    return pair.blurry, pair.sharp


class _PartOfSource:
    """A dataset of whose test split some pictures are left."""

    def __init__(self, source: Source, scenes: SceneSet) -> None:
        self.name = source.name
        self.protocol = source.protocol
        self._scenes = scenes

    def scenes(self, split: Split) -> SceneSet:
        """Those that are left of the test split."""
        if split != "test":
            raise DataError(f"{self.name}: only its test split is scored")
        return self._scenes

    def splits(self) -> tuple[Split, ...]:
        """The test split alone."""
        return ("test",)
