"""Synthetic scenes: what moves is rendered at many instants of an exposure and averaged, in light."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from deblur_lab.data import motion as moving
from deblur_lab.data.light import SensorNoise, to_light, to_srgb
from deblur_lab.data.motion import AffineMotion, ShakeMotion
from deblur_lab.data.photographs import Picture
from deblur_lab.data.samples import Scene
from deblur_lab.errors import ConfigurationError
from deblur_lab.ranges import Count, Natural, Range, Share

Image = NDArray[np.float32]

# A pixel is blurred if at any instant more of it than this shows something that moves.
BLURRED_ABOVE_SHARE = 0.02
# Every point of a moving object moves at least a quarter of the object's blur: from here on, half a pixel.
SMALLEST_BLUR_PX = 2.5
BlurPx = Annotated[float, Range(SMALLEST_BLUR_PX)]
_OUTLINE_POINTS = 64
_SHIFT_BITS = 4  # OpenCV's drawing functions take coordinates in sixteenths of a pixel
_TRANSPARENCY = np.array([[0, 0, 0, -1, 1]] * 4, np.float64)  # 1 - opacity, in all four channels


class SceneKind(Protocol):
    """A way to make scenes."""

    def scene(
        self,
        name: str,
        rng: np.random.Generator,
        pictures: Sequence[Picture],
        width_px: int,
        height_px: int,
    ) -> Scene:
        """Make one scene, a function of the arguments and of the kind's settings alone.

        Args:
            name: The scene's name.
            rng: Draws everything.
            pictures: To cut the scene from.
            width_px: Width of the scene.
            height_px: Height of the scene.

        Returns:
            A scene with mask and true displacements. The sharp picture is the instant of mid-exposure,
            without noise; only the blurry one has the sensor's.
        """
        ...


@dataclass(frozen=True)
class Exposure:
    """How the shutter and the sensor see.

    Attributes:
        instants: How many instants are averaged, at least; odd, so that mid-exposure is one of them. Where
            blur is longer, there are as many as it has pixels, so that no steps are seen.
        in_light: Average linear light, as a sensor does; otherwise the stored values, as GoPro's `blur` does.
        brightness: What the light is multiplied with; below 1 for scenes in the dark.
        noise: Of the sensor.

    Raises:
        ConfigurationError: a value is out of range.
    """

    instants: Annotated[int, Range(3)] = 31
    in_light: bool = True
    brightness: Annotated[float, Range(0, 1, open_low=True)] = 1.0
    noise: SensorNoise = field(default_factory=SensorNoise)

    def __post_init__(self) -> None:
        if self.instants < 3 or self.instants % 2 == 0:
            raise ConfigurationError(f"instants={self.instants} of the exposure must be odd and at least 3")
        if not 0 < self.brightness <= 1:
            raise ConfigurationError(f"brightness={self.brightness} must be above 0 and at most 1")

    def times(self, blur_px: float) -> NDArray[np.float64]:
        """The instants, from -1 to 1, for a blur of this length; the middle one is exactly 0."""
        half = max(self.instants // 2, int(np.ceil(blur_px / 2)))
        return np.arange(-half, half + 1) / half

    def seen(self, picture: NDArray[np.uint8]) -> Image:
        """A picture, (H, W, 3) uint8, as what is averaged."""
        light = to_light(picture) * np.float32(self.brightness)
        return light if self.in_light else to_srgb(light).astype(np.float32) / np.float32(255)

    def sharp(self, average: Image) -> NDArray[np.uint8]:
        """What is averaged as a stored picture, (H, W, 3) uint8, without noise."""
        if self.in_light:
            return to_srgb(average)
        return np.asarray(np.rint(np.clip(average, 0.0, 1.0) * np.float32(255)), np.uint8)

    def blurry(self, average: Image, rng: np.random.Generator) -> NDArray[np.uint8]:
        """The same with the sensor's noise."""
        light = average if self.in_light else to_light(self.sharp(average))
        return to_srgb(self.noise.add(rng, light))


@dataclass(frozen=True)
class MovingObject:
    """Something cut out of a picture that moves.

    Attributes:
        layer: (h, w, 4) float32, light times opacity, and opacity, which is 0 at the border.
        left: Column of the scene where the layer's first column is at mid-exposure.
        top: Likewise its row.
        motion: In coordinates of the scene.
    """

    layer: Image
    left: int
    top: int
    motion: AffineMotion

    def box(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """What the object may cover: ((left, top), (right, bottom)), right and bottom exclusive."""
        height, width = self.layer.shape[:2]
        right, bottom = self.left + width, self.top + height
        corners = np.array(
            [[self.left, self.top, 1], [right, self.top, 1], [self.left, bottom, 1], [right, bottom, 1]]
        )
        time = times[:, None, None]
        motion = self.motion.velocity * time + self.motion.acceleration * time**2
        places = corners[:, :2] + corners @ motion.transpose(0, 2, 1)
        low, high = places.min(axis=(0, 1)), places.max(axis=(0, 1))
        return np.array([np.floor(low), np.ceil(high) + 1], np.int64)

    def at(self, time: float, left: int, top: int, width_px: int, height_px: int) -> Image:
        """The layer at an instant, in a window of the scene, (height_px, width_px, 4)."""
        matrix = self.motion.matrix(time)[:2]
        matrix[:, 2] += matrix[:, :2] @ (self.left, self.top) - (left, top)
        return np.asarray(cv2.warpAffine(self.layer, matrix, (width_px, height_px), flags=cv2.INTER_LINEAR))


def expose(
    background: Image, objects: Sequence[MovingObject], times: NDArray[np.float64]
) -> tuple[Image, Image, NDArray[np.uint8], Image, Image]:
    """Average, over the instants, objects that move before a background.

    Args:
        background: (H, W, 3), light, or what else is to be averaged.
        objects: From back to front.
        times: The instants; one of them is 0.

    Returns:
        What is seen at mid-exposure and on average, both (H, W, 3); the mask, (H, W) uint8; the true
        displacements at the start and at the end, both (H, W, 2).
    """
    height_px, width_px = background.shape[:2]
    frame = np.array([width_px, height_px])
    boxes = [thing.box(times).clip(0, frame) for thing in objects]
    (left, top), (right, bottom) = np.min(boxes, axis=0)[0], np.max(boxes, axis=0)[1]
    stack, total, most = (np.zeros((bottom - top, right - left, 4), np.float32) for _ in range(3))
    middle = stack
    for time in times:
        stack.fill(0.0)
        for thing, ((x0, y0), (x1, y1)) in zip(objects, boxes, strict=True):
            layer = thing.at(time, int(x0), int(y0), int(x1 - x0), int(y1 - y0))
            part = stack[y0 - top : y1 - top, x0 - left : x1 - left]
            cv2.multiply(part, cv2.transform(layer, _TRANSPARENCY), dst=part)
            cv2.add(part, layer, dst=part)
        cv2.accumulate(stack, total)
        cv2.max(most, stack, dst=most)
        if time == 0:
            middle = stack.copy()
    total /= np.float32(len(times))

    inside = (slice(top, bottom), slice(left, right))
    sharp, blurry = background.copy(), background.copy()
    for picture, stack in ((sharp, middle), (blurry, total)):
        picture[inside] *= 1 - stack[..., 3:]
        picture[inside] += stack[..., :3]
    mask = np.zeros((height_px, width_px), np.uint8)
    mask[inside] = most[..., 3] > BLURRED_ABOVE_SHARE
    start, end = (np.zeros((height_px, width_px, 2), np.float32) for _ in range(2))
    for thing in objects:
        here = thing.at(0.0, 0, 0, width_px, height_px)[..., 3] >= 0.5
        for displacements, time in ((start, -1.0), (end, 1.0)):
            displacements[here] = moving.field(thing.motion, time, width_px, height_px)[here]
    return sharp, blurry, mask, start, end


@dataclass(frozen=True)
class LocalMotion:
    """Objects that move before a still background, for local motion blur.

    Objects are pieces of pictures within smooth random outlines. Each moves along a parabola and turns and
    grows a little, and hides what is behind it. Other objects stand still behind them, so that an outline
    alone does not give away what moves.

    Attributes:
        min_blur_px: Shortest blur of an object: the way of the point that moves most, start to end.
        max_blur_px: Longest blur of an object.
        most_moving: How many objects move, at most; at least one does.
        most_still: How many objects stand still, at most.
        smallest_object: Diameter of the smallest object, as a share of the scene's shorter side.
        largest_object: Diameter of the largest.
        exposure: Shutter and sensor.

    Raises:
        ConfigurationError: a value is out of range.
    """

    min_blur_px: BlurPx = 4.0
    max_blur_px: BlurPx = 24.0
    most_moving: Count = 3
    most_still: Natural = 2
    smallest_object: Share = 0.2
    largest_object: Share = 0.5
    exposure: Exposure = field(default_factory=Exposure)

    def __post_init__(self) -> None:
        _check_blur(self.min_blur_px, self.max_blur_px)
        if self.most_moving < 1 or self.most_still < 0:
            raise ConfigurationError(
                f"most_moving={self.most_moving} must be at least 1, most_still={self.most_still} at least 0"
            )
        if not 0 < self.smallest_object <= self.largest_object <= 1:
            raise ConfigurationError(
                f"smallest_object={self.smallest_object} and largest_object={self.largest_object} must be "
                "shares of the scene's shorter side, the smaller first"
            )

    def scene(
        self,
        name: str,
        rng: np.random.Generator,
        pictures: Sequence[Picture],
        width_px: int,
        height_px: int,
    ) -> Scene:
        """Make one scene: see `SceneKind.scene`. The displacement of the background is 0."""
        with _one_thread():
            chosen = rng.permutation(len(pictures))
            background = self.exposure.seen(pictures[chosen[0]].cut(rng, width_px, height_px))
            foregrounds = [pictures[index] for index in chosen[1:]] or list(pictures)
            for _ in range(int(rng.integers(self.most_still + 1))):
                _lay_over(background, self._object(rng, foregrounds, width_px, height_px, blur_px=0.0))
            blurs = rng.uniform(self.min_blur_px, self.max_blur_px, int(rng.integers(self.most_moving)) + 1)
            objects = [self._object(rng, foregrounds, width_px, height_px, float(blur)) for blur in blurs]
            sharp, blurry, mask, start, end = expose(
                background, objects, self.exposure.times(float(blurs.max()))
            )
            return Scene(
                name, self.exposure.blurry(blurry, rng), self.exposure.sharp(sharp), mask, start, end
            )

    def _object(
        self,
        rng: np.random.Generator,
        foregrounds: Sequence[Picture],
        width_px: int,
        height_px: int,
        blur_px: float,
    ) -> MovingObject:
        radius = rng.uniform(self.smallest_object, self.largest_object) / 2 * min(width_px, height_px)
        outline = _outline(rng, max(radius, 2.0))
        softness = rng.uniform(0.6, 1.2)
        margin = int(np.ceil(4 * softness)) + 1
        low = np.floor(outline.min(axis=0)) - margin
        width, height = (int(size) for size in np.ceil(outline.max(axis=0)) + margin - low)
        piece = foregrounds[int(rng.integers(len(foregrounds)))].cut(rng, width, height)
        opacity = np.zeros((height, width), np.uint8)
        corners = np.rint((outline - low) * (1 << _SHIFT_BITS)).astype(np.int32)
        cv2.fillPoly(opacity, [corners], 255, cv2.LINE_AA, _SHIFT_BITS)
        soft = cv2.GaussianBlur(opacity.astype(np.float32) / np.float32(255), (0, 0), softness)
        # The blur has no end: what is left of it at the layer's border would show as a seam.
        soft[[0, -1]] = soft[:, [0, -1]] = 0
        layer = np.empty((height, width, 4), np.float32)
        layer[..., 3] = soft
        layer[..., :3] = self.exposure.seen(piece) * soft[..., None]

        place = rng.uniform(0.1, 0.9, 2) * (width_px, height_px)
        left, top = (int(start) for start in np.rint(place + low))
        centre = place + outline.mean(axis=0)
        reach = float(np.linalg.norm(outline - outline.mean(axis=0), axis=1).max())
        motion = _object_motion(rng, centre, reach, outline + place, blur_px)
        return MovingObject(layer, left, top, motion)


@dataclass(frozen=True)
class CameraShake:
    """A hand-held camera that turns and moves along its axis: the whole picture is blurred.

    The picture moves along a homography whose angles are quadratic in time. The mask is all ones.

    Attributes:
        min_blur_px: Shortest blur of a scene: the way of the corner that moves most, start to end.
        max_blur_px: Longest blur of a scene.
        exposure: Shutter and sensor.

    Raises:
        ConfigurationError: a value is out of range.
    """

    min_blur_px: BlurPx = 4.0
    max_blur_px: BlurPx = 20.0
    exposure: Exposure = field(default_factory=Exposure)

    def __post_init__(self) -> None:
        _check_blur(self.min_blur_px, self.max_blur_px)

    def scene(
        self,
        name: str,
        rng: np.random.Generator,
        pictures: Sequence[Picture],
        width_px: int,
        height_px: int,
    ) -> Scene:
        """Make one scene: see `SceneKind.scene`."""
        with _one_thread():
            blur_px = float(rng.uniform(self.min_blur_px, self.max_blur_px))
            motion = _shake_motion(rng, width_px, height_px, blur_px)
            # What comes into view during the exposure must be there to be seen.
            margin = int(np.ceil(blur_px)) + 2
            picture = pictures[int(rng.integers(len(pictures)))]
            wide = self.exposure.seen(picture.cut(rng, width_px + 2 * margin, height_px + 2 * margin))
            sharp = wide[margin:-margin, margin:-margin]
            to_scene = np.array([[1, 0, -margin], [0, 1, -margin], [0, 0, 1]], np.float64)
            total = np.zeros_like(sharp)
            times = self.exposure.times(blur_px)
            for time in times:
                matrix = motion.matrix(time) @ to_scene
                cv2.accumulate(cv2.warpPerspective(wide, matrix, (width_px, height_px)), total)
            total /= np.float32(len(times))
            return Scene(
                name,
                self.exposure.blurry(total, rng),
                self.exposure.sharp(sharp),
                np.ones((height_px, width_px), np.uint8),
                moving.field(motion, -1.0, width_px, height_px),
                moving.field(motion, 1.0, width_px, height_px),
            )


@dataclass(frozen=True)
class Mixture:
    """Scenes of several kinds, each drawn with its share.

    Attributes:
        kinds: To draw from.
        shares: Of each kind, in any unit.

    Raises:
        ConfigurationError: not one positive share a kind.
    """

    kinds: Sequence[SceneKind]
    shares: Sequence[float]

    def __post_init__(self) -> None:
        if not self.kinds or len(self.kinds) != len(self.shares) or min(self.shares) <= 0:
            raise ConfigurationError(
                f"shares={list(self.shares)} must give one positive number for each of the "
                f"{len(self.kinds)} kinds of scenes"
            )

    def scene(
        self,
        name: str,
        rng: np.random.Generator,
        pictures: Sequence[Picture],
        width_px: int,
        height_px: int,
    ) -> Scene:
        """Make one scene: see `SceneKind.scene`."""
        shares = np.asarray(self.shares, np.float64)
        kind = self.kinds[int(rng.choice(len(self.kinds), p=shares / shares.sum()))]
        return kind.scene(name, rng, pictures, width_px, height_px)


def _check_blur(min_blur_px: float, max_blur_px: float) -> None:
    if not SMALLEST_BLUR_PX <= min_blur_px <= max_blur_px:
        raise ConfigurationError(
            f"min_blur_px={min_blur_px} and max_blur_px={max_blur_px} must be at least {SMALLEST_BLUR_PX}, "
            "the smaller first"
        )


def _outline(rng: np.random.Generator, radius: float) -> NDArray[np.float64]:
    """A smooth closed curve about the origin, (N, 2) px: an ellipse whose radius swings a little."""
    angles = np.linspace(0.0, 2 * np.pi, _OUTLINE_POINTS, endpoint=False)
    swings = np.arange(2, 7)
    amplitudes = rng.normal(0.0, 0.25, len(swings)) / swings
    phases = rng.uniform(0.0, 2 * np.pi, len(swings))
    radii = radius * np.exp(np.cos(angles[:, None] * swings + phases) @ amplitudes)
    flat, turn = rng.uniform(0.5, 1.0), rng.uniform(0.0, np.pi)
    curve = np.column_stack([radii * np.cos(angles), flat * radii * np.sin(angles)])
    cosine, sine = np.cos(turn), np.sin(turn)
    curve = curve @ np.array([[cosine, sine], [-sine, cosine]])
    return np.asarray(curve * (radius / np.linalg.norm(curve, axis=1).max()))


def _object_motion(
    rng: np.random.Generator,
    centre: NDArray[np.float64],
    reach: float,
    outline: NDArray[np.float64],
    blur_px: float,
) -> AffineMotion:
    """A motion whose longest way is `blur_px` and whose shortest is at least a quarter of it."""
    angle = rng.uniform(0.0, 2 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    aside = np.array([-direction[1], direction[0]])
    bend = 0.3 * rng.uniform(-1.0, 1.0) * aside + 0.15 * rng.uniform(-1.0, 1.0) * direction
    turn = rng.uniform(-0.4, 0.4) / reach
    growth = rng.uniform(-0.1, 0.1) / reach
    if blur_px == 0.0:
        return AffineMotion(np.zeros((2, 3)), np.zeros((2, 3)))

    def build(strength: float) -> AffineMotion:
        return AffineMotion.rigid(
            centre,
            shift=direction * strength,
            bend=bend * strength,
            turn=float(np.clip(turn * strength, -0.2, 0.2)),
            growth=growth * strength,
        )

    return moving.with_blur_length(build, outline, blur_px)


def _shake_motion(rng: np.random.Generator, width_px: int, height_px: int, blur_px: float) -> ShakeMotion:
    """A motion whose longest way in the picture is `blur_px`."""
    # A small scene is a piece of a larger picture, not a picture of a wider lens.
    focal_px = 1.2 * max(width_px, height_px, 640)
    centre = np.array([(width_px - 1) / 2, (height_px - 1) / 2])
    half_diagonal = float(np.linalg.norm(centre)) + 1.0
    angle = rng.uniform(0.0, 2 * np.pi)
    # Pitch and yaw shift the picture by about focal_px times the angle; roll and zoom act at the corners.
    unit = np.array([1 / focal_px, 1 / focal_px, 1 / half_diagonal, 1 / half_diagonal])
    velocity = unit * (np.sin(angle), np.cos(angle), rng.normal(0.0, 0.4), rng.normal(0.0, 0.1))
    acceleration = unit * rng.normal(0.0, 1.0, 4) * (0.25, 0.25, 0.1, 0.03)
    corners = np.array(
        [[0, 0], [width_px - 1, 0], [0, height_px - 1], [width_px - 1, height_px - 1]], np.float64
    )

    def build(strength: float) -> ShakeMotion:
        return ShakeMotion(focal_px, centre, velocity * strength, acceleration * strength)

    return moving.with_blur_length(build, corners, blur_px)


def _lay_over(picture: Image, thing: MovingObject) -> None:
    """Put what stands still onto a picture, in place."""
    height, width = picture.shape[:2]
    layer = thing.at(0.0, 0, 0, width, height)
    picture *= 1 - layer[..., 3:]
    picture += layer[..., :3]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep OpenCV to this thread: pictures are small, and other cores are PyTorch's and the workers'."""
    before = cv2.getNumThreads()
    if before == 1:
        yield
        return
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
