"""Motions during an exposure.

Time runs from -1 at the start over 0 at mid-exposure, where nothing has moved yet, to 1 at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Points = NDArray[np.float64]


class Motion(Protocol):
    """Where content goes in time."""

    def matrix(self, instant: float) -> Matrix:
        """(3, 3): takes homogeneous coordinates (x, y, 1) in px at mid-exposure to those at an instant."""
        ...


AnyMotion = TypeVar("AnyMotion", bound=Motion)


@dataclass(frozen=True)
class AffineMotion:
    """An affine motion that is exactly quadratic in time at every point: I + velocity t + acceleration t**2.

    Attributes:
        velocity: (2, 3).
        acceleration: (2, 3).
    """

    velocity: Matrix
    acceleration: Matrix

    def matrix(self, instant: float) -> Matrix:
        """(3, 3), whose last row is (0, 0, 1)."""
        result = np.eye(3)
        result[:2] += self.velocity * instant + self.acceleration * instant**2
        return result

    @classmethod
    def rigid(
        cls,
        centre: Points,
        *,
        shift: Points,
        bend: Points,
        turn: float,
        growth: float,
    ) -> "AffineMotion":
        """Move along a parabola, turn and grow about a centre.

        The turn is the rotation's second-order expansion, cos a = 1 - a**2 / 2 and sin a = a, so that paths
        are exact parabolas. At distance r it differs from the rotation by a**3 r / 6: by 0.06 px for 0.2 rad
        at 45 px.

        Args:
            centre: (2,), px, x then y.
            shift: (2,), px from mid-exposure to the end, without the bend.
            bend: (2,), px that both the start and the end lie aside.
            turn: Angle from mid-exposure to the end, radians, from x towards y.
            growth: Relative change of size from mid-exposure to the end.
        """
        linear = np.array([[growth, -turn], [turn, growth]])
        square = np.array([[-(turn**2) / 2, 0.0], [0.0, -(turn**2) / 2]])
        velocity = np.column_stack([linear, shift - linear @ centre])
        return cls(velocity, np.column_stack([square, bend - square @ centre]))


@dataclass(frozen=True)
class ShakeMotion:
    """The homography of a hand-held camera that turns about its three axes and moves along its own.

    Attributes:
        focal_px: Focal length.
        centre: (2,), px, where the optical axis meets the picture.
        velocity: (4,), radians about x (pitch), y (yaw) and z (roll), and relative zoom, from mid-exposure to
            the end.
        acceleration: (4,), what is added at both the start and the end.
    """

    focal_px: float
    centre: Points
    velocity: Points
    acceleration: Points

    def matrix(self, instant: float) -> Matrix:
        """(3, 3)."""
        pitch, yaw, roll, zoom = self.velocity * instant + self.acceleration * instant**2
        turn_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
        turn_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        turn_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
        to_pixels = np.array(
            [[self.focal_px, 0, self.centre[0]], [0, self.focal_px, self.centre[1]], [0, 0, 1]], np.float64
        )
        grown = np.diag([1 + zoom, 1 + zoom, 1.0])
        return np.asarray(to_pixels @ grown @ turn_z @ turn_y @ turn_x @ np.linalg.inv(to_pixels))


def displacement(motion: Motion, instant: float, points: Points) -> Points:
    """Where the content that is at these points at mid-exposure is at an instant, minus here.

    Args:
        motion: Of the content.
        instant: From -1 to 1.
        points: (..., 2), px, x then y.

    Returns:
        (..., 2), px, x then y.
    """
    matrix = motion.matrix(instant)
    moved = points @ matrix[:2, :2].T + matrix[:2, 2]
    depth = points @ matrix[2, :2] + matrix[2, 2]
    return np.asarray(moved / depth[..., None] - points)


def blur_lengths(motion: Motion, points: Points) -> NDArray[np.float64]:
    """(...): the way from the start over mid-exposure to the end, in px, of each of the points (..., 2)."""
    start, end = displacement(motion, -1.0, points), displacement(motion, 1.0, points)
    return np.asarray(np.linalg.norm(start, axis=-1) + np.linalg.norm(end, axis=-1))


def with_blur_length(build: Callable[[float], AnyMotion], points: Points, blur_px: float) -> AnyMotion:
    """Scale a motion so that the longest of the ways of the points is as long as asked.

    Args:
        build: Makes the motion of a strength; ways grow with it nearly in proportion.
        points: (..., 2), px.
        blur_px: The longest way wanted.
    """
    strength = 1e-3
    for _ in range(4):
        strength *= blur_px / float(blur_lengths(build(strength), points).max())
    return build(strength)


def field(motion: Motion, instant: float, width_px: int, height_px: int) -> NDArray[np.float32]:
    """The displacement of every pixel of a picture, (H, W, 2) float32, px, x then y."""
    x, y = np.arange(width_px, dtype=np.float64), np.arange(height_px, dtype=np.float64)[:, None]
    matrix = motion.matrix(instant)
    depth = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
    result = np.empty((height_px, width_px, 2), np.float32)
    for axis, here in enumerate((x, y)):
        result[..., axis] = (matrix[axis, 0] * x + matrix[axis, 1] * y + matrix[axis, 2]) / depth - here
    return result
