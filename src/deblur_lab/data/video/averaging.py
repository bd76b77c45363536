"""Averages of frames: what one long exposure would have recorded, near enough."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from deblur_lab.data.light import srgb_to_linear
from deblur_lab.errors import ConfigurationError

GOPRO_GAMMA = 2.2


def average_stored(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The mean of the values as they are stored, which GoPro's `blur` is (Nah et al., CVPR 2017, section 2).

    Sums are of whole numbers and exact; the mean is rounded once, halves up.

    Args:
        frames: One or more, each (H, W, 3).
    """
    total = np.zeros(frames[0].shape, np.uint32)
    for frame in frames:
        total += frame
    count = len(frames)
    return np.asarray((2 * total + count) // (2 * count), np.uint8)


@dataclass(frozen=True)
class LightCurve:
    """How stored values stand for light.

    Attributes:
        gamma: Light is value ** gamma, both from 0 to 1: 2.2 is that of GoPro's `blur_gamma`. Or `srgb`: the
            curve of IEC 61966-2-1.

    Raises:
        ConfigurationError: The gamma is not positive.
    """

    gamma: float | Literal["srgb"] = GOPRO_GAMMA

    def __post_init__(self) -> None:
        if self.gamma != "srgb" and not self.gamma > 0:
            raise ConfigurationError(f"gamma={self.gamma}: more than 0, or srgb, is expected")

    def light(self) -> NDArray[np.float64]:
        """The light, from 0 to 1, of each of the 256 values."""
        values = np.arange(256) / 255
        return srgb_to_linear(values) if self.gamma == "srgb" else values**self.gamma

    def values(self, light: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Light from 0 to 1 as the nearest of the 256 values."""
        if self.gamma == "srgb":
            value = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        else:
            value = light ** (1 / self.gamma)
        return np.asarray(np.rint(np.clip(value, 0.0, 1.0) * 255), np.uint8)


def average_in_light(frames: Sequence[NDArray[np.uint8]], curve: LightCurve) -> NDArray[np.uint8]:
    """The mean of the light, stored again: GoPro's `blur_gamma` (Nah et al., CVPR 2017, section 2).

    Sums are of doubles; what is rounded is the result alone.

    Args:
        frames: One or more, each (H, W, 3).
        curve: From stored values to light and back.
    """
    table = curve.light()
    total = np.zeros(frames[0].shape, np.float64)
    for frame in frames:
        total += cv2.LUT(frame, table)
    return curve.values(total / len(frames))
