"""Which videos there are, what their sequences are called, and for which split each is."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deblur_lab.data.video.files import VIDEO_SUFFIXES, Video, video
from deblur_lab.errors import ConfigurationError, DataError
from deblur_lab.images import quoted

ClipSplit = Literal["train", "test"]
SPLITS: tuple[ClipSplit, ...] = ("train", "test")


@dataclass(frozen=True)
class Clip:
    """One video, or a part of one, that becomes a sequence.

    Attributes:
        video: The file.
        name: Of the sequence.
        split: Its split.
        start_s: Where it begins, from the file's first frame.
        end_s: Where it ends.
    """

    video: Video
    name: str
    split: ClipSplit
    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        """How long it is; 0 where the file ends before it begins."""
        return max(0.0, self.end_s - self.start_s)

    @property
    def frames(self) -> int:
        """How many frames that is, near enough."""
        return min(self.video.frames, round(self.seconds / self.video.interval_s))


def files_in(source: Path, output: Path) -> list[Path]:
    """The video that `source` is, or those below the folder that it is, in order of their paths.

    Raises:
        DataError: It does not exist, or holds no video.
        ConfigurationError: It is the output as well.
    """
    if not source.exists():
        raise DataError(f"input={quoted(source)} does not exist")
    if source.is_file():
        return [source]
    written = output.absolute()
    if written == source.absolute():
        raise ConfigurationError(f"output={quoted(output)} is the input: name another folder")
    found = sorted(
        path
        for path in source.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
        and path.is_file()
        and written not in path.absolute().parents
    )
    if not found:
        raise DataError(f"input={quoted(source)} holds no videos ({', '.join(sorted(VIDEO_SUFFIXES))})")
    return found


def looked_through(paths: Sequence[Path]) -> list[Video]:
    """What is known of each file.

    Raises:
        DataError: Some cannot be used; all of these are named, a line for each.
        MachineError: The package that reads video is not installed.
    """
    found, faults = [], []
    for path in paths:
        try:
            found.append(video(path))
        except DataError as error:
            faults.append(str(error))
    if faults:
        count = f"{len(faults)} of {len(paths)} files cannot be used, and nothing was written:\n       "
        raise DataError((count if len(paths) > 1 else "") + "\n       ".join(faults))
    return found


def divided(
    videos: Sequence[Video],
    source: Path,
    *,
    test_share: float,
    gap_s: float,
    start_s: float = 0.0,
    end_s: float | None = None,
    seed: int = 0,
) -> list[Clip]:
    """Split videos by clip, never by frame, for neighbouring frames are nearly one picture.

    Videos in folders `train` and `test` are of these splits. Of other videos some are drawn for the test: the
    share asked for, but at least one, and not all unless that is asked for. A single video is divided in
    time: its beginning is for training, its end for the test, and what is between is left out.

    Args:
        videos: The files.
        source: The folder in which they lie, or the one file.
        test_share: How much is for the test.
        gap_s: How much of a single video is left out between the splits.
        start_s: Of each video, what comes before is left out.
        end_s: What comes after; None: nothing is.
        seed: Of the draw.

    Raises:
        ConfigurationError: Some videos lie in `train` or `test` and others beside, or a single one is too
            short to be divided.
    """
    names = _names([video.path for video in videos], source)
    ends_s = {one.path: min(one.seconds, one.seconds if end_s is None else end_s) for one in videos}
    by_folder = {one.path: _split_of(one.path, source) for one in videos}
    if any(by_folder.values()):
        strays = [path for path, split in by_folder.items() if split is None]
        if strays:
            raise ConfigurationError(
                f"input={quoted(source)} has videos in train/ or test/, and {quoted(strays[0])} in neither: "
                "move it, or name a folder without train/ and test/"
            )
    elif len(videos) == 1 and 0 < test_share < 1:
        return _halves(videos[0], names[videos[0].path], start_s, ends_s[videos[0].path], test_share, gap_s)
    else:
        wanted = round(test_share * len(videos))
        if 0 < test_share < 1:
            wanted = min(max(wanted, 1), len(videos) - 1)
        drawn = set(random.Random(seed).sample(sorted(names.values()), wanted))
        by_folder = {path: "test" if name in drawn else "train" for path, name in names.items()}
    clips = []
    for one in videos:
        split = by_folder[one.path]
        assert split is not None, "strays are refused"
        clips.append(Clip(one, names[one.path], split, start_s, ends_s[one.path]))
    return clips


def _halves(
    source: Video, name: str, start_s: float, end_s: float, test_share: float, gap_s: float
) -> list[Clip]:
    """A video divided in time."""
    used_s = end_s - start_s - gap_s
    if used_s <= 0:
        raise ConfigurationError(
            f"{quoted(source.path)} is {max(0.0, end_s - start_s):.2f} s long, too short to be divided with "
            f"gap_s={gap_s:g}: give a smaller one, more clips, or test_share=0 or 1"
        )
    turn_s = start_s + used_s * (1 - test_share)
    return [
        Clip(source, f"{name}_part1", "train", start_s, turn_s),
        Clip(source, f"{name}_part2", "test", turn_s + gap_s, end_s),
    ]


def _split_of(path: Path, source: Path) -> ClipSplit | None:
    """The split in whose folder a video lies."""
    first = path.relative_to(source).parts[0] if path != source else ""
    return next((split for split in SPLITS if split == first), None)


def _names(paths: Sequence[Path], source: Path) -> Mapping[Path, str]:
    """A name for each video's sequence: the file's, with its folders' and its ending where that is shared."""
    names = {path: path.stem for path in paths}

    def lengthen(longer: Mapping[Path, str]) -> None:
        # Names that differ in case alone are one on some file systems.
        uses = Counter(name.casefold() for name in names.values())
        names.update({path: longer[path] for path, name in names.items() if uses[name.casefold()] > 1})

    below = {path: path.relative_to(source) if path != source else Path(path.name) for path in paths}
    lengthen({path: "-".join(below[path].with_suffix("").parts) for path in paths})
    lengthen({path: "-".join(below[path].parts) for path in paths})
    lengthen({path: f"{names[path]}-{number}" for number, path in enumerate(paths, start=1)})
    return names
