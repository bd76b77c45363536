"""What is blurred in a picture, object by object: regions, how each moves as a whole, paths through it.

Maps are of one picture, (h, w), channels first; "px of the map" are theirs, while motion may be in other
pixels (of the photo that the map is a reduction of).
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Map = NDArray[np.float32]

STILL_PX = 0.25  # blur shorter than this cannot be seen
SMALLEST_SHARE = 0.001  # of the picture; smaller regions are specks, no objects, and smaller gaps no gaps
MOST_OBJECTS = 24

_SAMPLES_A_SIDE = 400  # of the raster that keeps paths apart
_NICE = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)  # what the rim of the wheel may stand for, and tenfold


class Regions(NamedTuple):
    """Where a picture is blurred.

    Attributes:
        likelihood: (h, w), smoothed, over 0.5 within the objects and nowhere else, whatever the threshold.
        labels: (h, w) int32, 0 = none, from 1 on the objects, the largest first.
        total: How many objects there are.
    """

    likelihood: Map
    labels: NDArray[np.int32]
    total: int


class MovingObject(NamedTuple):
    """A connected region of blur that moves, or a part of it that moves otherwise than the rest.

    Attributes:
        moving: (h, w), its pixels, of those of the region that move.
        centre_px: (2,), x and y in px of the map: its innermost point.
        mean_px: (2,), the mean displacement from the start of the exposure to its end, x and y.
        length_px: The mean length of the paths of its pixels.
        together: Whether its pixels move alike, so that the mean says how.
    """

    moving: NDArray[np.bool_]
    centre_px: NDArray[np.float64]
    mean_px: NDArray[np.float64]
    length_px: float
    together: bool


class Motion(NamedTuple):
    """Displacements without what is not finite.

    Attributes:
        paths: (N, 2, h, w), zero where they are not known.
        length_px: (h, w), along the path.
    """

    paths: Map
    length_px: Map

    @property
    def ends(self) -> Map:
        """(2, h, w): from the start to the end of the exposure."""
        ends: Map = self.paths[-1] - self.paths[0]
        return ends


def motion_of(motion: Tensor) -> Motion:
    """Take (N, 2, h, w) displacements, of which two are those at the start and the end of the exposure.

    Between two, and zero at mid-exposure, paths are parabolas, as in M2AENet (equation 4).
    """
    paths: Map = motion.detach().float().cpu().numpy()
    if len(paths) == 2:
        start, end = paths
        time = np.linspace(-1, 1, 9, dtype=np.float32)[:, None, None, None]
        paths = (start + end) / 2 * time**2 + (end - start) / 2 * time
    paths = np.where(np.isfinite(paths).all(axis=(0, 1)), paths, np.float32(0))
    steps = np.diff(paths, axis=0)
    return Motion(paths, np.hypot(steps[:, 0], steps[:, 1]).sum(axis=0, dtype=np.float32))


def blur_likelihood(probability: Tensor) -> Map:
    """(1, h, w) as (h, w) in [0, 1], unknown as 0."""
    likelihood: Map = probability[0].detach().cpu().float().clamp(0, 1).nan_to_num().numpy()
    return likelihood


def moving_likelihood(motion: Motion) -> Map:
    """Where motion alone says that there is blur: over a third of the longest, and long enough to be seen."""
    length_px = motion.length_px
    least_px = max(2 * STILL_PX, 0.3 * float(np.quantile(length_px, 0.995)))
    return (length_px > least_px).astype(np.float32)


def regions(likelihood: Map, threshold: float = 0.5) -> Regions:
    """Connected regions of likely blur, (h, w), outlines rounded off; specks are left out, or filled in.

    Args:
        likelihood: (h, w) in [0, 1].
        threshold: What is likelier is in a region.
    """
    sigma_px = max(0.7, max(likelihood.shape) / 200)
    smooth = cv2.GaussianBlur(_halved_at(likelihood, threshold), (0, 0), sigma_px).astype(np.float32)
    _, gaps, statistics, _ = cv2.connectedComponentsWithStats((smooth <= 0.5).astype(np.uint8))
    speck = statistics[:, cv2.CC_STAT_AREA] < SMALLEST_SHARE * smooth.size
    speck[0] = False  # what is likely
    smooth = np.where(speck[gaps], np.float32(0.55), smooth)
    count, labels, statistics, _ = cv2.connectedComponentsWithStats((smooth > 0.5).astype(np.uint8))
    areas = statistics[1:, cv2.CC_STAT_AREA]
    order = np.argsort(-areas, kind="stable")
    order = order[areas[order] >= max(2, SMALLEST_SHARE * smooth.size)]
    new_labels = np.zeros(count, np.int32)
    new_labels[order + 1] = np.arange(len(order)) + 1
    kept: NDArray[np.int32] = new_labels[labels]
    return Regions(np.where(kept > 0, smooth, np.minimum(smooth, np.float32(0.45))), kept, len(order))


def _halved_at(likelihood: Map, threshold: float) -> Map:
    """Stretch what lies below and above a threshold so that it comes to 0.5; 0 and 1 stay.

    Smoothed after that, the edge of what is certain stays where it is, whatever the threshold.
    """
    below = 0.5 * likelihood / max(threshold, 1e-6)
    above = 0.5 + 0.5 * (likelihood - threshold) / max(1 - threshold, 1e-6)
    return np.where(likelihood > threshold, above, below).astype(np.float32, copy=False)


def moving_objects(found: Regions, motion: Motion) -> list[MovingObject]:
    """What moves in the regions, the largest first, from `MOST_OBJECTS` regions at most."""
    objects = []
    ends = motion.ends
    for label in range(1, min(found.total, MOST_OBJECTS) + 1):
        region = found.labels == label
        long_px = float(np.quantile(motion.length_px[region], 0.9))
        # A blurred edge lies partly on what stands still, of which a prediction may say that it moves a bit.
        moving = region & (motion.length_px > max(STILL_PX, 0.2 * long_px))
        if moving.sum() < 0.2 * region.sum():
            continue
        for part in _parts(moving, motion):
            vectors = ends[:, part].astype(np.float64)
            mean = vectors.mean(axis=1)
            together = float(np.linalg.norm(mean)) > 0.7 * float(np.linalg.norm(vectors, axis=0).mean())
            objects.append(
                MovingObject(part, _innermost(part), mean, float(motion.length_px[part].mean()), together)
            )
    return objects


def _parts(moving: NDArray[np.bool_], motion: Motion) -> list[NDArray[np.bool_]]:
    """Objects that lie against each other: parts of a region between which the motion jumps."""
    jump = np.zeros(moving.shape, np.float32)
    for ends in motion.ends:
        smooth = cv2.GaussianBlur(ends, (0, 0), 0.7)
        jump += np.abs(cv2.morphologyEx(smooth, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)))
    even = moving & (jump < 1 + 0.3 * motion.length_px)
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(even.astype(np.uint8), connectivity=4)
    areas = statistics[1:, cv2.CC_STAT_AREA]
    large = np.flatnonzero(areas >= max(0.1 * moving.sum(), SMALLEST_SHARE * moving.size))
    if len(large) < 2 or areas[large].sum() < 0.6 * moving.sum():
        return [moving]
    return [labels == index + 1 for index in large[np.argsort(-areas[large], kind="stable")]]


def _innermost(region: NDArray[np.bool_]) -> NDArray[np.float64]:
    depth = cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return np.array((x + 0.5, y + 0.5))


class SeenMotion(NamedTuple):
    """Motion, object by object.

    Attributes:
        motion: Of all pixels.
        regions: Where there are objects.
        objects: Those that move.
        longest_px: The longest path within them; 0 if there are none.
    """

    motion: Motion
    regions: Regions
    objects: list[MovingObject]
    longest_px: float

    @property
    def scale_px(self) -> float:
        """The longest path, rounded up to a number that one likes to read."""
        if self.longest_px <= 0:
            return 1.0
        power = 10.0 ** math.floor(math.log10(self.longest_px))
        return next(nice * power for nice in _NICE if nice * power >= 0.999 * self.longest_px)

    def caption(self, magnification: int) -> str:
        """What stands beside the wheel."""
        if not self.objects:
            return "no moving object"
        drawn = f", drawn {magnification}x" if magnification > 1 else ""
        return f"longest {self.longest_px:.1f} px{drawn}"


def seen_motion(motion: Tensor, probability: Tensor | None, threshold: float = 0.5) -> SeenMotion:
    """Find the objects that move: in likely blur, or, if that is not known, by their motion alone."""
    given = motion_of(motion)
    if probability is None:
        found = regions(moving_likelihood(given))
    else:
        found = regions(blur_likelihood(probability), threshold)
    objects = moving_objects(found, given)
    lengths = [given.length_px[thing.moving] for thing in objects]
    longest_px = float(np.quantile(np.concatenate(lengths), 0.995)) if lengths else 0.0
    return SeenMotion(given, found, objects, longest_px)


class Spread(NamedTuple):
    """How paths are drawn and kept apart, in px of the map.

    Attributes:
        stretch: How many px of the map long a path is drawn for each px of motion.
        nearest_px: Paths do not come nearer to each other.
        farthest_px: Paths of large objects are this far apart.
    """

    stretch: float
    nearest_px: float
    farthest_px: float


def spread_paths(
    objects: Sequence[MovingObject], motion: Motion, spread: Spread
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Choose paths through objects that do not touch, in rows along the motion of each.

    Yields:
        A path, (N, 2) in px of the map, x then y, at the length at which it is to be drawn; and the path
        (N, 2) as it is, in px of motion from its pixel.
    """
    height, width = motion.length_px.shape
    grain = max(height, width) / _SAMPLES_A_SIDE
    taken = np.zeros((int(height / grain) + 2, int(width / grain) + 2), np.uint8)
    for thing in objects:
        gap_px = float(np.clip(np.sqrt(thing.moving.sum()) / 9, spread.nearest_px, spread.farthest_px))
        thickness = max(1, round(2 * gap_px / grain))
        first = True
        for row, column in _rows_along(thing, gap_px):
            path_px = _local_mean(motion.paths, thing.moving, row, column, round(0.35 * gap_px))
            if float(np.linalg.norm(np.diff(path_px, axis=0), axis=1).sum()) <= STILL_PX:
                continue
            path = np.array((column + 0.5, row + 0.5)) + path_px * spread.stretch
            places = (path / grain).astype(int)
            within = (places >= 0).all(axis=1) & (places < taken.shape[::-1]).all(axis=1)
            if not first and taken[places[within, 1], places[within, 0]].any():
                continue
            first = False
            cv2.polylines(taken, [places.astype(np.int32)], False, 1, thickness)
            yield path, path_px


def _rows_along(thing: MovingObject, gap_px: float) -> Iterator[tuple[int, int]]:
    """Pixels of an object, from its innermost on, in rows along its motion, each beginning in the middle."""
    region = thing.moving
    height, width = region.shape
    long_px = float(np.linalg.norm(thing.mean_px))
    along = thing.mean_px / long_px if long_px > 0 else np.array((1.0, 0.0))
    across = np.array((-along[1], along[0]))
    rows, columns = np.nonzero(region)
    offsets = np.stack((columns + 0.5, rows + 0.5), axis=1) - thing.centre_px
    most = int(np.abs(offsets @ across).max() / gap_px) + 1
    reach = int(np.abs(offsets @ along).max() / gap_px * 4) + 1
    for row in sorted(range(-most, most + 1), key=abs):
        for step in sorted(range(-reach, reach + 1), key=abs):
            # Each second row stands half a gap aside, as bricks do.
            shift = 0.25 * step + 0.5 * (row % 2)
            x, y = thing.centre_px + gap_px * (row * across + shift * along)
            if 0 <= x < width and 0 <= y < height and region[int(y), int(x)]:
                yield int(y), int(x)


def _local_mean(
    paths: Map, region: NDArray[np.bool_], row: int, column: int, radius: int
) -> NDArray[np.float64]:
    """The mean path, (N, 2), around a pixel, of a region alone: predictions flicker from pixel to pixel."""
    rows = slice(max(0, row - radius), row + radius + 1)
    columns = slice(max(0, column - radius), column + radius + 1)
    inside = region[rows, columns]
    mean: NDArray[np.float64] = paths[:, :, rows, columns][:, :, inside].mean(axis=2, dtype=np.float64)
    return mean
