"""What ``data.prepare`` does: decode training pictures once, and write them as tiles."""

import errno
import os
import shlex
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deblur_lab.data.checking import problems_of, refuse
from deblur_lab.data.layouts import Pair
from deblur_lab.data.picture_scenes import PictureScenes
from deblur_lab.data.prepared.scenes import folder_of, place_of, root_of, stamps_of, tiles_of
from deblur_lab.data.prepared.tiles import SUFFIX, Tiles, TilesError, file_bytes, is_sound, write_tiles
from deblur_lab.data.progress import progress_bar
from deblur_lab.data.workers import as_done, cores
from deblur_lab.errors import ConfigurationError, DataError, MachineError
from deblur_lab.images import ImageError, quoted, read_mask, read_rgb
from deblur_lab.images.files import MAX_PIXELS, opened, remove_unfinished
from deblur_lab.writing import amount, free_bytes

if TYPE_CHECKING:
    from omegaconf import DictConfig

_KILLED = "a worker process was killed, perhaps for want of memory: try workers=1; what is done is kept"


@dataclass(frozen=True)
class Job:
    """One pair to prepare: all that a worker needs to know.

    Attributes:
        pair: Its files.
        root: The dataset's folder.
        path: Of the tiles.
    """

    pair: Pair
    root: Path
    path: Path

    def run(self) -> "Done":
        """Write the pair's tiles, or see that those that are there are of the files as they are, and whole.

        Raises:
            MachineError: They cannot be written.
        """
        try:
            stamps = stamps_of(self.pair, self.root)
            kept = self._kept()
            if kept is not None:
                return Done(kept.file_bytes, written=False)
            problems = problems_of(self.pair)
            if problems:
                return Done(0, written=False, problems=tuple(problems))
            blurry, sharp = read_rgb(self.pair.blurry), read_rgb(self.pair.sharp)
            mask = None if self.pair.mask is None else read_mask(self.pair.mask)
            if stamps_of(self.pair, self.root) != stamps:
                raise DataError(f"{quoted(self.pair.blurry)}, or its partner, was changed while it was read")
            size = write_tiles(self.path, self.pair.name, blurry, sharp, mask, stamps)
            return Done(size, written=True)
        except DataError as error:
            return Done(0, written=False, problems=(str(error),))

    def fitting_tiles(self) -> Tiles | None:
        """The tiles that are there, if by their header they are of the files as they are."""
        found = tiles_of(self.pair, self.root, self.path)
        return found if isinstance(found, Tiles) else None

    def needed_bytes(self) -> int:
        """How large the tiles will be, by the header of the blurry picture; 0 if that cannot be read."""
        try:
            with opened(self.pair.blurry, MAX_PIXELS) as image:
                width, height = image.size  # turned or not, the tiles are as many
        except ImageError:
            return 0  # its turn will come, and it is told then
        return file_bytes(height, width, has_mask=self.pair.mask is not None)

    def _kept(self) -> Tiles | None:
        """The tiles that need not be written anew, all of which were read."""
        tiles = self.fitting_tiles()
        try:
            return tiles if tiles is not None and is_sound(tiles) else None
        except TilesError:
            return None


@dataclass(frozen=True)
class Done:
    """What became of a job.

    Attributes:
        size_bytes: Of the tiles; 0 where there are none.
        written: Whether they were written; they were there already otherwise.
        problems: What keeps the pair from being prepared.
    """

    size_bytes: int
    written: bool
    problems: tuple[str, ...] = ()


@dataclass
class Tally:
    """What became of all jobs of a dataset."""

    written: int = 0
    written_bytes: int = 0
    kept: int = 0
    kept_bytes: int = 0

    def add(self, done: Done) -> None:
        """Count one."""
        if done.problems:
            return
        if done.written:
            self.written += 1
            self.written_bytes += done.size_bytes
        else:
            self.kept += 1
            self.kept_bytes += done.size_bytes


def prepare(config: "DictConfig") -> None:
    """Write the training pictures of the datasets of a configuration as tiles.

    What is there already, of the files as they are and with the right hash, is kept.

    Args:
        config: ``conf/data.prepare.yaml``, composed and checked (`deblur_lab.command_line.run`).

    Raises:
        ConfigurationError: There is nothing that could be prepared.
        DataError: Pictures are missing, unpaired or cannot be read; the others are prepared.
        MachineError: There is too little space, a folder cannot be written to, or a worker was killed.
    """
    from deblur_lab.config import build, plain
    from deblur_lab.console import say

    settings: dict[str, Any] = plain(config)
    trusted = tuple(settings["trusted_packages"])
    sources = [
        build(node, trusted, key=f"data.sources[{place}]")
        for place, node in enumerate(settings["data"]["sources"])
    ]
    sets = [(source.name, source.scenes("train")) for source in sources]
    pictures = [(name, scenes) for name, scenes in sets if isinstance(scenes, PictureScenes)]
    if not pictures:
        raise ConfigurationError(
            f"data.sources: {sets[0][0]} is not read from files: there is nothing to prepare"
        )
    output, workers = settings["output"], settings["workers"] or cores()
    # What is no pair is told with the pictures that cannot be read, when all others are done.
    faults: list[str] = [fault for _, scenes in pictures for fault in scenes.faults]
    pictures = [(name, scenes) for name, scenes in pictures if scenes.pairs]
    problems: list[str] = []
    places = [folder_of(scenes, output, name) for name, scenes in pictures]
    work = [jobs_of(scenes, place) for (_, scenes), place in zip(pictures, places, strict=True)]
    make_room(dict(zip(places, work, strict=True)), workers, own=output is None)
    for (name, scenes), folder, jobs in zip(pictures, places, work, strict=True):
        began = time.perf_counter()
        tally = Tally()
        results: Generator[Done, None, None] = (
            done for done in as_done([job.run for job in jobs], workers, killed=_KILLED)
        )
        try:
            with progress_bar(f"preparing {name}", len(jobs)) as advance:
                for done in results:
                    tally.add(done)
                    problems += done.problems
                    advance()
        except BaseException:
            results.close()  # those that have begun are finished
            there = sum(job.fitting_tiles() is not None for job in jobs)
            say(
                f"{name}: {there} of {len(jobs)} training pairs are done, in {quoted(folder)}: the same "
                "command goes on with the others"
            )
            raise
        if tally.written or tally.kept:
            say(_told(name, scenes, folder, tally, time.perf_counter() - began))
        strange = strangers(folder, jobs)
        if strange:
            total = amount(sum(strange.values()))
            say(f"{len(strange)} other files in {quoted(folder)} ({total}) are of no pair of these settings")
    without = f", unless it is to do without them: {_next_command(output, 'data.skip_unreadable=true')}"
    refuse(
        [*faults, *problems],
        "the tiles of all other pairs are written; training ends at these files as well"
        + (without if not faults else ""),
    )
    say(f"training reads them by itself: {_next_command(output)}")


def jobs_of(scenes: PictureScenes, folder: Path) -> list[Job]:
    """What there is to do for a dataset whose tiles lie in a folder."""
    root = root_of(scenes)
    return [Job(pair, root, folder / place_of(pair, root)) for pair in scenes.pairs]


def make_room(work: Mapping[Path, Sequence[Job]], workers: int, *, own: bool) -> None:
    """Make the folders, take away what killed processes have left, and see that there is space.

    Args:
        work: All that is to be done, by the folder of tiles.
        workers: How many processes write.
        own: Whether the folders are in the datasets' own.

    Raises:
        MachineError: A folder cannot be written to, or there is too little space.
    """
    needs: dict[int, list[tuple[Path, int, int]]] = {}  # by file system: folder, pairs, bytes
    for folder, jobs in work.items():
        _make_folders(folder, jobs, own=own)
        pairs, needed = _needs(jobs, workers)
        needs.setdefault(folder.stat().st_dev, []).append((folder, pairs, needed))
    for together in needs.values():
        folder, pairs, needed = (
            together[0][0],
            sum(one[1] for one in together),
            sum(one[2] for one in together),
        )
        free = free_bytes(folder)
        if pairs and needed > free:
            raise MachineError(
                f"{quoted(folder)} has too little space: the tiles of {pairs} pairs need {amount(needed)} "
                f"and {amount(free)} are free: free some, or name a folder on another disk by output=DIR"
            )


def _make_folders(folder: Path, jobs: Sequence[Job], *, own: bool) -> None:
    try:
        for place in dict.fromkeys(job.path.parent for job in jobs):
            place.mkdir(parents=True, exist_ok=True)
            remove_unfinished(place)
            if not os.access(place, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        where = "give another folder by output=DIR, and by data.prepared=DIR to training"
        raise MachineError(
            f"{quoted(folder)} cannot be written to ({error.strerror or error}): "
            f"{where if own else 'give another'}"
        ) from error


def _needs(jobs: Sequence[Job], workers: int) -> tuple[int, int]:
    """How many tiles are to be written, and how much space that takes beside what is there."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        missing = [
            job for job, tiles in zip(jobs, pool.map(Job.fitting_tiles, jobs), strict=True) if tiles is None
        ]
        sizes = list(pool.map(Job.needed_bytes, missing))
    # What is replaced goes only when its successor is there, for each worker at another moment.
    replaced = sum(job.path.stat().st_size for job in missing if job.path.is_file())
    return len(missing), sum(sizes) - replaced + (workers * max(sizes) if replaced else 0)


def strangers(folder: Path, jobs: Sequence[Job]) -> dict[Path, int]:
    """Files of tiles in a folder that are no job's, of other masks or of pairs now gone, and their sizes."""
    known = {job.path for job in jobs}
    return {
        path: path.stat().st_size
        for path in sorted(folder.glob(f"train/**/*{SUFFIX}"))
        if path not in known and not path.name.startswith(".")
    }


def _told(name: str, scenes: PictureScenes, folder: Path, tally: Tally, seconds: float) -> str:
    pairs = len(scenes.pairs)
    failed = pairs - tally.written - tally.kept
    parts = [f"{tally.written} written ({amount(tally.written_bytes)})"]
    if tally.kept:
        parts.append(f"{tally.kept} kept ({amount(tally.kept_bytes)})")
    if failed:
        parts.append(f"{failed} not done")
    return f"{name}: {pairs} training pairs: {', '.join(parts)} in {seconds:.1f} s, in {quoted(folder)}"


def _next_command(output: str | None, *more: str) -> str:
    typed = [setting for setting in sys.argv[1:] if setting.lstrip("+").startswith(("data=", "data."))]
    if output is not None:
        typed = [setting for setting in typed if not setting.startswith("data.prepared=")]
        typed.append(f"data.prepared={output}")
    more = tuple(setting for setting in more if setting not in typed)
    return shlex.join(["python", "-m", "deblur_lab.train", "model=m2aenet", *typed, *more])
