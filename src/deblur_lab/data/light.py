"""Between stored 8-bit values and light: the sRGB curve, and the noise of a sensor."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deblur_lab.errors import ConfigurationError
from deblur_lab.ranges import Positive, Weight

_STEPS = 65535


def srgb_to_linear(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stored sRGB values as linear light, both from 0 to 1, of any shape (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


# The curve of IEC 61966-2-1 as tables: the light of each of the 256 values, and the value of each of 65,536
# steps of light, of two values the one that is nearer on the curve's own scale.
_LIGHT = srgb_to_linear(np.arange(256) / 255).astype(np.float32)
_VALUE = np.searchsorted(
    srgb_to_linear((np.arange(255) + 0.5) / 255), np.arange(_STEPS + 1) / _STEPS, side="right"
).astype(np.uint8)


def to_light(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Stored sRGB values, (H, W, C) uint8, as linear light in [0, 1], float32."""
    return np.asarray(cv2.LUT(image, _LIGHT), np.float32)


def to_srgb(light: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Linear light, clipped to [0, 1], as the nearest sRGB values, uint8 of the same shape."""
    return _VALUE[(np.clip(light, 0.0, 1.0) * np.float32(_STEPS) + np.float32(0.5)).astype(np.uint16)]


@dataclass(frozen=True)
class SensorNoise:
    """Gaussian noise in linear light, of variance read**2 + light / full_well_electrons.

    Attributes:
        read: Standard deviation in the dark, as a share of white.
        full_well_electrons: How many electrons white is; the fewer, the more shot noise. The defaults add
            about one 8-bit level to a mid-gray.

    Raises:
        ConfigurationError: a value is out of range.
    """

    read: Weight = 0.001
    full_well_electrons: Positive = 20000.0

    def __post_init__(self) -> None:
        if self.read < 0:
            raise ConfigurationError(f"read={self.read} of the sensor noise must not be negative")
        if self.full_well_electrons <= 0:
            raise ConfigurationError(f"full_well_electrons={self.full_well_electrons} must be positive")

    def add(self, rng: np.random.Generator, light: NDArray[np.float32]) -> NDArray[np.float32]:
        """The light, float32 of any shape, with noise; not clipped."""
        variance = np.maximum(light, 0.0) / np.float32(self.full_well_electrons) + np.float32(self.read**2)
        noise = rng.standard_normal(light.shape, np.float32) * np.sqrt(variance)
        return np.asarray(light + noise, np.float32)
