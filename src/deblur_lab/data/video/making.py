"""The command that makes pairs from videos: averages of many frames, and the sharp frame in their middle."""

import json
import os
import random
import shlex
import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from deblur_lab import __version__
from deblur_lab.checks import picture_size_px
from deblur_lab.command_line import folder_for
from deblur_lab.config import plain
from deblur_lab.data.progress import Advance, progress_bar
from deblur_lab.data.video.averaging import LightCurve, average_in_light, average_stored
from deblur_lab.data.video.clips import SPLITS, Clip, divided, files_in, looked_through
from deblur_lab.data.video.files import VideoFrame, frames, scaled_down
from deblur_lab.data.video.footage import VISIBLE_STEP_PX, Choice, Window, Windows
from deblur_lab.data.workers import cores
from deblur_lab.endings import Terminated
from deblur_lab.errors import ConfigurationError, DataError
from deblur_lab.folder_lock import LOCK, FolderLock
from deblur_lab.images import quoted, write_png
from deblur_lab.writing import write_json, writing

RECORD = "from_video.json"
"""In the output folder: what was asked for, and what became of each clip."""
PAIRS = "pairs.json"
"""In each sequence's folder: the same of this clip, and where each pair comes from."""
_UNFINISHED = ".unfinished"

# Of what is read, but not yet written.
_HELD_BYTES = 1 << 30
# Of a clip's windows left out, so many make it worth a line of its own.
_MANY = 0.2
_console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Making:
    """How pairs are made of windows.

    Attributes:
        blur: Write the average of stored values.
        blur_gamma: Write the average of light.
        curve: From stored values to light.
        size_px: The box that pictures are scaled down to fit in; None: as stored.
    """

    blur: bool
    blur_gamma: bool
    curve: LightCurve
    size_px: tuple[int, int] | None

    def write(self, window: Window, folder: Path) -> None:
        """Write the pictures of one pair into the folders of its sequence.

        Raises:
            MachineError: A picture cannot be written.
        """
        name = f"{window.middle.number:06d}.png"
        pictures = [frame.picture for frame in window.frames]
        write_png(folder / "sharp" / name, window.middle.picture)
        if self.blur:
            write_png(folder / "blur" / name, average_stored(pictures))
        if self.blur_gamma:
            write_png(folder / "blur_gamma" / name, average_in_light(pictures, self.curve))

    @property
    def folders(self) -> list[str]:
        """Those of a sequence."""
        wanted = {"blur": self.blur, "blur_gamma": self.blur_gamma, "sharp": True}
        return [name for name, is_wanted in wanted.items() if is_wanted]


def from_video(config: DictConfig) -> None:
    """Make a dataset in GoPro's raw layout of a video or a folder of videos.

    A sequence's folder appears when it is whole. What an earlier call with the same settings and the same
    files has finished is kept.

    Args:
        config: ``conf/data.from_video.yaml``, composed and checked (`deblur_lab.command_line.run`).

    Raises:
        ConfigurationError: Settings do not fit the videos, or there is something else in the output folder.
        DataError: There is no video, some cannot be read (after all others are done, where that is seen only
            then), or no pair could be made.
        MachineError: The disk does not suffice, or the package that reads video is missing.
    """
    settings = plain(config)
    source, output = Path(settings["input"]), Path(settings["output"])
    paths = files_in(source, output)
    clips = divided(
        looked_through(paths),
        source,
        **{key: settings[key] for key in ("test_share", "gap_s", "start_s", "end_s", "seed")},
    )
    output = folder_for(settings["output"], "")
    with FolderLock(output, f"output={quoted(output)}"), _single_threaded_opencv():
        wanted = _asked_for(settings, clips)
        _require_ours(output, wanted)
        for left in output.glob(f"{_UNFINISHED}-*"):
            shutil.rmtree(left)  # of a call that was killed, for the folder is ours alone
        write_json(output / RECORD, {**wanted, "finished": False})
        _say_notes(clips, source)
        try:
            records, failures = _make_all(clips, settings, output)
        except (KeyboardInterrupt, Terminated):
            _say(f"what is finished stays in {quoted(output)}; the same command goes on")
            raise
        write_json(output / RECORD, {**wanted, "finished": not failures, "clips": records})
    _report(records, settings, output)
    if failures:
        told = f"{len(failures)} of {len(clips)} clips failed; the others are in {quoted(output)}:"
        raise DataError("\n       ".join([told, *failures]))
    if not any(record["pairs"] for record in records):
        raise DataError(f"input={quoted(source)}: no pair could be made; the table says why")


def _asked_for(settings: Mapping[str, Any], clips: Sequence[Clip]) -> dict[str, Any]:
    """What a later call must have in common with this one to go on with it; plain, as JSON holds it."""
    kept = {key: value for key, value in settings.items() if key not in ("input", "output")}
    files = {}
    for clip in clips:
        status = clip.video.path.stat()
        files[clip.name] = [status.st_size, status.st_mtime_ns]
    asked = {
        "made_by": "deblur_lab.data.from_video",
        "version": __version__,
        "settings": kept,
        "files": files,
        "sequences": [f"{clip.split}/{clip.name}" for clip in clips],
    }
    plain_asked: dict[str, Any] = json.loads(json.dumps(asked))
    return plain_asked


def _require_ours(output: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse a folder with anything in it but what the same call has made.

    Raises:
        ConfigurationError: There is something else.
    """
    there = sorted(path.name for path in output.iterdir() if path.name != LOCK)
    record = output / RECORD
    if not record.exists():
        others = [name for name in there if not name.startswith(f"{_UNFINISHED}-")]
        if others:
            raise ConfigurationError(
                f"output={quoted(output)} is not empty ({others[0]!r} is in it): give an empty or a new "
                "folder"
            )
        return
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
        different = [key for key in wanted if before.get(key) != wanted[key]]
    except (ValueError, AttributeError) as error:
        raise ConfigurationError(f"{quoted(record)} is damaged: give an empty or a new folder") from error
    if different:
        keys = [
            key
            for key, value in wanted["settings"].items()
            if "settings" in different and before.get("settings", {}).get(key) != value
        ]
        what = ", ".join(keys or different)
        raise ConfigurationError(
            f"output={quoted(output)} was made with other settings or files ({what} differ): give an empty "
            "or a new folder"
        )


def _make_all(
    clips: Sequence[Clip], settings: Mapping[str, Any], output: Path
) -> tuple[list[dict[str, Any]], list[str]]:
    """Make what is not yet there; returns what is known of each sequence, and a line for each that failed."""
    records, failures = [], []
    unfinished = output / f"{_UNFINISHED}-{os.getpid()}"
    frames_of_all = sum(clip.frames for clip in clips)
    workers = cores()
    pool = ThreadPoolExecutor(workers)
    try:
        with progress_bar("reading frames", frames_of_all, in_percent=True) as advance:
            for clip in clips:
                finished = output / clip.split / clip.name
                if (finished / PAIRS).exists():
                    record = json.loads((finished / PAIRS).read_text(encoding="utf-8"))
                    records.append({**record["clip"], "kept": True})
                    advance(clip.frames)
                    continue
                try:
                    record, sources = _make(clip, settings, unfinished, pool, workers, advance)
                except DataError as error:
                    failures.append(str(error))
                    continue
                if sources:
                    write_json(unfinished / PAIRS, {"clip": record, "pairs": sources})
                    with writing(finished):
                        finished.parent.mkdir(exist_ok=True)
                        os.replace(unfinished, finished)
                records.append(record)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(unfinished, ignore_errors=True)
    return records, failures


def _make(
    clip: Clip,
    settings: Mapping[str, Any],
    folder: Path,
    pool: ThreadPoolExecutor,
    workers: int,
    advance: Advance,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write one sequence into a folder, and say what it is and where its pairs come from.

    What waits to be written is at most one window a thread, and `_HELD_BYTES`: memory stays bounded.
    """
    making = _making(settings)
    with writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        for name in making.folders:
            (folder / name).mkdir(parents=True)
    windows = _windows(clip, settings)
    sources: list[dict[str, Any]] = []
    waiting: deque[Future[None]] = deque()
    size_px: list[int] = []
    read = 0
    try:
        for frame in frames(clip.video, clip.start_s, clip.end_s):
            picture = scaled_down(frame.picture, making.size_px)
            size_px = [picture.shape[1], picture.shape[0]]
            read += 1
            for window in windows.feed(VideoFrame(frame.number, frame.time_s, picture)):
                waiting.append(pool.submit(making.write, window, folder))
                sources.append(_source(window))
                held = _HELD_BYTES // (len(window.frames) * picture.nbytes)
                while len(waiting) > min(workers, held):
                    waiting.popleft().result()
            advance()
        for future in waiting:
            future.result()
    finally:
        # Whoever takes the folder away, or takes it over, must not meet somebody who still writes to it.
        for future in waiting:
            future.cancel()
        wait(waiting)
    video = clip.video
    record = {
        "sequence": clip.name,
        "split": clip.split,
        "file": str(video.path),
        "codec": video.codec,
        "rate_fps": round(video.rate_fps, 3),
        "start_s": clip.start_s,
        "end_s": clip.end_s,
        "frames": read,
        "size_px": size_px,
        "pairs": len(sources),
        "large_steps": windows.large_steps,
        "left_out": dict(windows.left_out),
        "breaks": dict(windows.breaks),
        "notes": list(video.notes),
    }
    return record, sources


def _making(settings: Mapping[str, Any]) -> Making:
    return Making(
        blur=settings["averages"] != "blur_gamma",
        blur_gamma=settings["averages"] != "blur",
        curve=LightCurve(settings["gamma"]),
        size_px=None if settings["size"] is None else picture_size_px(settings["size"]),
    )


def _windows(clip: Clip, settings: Mapping[str, Any]) -> Windows:
    keys = ("stride", "min_motion_px", "max_motion_px", "max_step_px", "max_pairs")
    counts = settings["frames"] if isinstance(settings["frames"], list) else [settings["frames"]]
    draw = random.Random(f"{settings['seed']} {clip.name}")
    return Windows(
        Choice(**{key: settings[key] for key in keys}),
        lambda: draw.choice(counts),
        clip.video.interval_s,
        clip.start_s,
        clip.end_s,
    )


def _source(window: Window) -> dict[str, Any]:
    """Where a pair comes from."""
    first, last = window.frames[0], window.frames[-1]
    return {
        "name": f"{window.middle.number:06d}.png",
        "frames": [first.number, last.number],
        "averaged": len(window.frames),
        "time_s": round(window.middle.time_s, 6),
        "motion_px": round(window.motion_px, 2),
        "step_px": round(window.step_px, 2),
    }


@contextmanager
def _single_threaded_opencv() -> Iterator[None]:
    """Motion that is found does not depend on the number of cores; the threads here are enough."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _say(line: str) -> None:
    _console.print(line, markup=False)


def _say_notes(clips: Sequence[Clip], source: Path) -> None:
    """What there is, how it is split, and what a person should know of the files."""
    videos = {clip.video.path: clip.video for clip in clips}
    for path, found in videos.items():
        for note in found.notes:
            _say(f"{quoted(path)}: {note}")
    if len(videos) == 1 and len(clips) == 2:
        first, second = clips
        _say(
            f"one clip, divided in time: {first.start_s:.2f} to {first.end_s:.2f} s for training, "
            f"{second.start_s:.2f} to {second.end_s:.2f} s for the test; scores on it say little of other "
            "scenes"
        )
    else:
        tested = sum(clip.split == "test" for clip in clips)
        _say(f"clips in {quoted(source)}: {len(clips) - tested} for training, {tested} for testing")


def _report(records: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], output: Path) -> None:
    """A row a clip, then what to look out for and what to do next."""
    table = Table(title="pairs from video")
    for column in ("sequence", "split", "frames", "a second", "size", "pairs"):
        table.add_column(column, justify="left" if column in ("sequence", "split") else "right")
    table.add_column("left out")
    for record in records:
        left_out = [
            f"{reason}: {count}" for reason, count in {**record["breaks"], **record["left_out"]}.items()
        ]
        table.add_row(
            quoted(record["sequence"]),
            record["split"],
            str(record["frames"]),
            f"{record['rate_fps']:.4g}",
            "x".join(map(str, record["size_px"])) or "-",
            f"{record['pairs']}{' (kept)' if record.get('kept') else ''}",
            ", ".join(left_out) or "-",
        )
    _console.print(table)
    total = sum(record["pairs"] for record in records)
    large = sum(record["large_steps"] for record in records)
    if large:
        _say(
            f"{large} of {total} pairs move by over {VISIBLE_STEP_PX:g} px from frame to frame, where "
            f"averages show copies instead of a smear: max_step_px={VISIBLE_STEP_PX:g} leaves them out, a "
            "smaller size= or a faster camera helps"
        )
    repeated = [
        record["sequence"]
        for record in records
        if record["left_out"].get("repeated frames", 0) > _MANY * max(1, record["pairs"])
    ]
    if repeated:
        _say(
            f"{quoted(repeated[0])}{' and others' if len(repeated) > 1 else ''}: many frames repeat the one "
            "before, as where the rate was raised after recording: use the recording itself"
        )
    counts = {
        split: sum(record["pairs"] for record in records if record["split"] == split) for split in SPLITS
    }
    _say(f"{counts['train']} pairs for training and {counts['test']} for testing, in {quoted(output)}")
    if counts["train"] and not counts["test"]:
        _say(f"training needs a test split as well: move a sequence from {quoted(output)}/train to .../test")
    elif total:
        _say(f"next: {_next_command(settings, output, counts['train'])}")


def _next_command(settings: Mapping[str, Any], output: Path, pairs_for_training: int) -> str:
    blur = " data.blur=blur_gamma" if settings["averages"] == "blur_gamma" else ""
    root = shlex.quote(f"data.root={output.resolve()}")
    if pairs_for_training == 0:
        return f"python -m deblur_lab.evaluate checkpoint=PATH data=gopro {root}{blur}"
    return f"python -m deblur_lab.train model=m2aenet data=gopro {root}{blur}"
