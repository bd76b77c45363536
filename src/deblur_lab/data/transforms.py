"""Patches cut out of scenes, turned and mirrored: pure functions of arrays and of a random generator.

The arrays are (H, W) or (H, W, C), and what is done to one map of a scene is done to all of them alike.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deblur_lab.errors import DataError

Corner = tuple[int, int]
"""The (top, left) pixel of a patch."""


class BlurredPixels(Protocol):
    """The blurred pixels of a picture, in the order of its rows."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture."""
        ...

    @property
    def count(self) -> int:
        """How many pixels are blurred."""
        ...

    def place(self, number: int) -> tuple[int, int]:
        """The row and column of one, by its number from 0 to `count` - 1."""
        ...


class MaskPixels:
    """The blurred pixels of a mask in memory; see `BlurredPixels`.

    Args:
        mask: (H, W) in {0, 1}, 1 = blurred.
    """

    def __init__(self, mask: NDArray[np.uint8]) -> None:
        self._mask = mask
        self.size: tuple[int, int] = mask.shape[:2]

    @property
    def count(self) -> int:
        """How many pixels are blurred."""
        return len(self._places)

    def place(self, number: int) -> tuple[int, int]:
        """The row and column of a blurred pixel."""
        row, column = divmod(int(self._places[number]), self.size[1])
        return row, column

    @cached_property
    def _places(self) -> NDArray[np.intp]:
        return np.flatnonzero(self._mask)


def require_patch(name: str, height: int, width: int, patch_size: int) -> None:
    """Refuse a picture that is too small for a patch.

    Raises:
        DataError: The picture is lower or narrower than `patch_size`.
    """
    if min(height, width) < patch_size:
        raise DataError(
            f"{name} is {width} x {height}, but data.patch_size={patch_size} needs pictures of "
            f"{patch_size} x {patch_size} at least: leave it out, or choose "
            f"data.patch_size={min(height, width)} or less"
        )


def random_corner(height: int, width: int, patch_size: int, rng: np.random.Generator) -> Corner:
    """The corner of a square patch, anywhere in the picture with equal probability."""
    top = int(rng.integers(height - patch_size + 1))
    left = int(rng.integers(width - patch_size + 1))
    return top, left


def blur_aware_corner(
    blurred: BlurredPixels,
    patch_size: int,
    rng: np.random.Generator,
    *,
    probability: float = 0.5,
    share: float = 0.05,
) -> Corner:
    """The corner of a square patch that often lies on what is blurred.

    The blur-aware patch cropping of Li et al., "Real-world deep local motion deblurring" (AAAI 2023), with
    which M2AENet trains.

    Assumes:
        A picture that is blurred all over has no blurred part to look for: its patches lie anywhere. Centred
        on random pixels and moved inside, they would crowd at the borders.

    Args:
        blurred: What is blurred of a picture of H by W pixels.
        patch_size: The side of the patch, no larger than H and W.
        rng: Where the choice comes from.
        probability: How often it is looked at what is blurred.
        share: Only if more than this share of the picture is blurred is the patch centred on a random blurred
            pixel, and moved by as little as keeps it inside; otherwise it lies anywhere.
    """
    height, width = blurred.size
    if rng.random() < probability:
        count = blurred.count
        if share * (height * width) < count < height * width:
            row, column = blurred.place(int(rng.integers(count)))
            top = min(max(row - patch_size // 2, 0), height - patch_size)
            left = min(max(column - patch_size // 2, 0), width - patch_size)
            return top, left
    return random_corner(height, width, patch_size, rng)


def crop(maps: Sequence[NDArray[np.uint8]], corner: Corner, patch_size: int) -> list[NDArray[np.uint8]]:
    """The same square patch of each map, as views."""
    top, left = corner
    return [array[top : top + patch_size, left : left + patch_size] for array in maps]


def turned(maps: Sequence[NDArray[np.uint8]], way: int) -> list[NDArray[np.uint8]]:
    """Each map in one of the eight ways to lay a square down, as views.

    Args:
        maps: Maps of values that do not depend on direction: pictures and masks, not displacements.
        way: 0 to 7: `way % 4` quarter turns against the clock, and then, from 4 on, mirrored left to right.
    """
    assert 0 <= way < 8, "there are eight ways"
    quarter_turns = [np.rot90(array, way % 4) for array in maps]
    return [array[:, ::-1] for array in quarter_turns] if way >= 4 else quarter_turns


def randomly_turned(maps: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Each map in the same of the eight ways, all of equal probability: flips and quarter turns."""
    return turned(maps, int(rng.integers(8)))


def randomly_flipped(maps: Sequence[NDArray[np.uint8]], rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Each map flipped alike: left to right, upside down, both or neither, all of equal probability."""
    return turned(maps, 2 * int(rng.integers(4)))
