"""Which stretches of a video make a good pair: neither still, nor across a cut, nor under changing light."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from deblur_lab.data.video.files import GAP, VideoFrame

Reason = Literal[
    "still", "too much motion", "large steps", "light changes", "repeated frames", "scene changes"
]
Break = Literal["cuts", "gaps in time"]

# Frames are compared at so many pixels on their longer side.
_SIDE_PX = 320
# A step's motion is what so many percent of the picture do not exceed.
_PERCENTILE = 95
# Of a frame's contrast, what the frame before explains when it is moved; below, they show different scenes.
# Variances in squares of stored values; the floor keeps noise from counting as a scene.
_EXPLAINED, _FLOOR = 0.5, 25.0
_IN_VIEW = 0.1
# By how many stored values the brightness of what is seen may drift within an average: a fade, a flash, or
# lamps that flicker with the mains.
_DRIFT = 6.0
# A frame that repeats the one before differs from it by less than this (in stored values, on average), and by
# less than this share of what the others do.
_REPEATED, _REPEATED_SHARE = 0.1, 0.1
VISIBLE_STEP_PX = 3.0
"""Beyond this motion from one frame to the next, the average shows copies along edges and not a smear."""


@dataclass(frozen=True)
class Step:
    """How two frames differ.

    Attributes:
        motion_px: The motion that 95 % of the picture do not exceed, in pixels of the frames.
        explained: The share of the later one's contrast that the earlier one explains when it is moved; 1 is
            all of it, 0 and less is nothing.
        brighter: By how many stored values what is seen became brighter, on average.
        change: The mean difference of the two as they are, in stored values.
    """

    motion_px: float
    explained: float
    brighter: float
    change: float


@dataclass(frozen=True)
class Choice:
    """Which frames are averaged, and what is left out.

    Attributes:
        stride: From the first frame of an average to that of the next; None: as many as were averaged, so
            that no frame is used twice.
        min_motion_px: Averages over less motion are still.
        max_motion_px: Those over more are left out; None: none are.
        max_step_px: Those with more motion between two of their frames are left out; None: none are.
        max_pairs: At most so many are taken, spread over the time; None: all.
    """

    stride: int | None = None
    min_motion_px: float = 2.0
    max_motion_px: float | None = None
    max_step_px: float | None = None
    max_pairs: int | None = None


@dataclass(frozen=True)
class Window:
    """Frames to average.

    Attributes:
        frames: In order; an odd number of them.
        motion_px: From the first to the middle one and on to the last: the motion that 95 % of the picture do
            not exceed.
        step_px: From one to the next, likewise, on average over the half in which there is more motion.
    """

    frames: tuple[VideoFrame, ...]
    motion_px: float
    step_px: float

    @property
    def middle(self) -> VideoFrame:
        """The sharp one."""
        return self.frames[len(self.frames) // 2]


@dataclass(frozen=True)
class _Seen:
    """A frame, and what it is compared by."""

    frame: VideoFrame
    gray: NDArray[np.uint8]
    scale: float
    step: Step | None


class Windows:
    """Finds the windows of a video while it is read; holds no more frames than one window has.

    Args:
        choice: Which to take.
        count: Says how many frames the next window has: an odd number, 3 at least.
        interval_s: The usual time between two frames.
        start_s: Of the first frame; what `max_pairs` is spread over begins there.
        end_s: Where it ends.

    Attributes:
        left_out: How many windows were left out, by reason.
        breaks: How many times a new window was begun, whatever there was of one, by reason.
        found: How many windows were yielded.
        large_steps: How many of those have steps of more than `VISIBLE_STEP_PX`.
    """

    def __init__(
        self,
        choice: Choice,
        count: Callable[[], int],
        interval_s: float,
        start_s: float = 0.0,
        end_s: float = float("inf"),
    ) -> None:
        self.left_out: Counter[Reason] = Counter()
        self.breaks: Counter[Break] = Counter()
        self.found = 0
        self.large_steps = 0
        self._choice = choice
        self._draw = count
        self._count = count()
        self._interval_s = interval_s
        self._span_s = (start_s, end_s)
        self._ring: deque[_Seen] = deque()
        self._before: _Seen | None = None
        self._flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._to_skip = 0
        self._served: set[int] = set()

    def feed(self, frame: VideoFrame) -> Iterator[Window]:
        """Take the next frame, and yield the window that it completes, if that is one to take."""
        if self._to_skip:
            self._to_skip -= 1
            self._before = None
            return
        gray, scale = _small(frame.picture)
        step, before = None, self._before
        if before is not None:
            waited = (frame.time_s - before.frame.time_s) / self._interval_s
            step = self._compared(before.gray, gray, scale)
            broken: Break | None = "cuts" if step.explained < _EXPLAINED else None
            if not 1 / GAP < waited < GAP:
                broken = broken or "gaps in time"
            if broken is not None:
                self.breaks[broken] += 1
                self._ring.clear()
                step = None
        self._before = _Seen(frame, gray, scale, step)
        self._ring.append(self._before)
        # More than one where windows overlap and the next is shorter.
        while len(self._ring) >= self._count:
            window = self._judged()
            if window is not None:
                self.found += 1
                self.large_steps += window.step_px > VISIBLE_STEP_PX
                yield window

    def _judged(self) -> Window | None:
        """The window that the ring begins with, if it is to be taken; makes room for the next."""
        seen = list(self._ring)[: self._count]
        steps = [one.step for one in seen[1:] if one.step is not None]
        middle = seen[len(seen) // 2]
        slot = self._slot(middle.frame.time_s)
        if slot in self._served:
            self._advance(self._choice.stride or self._count)
            return None
        halves = [
            self._compared(earlier.gray, later.gray, middle.scale)
            for earlier, later in ((seen[0], middle), (middle, seen[-1]))
        ]
        motion_px = sum(half.motion_px for half in halves)
        # Of single steps, noise is a large part.
        step_px = max(half.motion_px for half in halves) / (len(seen) // 2)
        changes = [step.change for step in steps]
        repeated = min(_REPEATED, _REPEATED_SHARE * sum(changes) / len(changes))
        drift = list(accumulate((step.brighter for step in steps), initial=0.0))
        choice = self._choice
        reason: Reason | None = None
        if max(drift) - min(drift) > _DRIFT:
            reason = "light changes"
        elif min(half.explained for half in halves) < _EXPLAINED:
            # No step is a cut: a motion too large to be followed over half of the window, or a dissolve.
            half = len(seen) // 2
            follows = self._follows(seen[: half + 1]) and self._follows(seen[half:])
            reason = "too much motion" if follows else "scene changes"
        elif motion_px < choice.min_motion_px:
            reason = "still"
        elif any(change < repeated for change in changes):
            reason = "repeated frames"
        elif choice.max_motion_px is not None and motion_px > choice.max_motion_px:
            reason = "too much motion"
        elif choice.max_step_px is not None and step_px > choice.max_step_px:
            reason = "large steps"
        self._advance(self._choice.stride or self._count)
        if reason is not None:
            self.left_out[reason] += 1
            return None
        if slot is not None:
            self._served.add(slot)
        return Window(tuple(one.frame for one in seen), motion_px, step_px)

    def _follows(self, seen: list[_Seen]) -> bool:
        """Whether the last of some frames shows what the first does, as followed from each to the next."""
        last = seen[-1].gray
        places = np.indices(last.shape, np.float32)
        rows, columns = places[0], places[1]
        for earlier, later in zip(seen[-2::-1], seen[:0:-1], strict=True):
            flow = self._flow.calc(later.gray, earlier.gray, None)
            here = cv2.remap(flow, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            rows, columns = rows + here[..., 1], columns + here[..., 0]
        if _in_view(rows, columns).mean() <= _IN_VIEW:
            return True  # all has moved out of view, and no step of that was a cut
        return _explained(_left(seen[0].gray, last, rows, columns), last) >= _EXPLAINED

    def _advance(self, stride: int) -> None:
        """Let go of what the next window does not have, and say how long it is."""
        held = min(stride, len(self._ring))
        for _ in range(held):
            self._ring.popleft()
        self._to_skip = stride - held
        self._count = self._draw()

    def _slot(self, time_s: float) -> int | None:
        """Which of `max_pairs` equal parts of the time a window is in."""
        start_s, end_s = self._span_s
        if self._choice.max_pairs is None:
            return None
        share = (time_s - start_s) / (end_s - start_s)
        return min(int(share * self._choice.max_pairs), self._choice.max_pairs - 1)

    def _compared(self, earlier: NDArray[np.uint8], later: NDArray[np.uint8], scale: float) -> Step:
        """How two small pictures differ; lengths are told for the large ones."""
        flow = self._flow.calc(later, earlier, None)
        rows, columns = np.indices(later.shape, np.float32)
        rows, columns = rows + flow[..., 1], columns + flow[..., 0]
        left = _left(earlier, later, rows, columns)
        return Step(
            motion_px=float(np.percentile(np.hypot(flow[..., 0], flow[..., 1]), _PERCENTILE)) * scale,
            explained=_explained(left, later),
            brighter=float(left.mean()),
            change=float(np.abs(later.astype(np.float32) - earlier).mean()),
        )


def _left(
    earlier: NDArray[np.uint8], later: NDArray[np.uint8], rows: NDArray[Any], columns: NDArray[Any]
) -> NDArray[np.float32]:
    """What differs between a picture and an earlier one of which each pixel was at these places."""
    moved = cv2.remap(earlier, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    left = later.astype(np.float32) - moved
    # What has come into view is not compared, unless it is nearly all.
    inside = _in_view(rows, columns)
    return left[inside] if inside.mean() > _IN_VIEW else left


def _in_view(rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray((rows >= 0) & (columns >= 0) & (rows < len(rows)) & (columns < rows.shape[1]))


def _explained(left: NDArray[np.float32], later: NDArray[np.uint8]) -> float:
    """See `Step`."""
    return 1 - float(left.var()) / (float(later.var()) + _FLOOR)


def _small(picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """A picture, (H, W, 3), as a small gray one, and how many times larger it is itself."""
    height_px, width_px = picture.shape[:2]
    scale = max(1.0, max(height_px, width_px) / _SIDE_PX)
    size = (max(1, round(width_px / scale)), max(1, round(height_px / scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if scale > 1 else picture
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8), scale
