"""Reads video: what a file is, and its frames one by one as pictures, upright and in time.

Reading is done by PyAV, a binding of FFmpeg, and not by OpenCV's video reader, which also is one: of a frame,
OpenCV tells neither the time stamp that the file gives it nor the colour matrix and range, and it goes on in
silence where a file is damaged. PyAV is an extra of the package, `video`, for its wheels hold encoders under
the GPL, which who installs deblur_lab should choose to have.
"""

import bisect
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from deblur_lab.errors import DataError, MachineError
from deblur_lab.images import quoted

if TYPE_CHECKING:
    import av
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

VIDEO_SUFFIXES = frozenset(
    [".avi", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ts", ".webm", ".wmv"]
)
"""The endings, in lower case, by which a file in a folder is taken for a video."""

# Frames of at least so many lines or columns are high definition, whose matrix is BT.709 where none is named.
_HIGH_DEFINITION_PX = (1280, 720)
_UNSPECIFIED = 2  # of FFmpeg's AVColorSpace
_HIGH_RANGE = ("SMPTE2084", "ARIB_STD_B67")
GAP = 1.5
"""Frames whose distance in time is so many times the usual one are not neighbours."""
# A file is said to end early if so much of the time that its header states is missing.
_MISSING_S, _MISSING_SHARE = 0.5, 0.05


@dataclass(frozen=True)
class Video:
    """What is known of a file before it is decoded.

    Attributes:
        path: The file.
        width_px: Of its frames as stored, before they are turned upright.
        height_px: Likewise.
        codec: By which it is coded, as FFmpeg calls it.
        time_base: A tick of the time stamps, in seconds.
        ticks: The time stamp of each frame, rising; empty where the file has none, as raw streams do.
        frames: How many there are.
        interval_s: The usual time from one frame to the next, as the file gives it: slow motion may be stored
            at the speed at which it is shown.
        notes: What a person should know of it, each in one line without the file's name.
    """

    path: Path
    width_px: int
    height_px: int
    codec: str
    time_base: Fraction
    ticks: tuple[int, ...]
    frames: int
    interval_s: float
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """From the first frame to the end of the last."""
        if not self.ticks:
            return self.frames * self.interval_s
        return float((self.ticks[-1] - self.ticks[0]) * self.time_base) + self.interval_s

    @property
    def rate_fps(self) -> float:
        """Frames a second, as the file gives it."""
        return 1.0 / self.interval_s


@dataclass(frozen=True)
class VideoFrame:
    """One frame as a picture.

    Attributes:
        number: Which of the file's frames it is, from 0.
        time_s: From the first frame, as the file gives it.
        picture: (H, W, 3) uint8 RGB, upright.
    """

    number: int
    time_s: float
    picture: NDArray[np.uint8]


def video(path: Path) -> Video:
    """Look a file through without decoding more than its first frame.

    Raises:
        DataError: It is missing, empty, damaged, no video, or one whose frames are no pictures: interlaced,
            or of high dynamic range.
        MachineError: The package that reads video is not installed.
    """
    with _opened(path) as (container, stream):
        ticks, packets, timed = [], 0, True
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard:
                continue
            if packet.is_corrupt:
                raise DataError(f"{quoted(path)}: the file is damaged or truncated after {packets} frames")
            packets += 1
            if packet.pts is None:
                timed = False
            else:
                ticks.append(packet.pts)
        if packets == 0:
            raise DataError(f"{quoted(path)}: a video without a frame")
        time_base = stream.time_base or Fraction(1, 1)
        rising = sorted(set(ticks)) if timed else []
        steps = [later - earlier for earlier, later in pairwise(rising)]
        if steps:
            # The mean, for some files tell time in milliseconds, but without the gaps.
            usual = statistics.median(steps)
            interval_s = float(statistics.mean(step for step in steps if step < GAP * usual) * time_base)
        else:
            interval_s = 1.0 / float(stream.average_rate or stream.guessed_rate or 25)
        if len(rising) < packets:
            rising = []  # what is not told apart by its time is counted
        codec = stream.codec_context.name
        found = Video(
            path,
            stream.codec_context.width,
            stream.codec_context.height,
            codec,
            time_base,
            tuple(rising),
            packets,
            interval_s,
        )
        notes = [*_ends_early(container, stream, found), *_not_square(stream)]
    # Read again from its start, for not every file can be wound back.
    with _opened(path) as (container, stream):
        first = next(iter(container.decode(stream)), None)
        if first is None:
            raise DataError(f"{quoted(path)}: none of its {packets} frames can be decoded")
        _require_pictures(first, path)
    return replace(found, notes=tuple(notes))


def frames(source: Video, start_s: float = 0.0, end_s: float | None = None) -> Iterator[VideoFrame]:
    """Decode the frames of a part of a video in order of time; no more than one is held.

    Args:
        source: As `video` found it.
        start_s: Frames before this time from the first one are left out.
        end_s: Those at this time and after it are left out; None: none are.

    Raises:
        DataError: A frame is damaged.
    """
    path, number = source.path, -1
    first_tick = source.ticks[0] if source.ticks else 0
    with _opened(path) as (container, stream):
        import av

        reformatter = av.video.reformatter.VideoReformatter()
        stream.thread_type = "AUTO"
        if source.ticks and start_s > 0:
            container.seek(first_tick + int(start_s / source.time_base), stream=stream)
        try:
            for frame in container.decode(stream):
                number, time_s = _place(source, frame, number)
                if frame.is_corrupt:
                    raise DataError(f"{quoted(path)}: frame {number}, at {time_s:.2f} s, is damaged")
                if time_s < start_s:
                    continue
                if end_s is not None and time_s >= end_s:
                    return
                yield VideoFrame(number, time_s, _picture(frame, reformatter))
        except av.error.FFmpegError as error:
            raise DataError(f"{quoted(path)}: damaged behind frame {number}") from error


def _place(source: Video, frame: "av.VideoFrame", before: int) -> tuple[int, float]:
    """The number of a frame and its time, from the number of the one before."""
    if not source.ticks:
        return before + 1, (before + 1) * source.interval_s
    if frame.pts is None:
        raise DataError(f"{quoted(source.path)}: the frame behind frame {before} has no time")
    number = bisect.bisect_left(source.ticks, frame.pts)
    return number, float((frame.pts - source.ticks[0]) * source.time_base)


def _picture(frame: "av.VideoFrame", reformatter: "VideoReformatter") -> NDArray[np.uint8]:
    """A frame as RGB by the matrix and range that it names, upright."""
    from av.video.reformatter import Colorspace, Interpolation

    matrix: int | None = None  # as the frame says
    if frame.colorspace == _UNSPECIFIED:
        width_px, height_px = _HIGH_DEFINITION_PX
        is_hd = max(frame.width, frame.height) >= width_px or min(frame.width, frame.height) >= height_px
        matrix = Colorspace.ITU709 if is_hd else Colorspace.ITU601
    rgb = reformatter.reformat(
        frame,
        format="rgb24",
        src_colorspace=matrix,
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT,
        threads=1,
    ).to_ndarray()
    # Counter-clockwise, in degrees.
    return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)), np.uint8)


def scaled_down(picture: NDArray[np.uint8], box_px: tuple[int, int] | None) -> NDArray[np.uint8]:
    """A picture, (H, W, 3) uint8, averaged over areas until it fits into a box; never enlarged.

    Args:
        picture: The picture.
        box_px: The box's longer and shorter side, for pictures that lie or stand; None: as it is.
    """
    height_px, width_px = picture.shape[:2]
    if box_px is None:
        return picture
    scale = min(max(box_px) / max(height_px, width_px), min(box_px) / min(height_px, width_px))
    if scale >= 1:
        return picture
    size = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


@contextmanager
def _opened(path: Path) -> Iterator[tuple["InputContainer", "VideoStream"]]:
    """A file and its video; every way in which it cannot be read becomes one line."""
    try:
        import av
    except ImportError as error:
        raise MachineError("reading video needs the package av (pip install av)") from error
    av.logging.set_level(None)  # what FFmpeg says of damaged files would stand among a command's lines
    if not path.exists():
        raise DataError(f"{quoted(path)}: there is no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{quoted(path)}: the file is empty (0 bytes)")
    try:
        # A file that is named "concat:..." stays one, and no address is followed. Pictures are "pipes".
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
            if not container.streams.video or container.format.name.endswith("_pipe"):
                raise DataError(f"{quoted(path)}: there is no video in it")
            yield container, container.streams.video[0]
    except av.error.FFmpegError as error:
        reason = " ".join((error.strerror or str(error)).split())
        raise DataError(
            f"{quoted(path)}: cannot be read as a video ({reason}): damaged, truncated, or none"
        ) from error


def _require_pictures(frame: "av.VideoFrame", path: Path) -> None:
    """Refuse what would give pictures that are wrong."""
    from av.video.reformatter import ColorTrc

    if frame.interlaced_frame:
        raise DataError(f"{quoted(path)}: interlaced: each frame is two halves in time; deinterlace it first")
    if any(frame.color_trc == getattr(ColorTrc, name) for name in _HIGH_RANGE):
        raise DataError(
            f"{quoted(path)}: of high dynamic range (HLG or PQ), whose values are not those of pictures: "
            "convert it to standard range (SDR, BT.709) first"
        )


def _ends_early(container: "InputContainer", stream: "VideoStream", found: Video) -> list[str]:
    """That a file is shorter than its header states, if so."""
    if stream.duration is not None and stream.time_base is not None:
        stated_s = float(stream.duration * stream.time_base)
    elif container.duration is not None and len(container.streams) == 1:
        stated_s = container.duration / 1e6
    else:
        return []
    if stated_s - found.seconds <= max(_MISSING_S, _MISSING_SHARE * stated_s):
        return []
    return [
        f"ends after {found.seconds:.1f} s of the {stated_s:.1f} s that its header states: perhaps truncated"
    ]


def _not_square(stream: "VideoStream") -> list[str]:
    ratio = stream.sample_aspect_ratio
    if not ratio or ratio == 1:
        return []
    return [f"its pixels are not square ({ratio.numerator}:{ratio.denominator}); they are taken as stored"]
