"""Training pictures that were written as tiles beforehand: where they lie, and whether they fit."""

import hashlib
import os
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from deblur_lab.data.checking import problems_of, stamp_of
from deblur_lab.data.layouts import Pair
from deblur_lab.data.picture_scenes import PictureScenes
from deblur_lab.data.prepared.tiles import (
    SUFFIX,
    SourceStamp,
    Tiles,
    TilesError,
    is_sound,
    read_header,
)
from deblur_lab.data.samples import Scene
from deblur_lab.data.views import SceneView, WholeScene
from deblur_lab.errors import ConfigurationError, DataError
from deblur_lab.images import quoted

PREPARED = ".prepared"
"""The folder of tiles in a dataset's own: hidden, so that no layout takes it for pictures."""

# In bytes of UTF-8, of which file systems allow 255; a temporary name beside it may be longer.
_LONGEST_NAME_BYTES = 200


def folder_of(scenes: PictureScenes, output: str | Path | None, source: str) -> Path:
    """Where the tiles of a dataset lie.

    Args:
        scenes: Its training pictures.
        output: The folder that was given for tiles, in which each dataset has its own; None is the dataset's.
        source: The dataset's name.
    """
    if output is None:
        return root_of(scenes) / PREPARED
    return Path(os.path.expanduser(output)).resolve() / source


def root_of(scenes: PictureScenes) -> Path:
    """The dataset's folder: the one that its layout was found in, or else what holds all its files."""
    if scenes.root is not None:
        return scenes.root
    return Path(os.path.commonpath([path.parent for pair in scenes.pairs for path in files_of(pair)]))


def files_of(pair: Pair) -> list[Path]:
    """The blurry picture, the sharp one, and the mask if there is one."""
    return [path for path in (pair.blurry, pair.sharp, pair.mask) if path is not None]


def stamps_of(pair: Pair, root: Path) -> tuple[SourceStamp, ...]:
    """The files of a pair as they are now.

    Raises:
        DataError: One is missing.
    """
    stamps = []
    for path in files_of(pair):
        stamp = stamp_of(path)
        if stamp is None:
            raise DataError(f"{quoted(path)}: there is no such file")
        stamps.append(SourceStamp(_below(path, root), *stamp))
    return tuple(stamps)


def place_of(pair: Pair, root: Path) -> Path:
    """The file of a pair's tiles, below the folder of tiles.

    Its name also depends on which files the pair is made of, so that what is prepared of the same pictures
    with other masks, or of blurry pictures of another kind, lies beside it.
    """
    made_of = "\0".join(_below(path, root) for path in files_of(pair)).encode("utf-8", "backslashreplace")
    folder, _, name = pair.name.rpartition("/")
    mark = hashlib.sha256(made_of).hexdigest()[:8]
    ending = f"-{mark}{SUFFIX}"
    # Not within a character; the mark tells apart what begins alike.
    start = name.encode("utf-8", "backslashreplace")[: _LONGEST_NAME_BYTES - len(ending)].decode(
        errors="ignore"
    )
    return Path("train", folder, f"{start}{ending}")


def _below(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


class PreparedScenes:
    """Scenes of pictures whose patches are read from tiles; see `views.ViewedScenes`.

    Args:
        scenes: The pictures.
        tiles: Of each of them; None where there are none that fit, and the pictures are read.
        folder: That the tiles lie in.
        misfit: What there is to say of those without; None if there are none.
    """

    def __init__(
        self,
        scenes: PictureScenes,
        tiles: Sequence[Tiles | None],
        folder: Path,
        misfit: "Misfit | None" = None,
    ) -> None:
        self.scenes = scenes
        self.tiles = tuple(tiles)
        self.folder = folder
        self.misfit = misfit

    def __len__(self) -> int:
        """How many scenes there are."""
        return len(self.scenes)

    def name(self, index: int) -> str:
        """The name of a scene."""
        return self.scenes.name(index)

    def load(self, index: int, epoch: int = 0) -> Scene:
        """Read a scene whole, from its pictures; see `sources.PictureScenes.load`."""
        return self.scenes.load(index, epoch)

    def view(self, index: int) -> SceneView:
        """A view of a scene, of which patches are read from tiles; from its pictures where it has none.

        Raises:
            DataError: The tiles cannot be read; or they, or a picture that they were made of, were changed
                since; or the pictures cannot be read.
        """
        tiles = self.tiles[index]
        if tiles is None:
            return WholeScene(self.scenes.load(index))
        for path, source in zip(files_of(self.scenes.pairs[index]), tiles.sources, strict=True):
            # What is gone is not needed.
            if stamp_of(path) not in ((source.size_bytes, source.mtime_ns), None):
                raise DataError(
                    f"{quoted(path)} was changed while the run went on, so that its tiles are of an older "
                    "version of it: put the old one back and go on, or start anew"
                )
        return tiles.open(blurred_all_over=self.scenes.blurred_all_over)

    def problems(self, num_threads: int, smallest_px: int, *, full: bool = False) -> list[str]:
        """What keeps the tiles from being used, or the pictures that have none; each in one line.

        Args:
            num_threads: How many threads read files.
            smallest_px: The smallest width and height allowed.
            full: Read all of every file, and compare its hash.
        """
        tiled = [tiles for tiles in self.tiles if tiles is not None]
        found = [
            f"{quoted(pair.blurry)} is {tiles.width} x {tiles.height}, smaller than data.patch_size="
            f"{smallest_px}: data.patch_size={min(tiles.width, tiles.height)} at most would fit"
            for pair, tiles in zip(self.scenes.pairs, self.tiles, strict=True)
            if tiles is not None and min(tiles.width, tiles.height) < smallest_px
        ]
        untiled = [pair for pair, tiles in zip(self.scenes.pairs, self.tiles, strict=True) if tiles is None]
        if untiled:
            found += self.scenes.problems(num_threads, smallest_px, full=full, pairs=untiled)
        if full:
            with ThreadPoolExecutor(max_workers=max(num_threads, 1)) as pool:
                for tiles, sound in zip(tiled, pool.map(is_sound, tiled), strict=True):
                    if not sound:
                        found.append(
                            f"{quoted(tiles.path)} is damaged (its content has another hash): "
                            "python -m deblur_lab.data.prepare writes it anew"
                        )
        return found


@dataclass(frozen=True)
class Misfit:
    """Pairs without tiles that fit.

    Attributes:
        pairs: They.
        of: How many pairs the dataset has.
        missing: How many have no tiles.
        stale: How many have tiles of other versions of their files.
        damaged: How many have tiles that cannot be read.
        example: What is wrong with the first of them.
    """

    pairs: tuple[Pair, ...]
    of: int
    missing: int
    stale: int
    damaged: int
    example: str

    @property
    def reasons(self) -> str:
        """How many do not fit, and why."""
        counts = {
            "without tiles": self.missing,
            "changed since": self.stale,
            "with damaged tiles": self.damaged,
        }
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        return f"{told} ({self.example})"

    def __str__(self) -> str:
        """What does not fit, in words."""
        return f"of {self.of} training pairs {self.reasons}"


def require_setting(prepared: bool | str) -> str | None:
    """The setting `data.prepared` as it is meant: `auto`, the folder that was given, or None for false.

    Raises:
        ConfigurationError: It is none of these.
    """
    if prepared in (False, "false"):  # paths are taken as typed: false is text then
        return None
    if prepared in (True, "true", ""):
        raise ConfigurationError(
            f"data.prepared={str(prepared).lower()}: auto, false or a folder of tiles is expected"
        )
    return str(prepared)


def tiles_for(
    name: str,
    scenes: PictureScenes,
    prepared: str | None,
    num_threads: int = 4,
    *,
    skip_unreadable: bool = False,
) -> tuple[PreparedScenes | None, str]:
    """The tiles that training on a dataset reads in place of its pictures.

    Args:
        name: The dataset's.
        scenes: Its training pictures.
        prepared: As of `require_setting`. By `auto` the pictures are read of the pairs that have no tiles
            that fit; in a folder that is given each pair must have some.
        num_threads: How many threads read headers.
        skip_unreadable: Whether those may be missing there that no tiles can be made of.

    Returns:
        The tiles, None where all pictures are read; and what there is to say of that, if anything.

    Raises:
        DataError: A folder was given, and what is in it does not fit.
    """
    if prepared is None or not scenes.pairs:
        return None, ""
    given = None if prepared == "auto" else prepared
    folder = folder_of(scenes, given, name)
    if not folder.is_dir():
        if given is None:
            return None, ""
        raise DataError(
            f"data.prepared={quoted(given)}: there is no folder {quoted(folder)}, where the tiles of {name} "
            f"would be: {_remedy(given)}"
        )
    found = find_prepared(scenes, folder, num_threads)
    misfit = found.misfit
    if misfit is None:
        return found, f"{name}: patches are read from the tiles in {quoted(folder)}, which fit its files"
    if given is not None:
        _require_unusable(name, misfit, given, skip_unreadable=skip_unreadable)
    fitting = misfit.of - len(misfit.pairs)
    if not fitting:
        return None, (
            f"{name}: the tiles in {quoted(folder)} are left alone and the pictures read, which is slower: "
            f"{misfit}; {_remedy(given)}"
        )
    return found, (
        f"{name}: {fitting} of {misfit.of} training pairs are read from the tiles in {quoted(folder)}, and "
        f"{len(misfit.pairs)} from the pictures, which is slower: {misfit.reasons}; {_remedy(given)}, of "
        "files that can be read"
    )


def _require_unusable(name: str, misfit: Misfit, given: str, *, skip_unreadable: bool) -> None:
    """See that none of the pairs without tiles could have any, and that they are skipped.

    Raises:
        DataError: One could, or they are not to be skipped.
    """
    if skip_unreadable and all(problems_of(pair, full=True) for pair in misfit.pairs):
        return
    remedy = _remedy(given)
    wrong = problems_of(misfit.pairs[0])
    if wrong:
        remedy = (
            f"{wrong[0]}: mend that, and {remedy}; or data.skip_unreadable=true does without pairs of which "
            "none can be made"
        )
    raise DataError(f"data.prepared={quoted(given)} does not fit {name}: {misfit}; {remedy}")


def _remedy(given: str | None) -> str:
    output = "" if given is None else f" {shlex.quote(f'output={given}')}"
    return (
        f"python -m deblur_lab.data.prepare with the same data= and data.root={output} writes what is missing"
    )


def find_prepared(scenes: PictureScenes, folder: Path, num_threads: int = 4) -> PreparedScenes:
    """The tiles of pictures, where there are such, and made of the files as they are now.

    Args:
        scenes: The pictures.
        folder: That the tiles should lie in, as of `folder_of`.
        num_threads: How many threads read headers.
    """
    root = root_of(scenes)
    with ThreadPoolExecutor(max_workers=max(num_threads, 1)) as pool:
        found = list(pool.map(lambda pair: tiles_of(pair, root, folder / place_of(pair, root)), scenes.pairs))
    tiles = [one if isinstance(one, Tiles) else None for one in found]
    pairs = tuple(pair for pair, one in zip(scenes.pairs, tiles, strict=True) if one is None)
    if not pairs:
        return PreparedScenes(scenes, tiles, folder)
    faults = [fault for fault in found if not isinstance(fault, Tiles)]
    count = {kind: sum(fault[0] == kind for fault in faults) for kind in ("missing", "stale", "damaged")}
    misfit = Misfit(pairs, len(found), **count, example=faults[0][1])
    return PreparedScenes(scenes, tiles, folder, misfit)


def tiles_of(pair: Pair, root: Path, path: Path) -> Tiles | tuple[str, str]:
    """The tiles of a pair, or the kind of what is wrong with them and that in words.

    Args:
        pair: Its files.
        root: The dataset's folder.
        path: Of the tiles.
    """
    try:
        tiles = read_header(path)
    except FileNotFoundError:
        return "missing", f"{quoted(pair.name)} has none"
    except TilesError as error:
        return "damaged", str(error)
    try:
        now = stamps_of(pair, root)
    except DataError as error:
        return "stale", str(error)
    if now != tiles.sources:
        changed = [
            file for file, stamp in zip(files_of(pair), now, strict=True) if stamp not in tiles.sources
        ]
        return "stale", f"{quoted(changed[0])} is not as it was"
    return tiles
