"""What a definition of a score is, and what it looks at."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

PSNR_LIMIT_DB = 100.0


@dataclass(frozen=True)
class Comparison:
    """A restored and a sharp picture, ready to be compared.

    Attributes:
        restored: (3, H, W) float64.
        sharp: of the same shape and type.
        mask: (1, H, W), 1 = blurred; None if that is not known.
        valid: (1, H, W), 1 where an alignment of both is defined; None if they are not aligned. Both pictures
            are zero elsewhere.
    """

    restored: Tensor
    sharp: Tensor
    mask: Tensor | None = None
    valid: Tensor | None = None


Pool = Callable[[Sequence[float], Sequence[int] | None], float]
"""Of the values of images, and of how many pixels each of them has: one number."""


def mean_over_images(values: Sequence[float], pixels: Sequence[int] | None = None) -> float:
    """The mean of the values that exist, each image the same weight, whatever its size.

    Args:
        values: NaN for an image that has none.
        pixels: of no importance.

    Returns:
        NaN if no image has one.
    """
    present = [value for value in values if not math.isnan(value)]
    return math.fsum(present) / len(present) if present else math.nan


def psnr_of_pooled_error(values: Sequence[float], pixels: Sequence[int] | None = None) -> float:
    """The PSNR of the mean squared error over all pixels of all images.

    Never above the mean of the PSNRs, if the images are of one size: poor images weigh more.

    Args:
        values: PSNRs in dB; NaN for an image that has none.
        pixels: of each image; None if they are all of one size.

    Returns:
        In dB; NaN if no image has one.
    """
    sizes = [1] * len(values) if pixels is None else pixels
    present = [(value, size) for value, size in zip(values, sizes, strict=True) if not math.isnan(value)]
    if not present:
        return math.nan
    total = math.fsum(size * 10 ** (-value / 10) for value, size in present)
    return -10 * math.log10(total / sum(size for _, size in present))


# What counts of an aligned picture.
_OVER_WARP = {
    "psnr": "aligned, over the pixels where the warp is defined",
    "ssim": "aligned, over the windows at whose centre the warp is defined",
    "lpips": "aligned, both pictures black where the warp is not defined",
}


@dataclass(frozen=True)
class Definition:
    """One way to compute a score; all of them are in `catalogue.DEFINITIONS`.

    Attributes:
        key: its name in files.
        family: what people call it.
        title: a few words, which fit a table.
        description: one line: how exactly it is computed.
        used_by: which papers and programs use it.
        measure: the score of one image; NaN if it has none.
        higher_is_better: whether it is.
        digits: how many decimals are worth printing.
        pool: makes one number of those of the images.
        quantised: whether it looks at pictures brought to 8-bit levels.
        aligned: whether it looks at pictures that were aligned by `EccAlignment`.
        masked: whether it needs a blur mask.
        missing: says why it cannot be computed on this machine; None if it can.
        over_warp: what `described` says in place of the description where pictures are aligned; by default
            what it says, and what of it counts.
    """

    key: str
    family: Literal["psnr", "ssim", "lpips"]
    title: str
    description: str
    used_by: str
    measure: Callable[[Comparison], Tensor | float]
    higher_is_better: bool = True
    digits: int = 4
    pool: Pool = mean_over_images
    quantised: bool = True
    aligned: bool = False
    masked: bool = False
    missing: Callable[[], str | None] = lambda: None
    over_warp: str | None = None

    def described(self, *, aligned: bool) -> str:
        """How exactly it is computed in a protocol that aligns pictures, or one that does not.

        Args:
            aligned: which of them.
        """
        if not aligned:
            return self.description
        return self.over_warp or f"{self.description}; {_OVER_WARP[self.family]}"

    @property
    def score(self) -> str:
        """The name of its score in ``scores.json``, which has the unit."""
        return f"{self.key}_db" if self.family == "psnr" else self.key

    @property
    def composable(self) -> bool:
        """Whether a protocol can be made with it: quantisation and alignment are the protocol's own parts."""
        return self.quantised and not self.aligned and self.pool is mean_over_images
