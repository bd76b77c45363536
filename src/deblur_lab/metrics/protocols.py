"""Protocols: which scores a dataset's published tables hold, and how exactly each is computed."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from deblur_lab.errors import DivergedError
from deblur_lab.images import quantise
from deblur_lab.metrics.functional import (
    psnr,
    ssim_gaussian_valid,
    ssim_matlab_volume,
    weighted_psnr,
    weighted_ssim,
)

PSNR_LIMIT_DB = 100.0


class ScoringProtocol(ABC):
    """How images of a dataset are scored, one by one; `summarise` makes a table's row of them.

    Attributes:
        name: short, as in `scores.json`.
        description: one line for people: which PSNR and SSIM, and the quantisation.
        tlc: whether networks with global pooling are scored with the test-time local converter (TLC).
        higher_is_better: of each score, by the keys and in the order of `score`.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    tlc: ClassVar[bool]
    higher_is_better: ClassVar[Mapping[str, bool]]

    def score(self, restored: Tensor, sharp: Tensor, mask: Tensor | None = None) -> dict[str, float]:
        """Score one image.

        Both images are brought to 8-bit levels first: clamped to [0, 1] and rounded. A PSNR is 100 dB at
        most: the field's scripts give infinity for equal images, of which no mean can be taken.

        Args:
            restored: (3, H, W) or (1, 3, H, W), floating.
            sharp: of the same shape.
            mask: (1, H, W) or (1, 1, H, W), 1 = blurred; None if there is none.

        Returns:
            The scores by name; NaN for one that does not exist (no mask or an empty one, an image too small).

        Raises:
            DivergedError: the restored image holds NaN or infinite values.
            ValueError: the shapes do not fit.
        """
        restored, sharp = _one(restored), _one(sharp)
        if not restored.isfinite().all():
            raise DivergedError(
                "a restored image holds values that are not finite: the weights have diverged, or "
                "the numbers overflow, which trainer.precision=32-true avoids"
            )
        scores = self._score(_to_levels(restored), _to_levels(sharp), None if mask is None else _one(mask))
        assert scores.keys() == self.higher_is_better.keys()
        return {name: float(score) for name, score in scores.items()}

    @abstractmethod
    def _score(self, restored: Tensor, sharp: Tensor, mask: Tensor | None) -> dict[str, Tensor | float]:
        """The scores of images (3, H, W) at 8-bit levels, with a mask (1, H, W) or None."""


class LocalProtocol(ScoringProtocol):
    """Local motion blur: ReLoBlur's tables (Li et al. 2023), and synthetic scenes.

    PSNR and SSIM over the whole image, and both weighted by the blur mask.
    """

    name = "local"
    description = (
        "PSNR and SSIM (11x11 Gaussian windows within the image), and both weighted by the blur mask, "
        "on 8-bit RGB; means over images, equal images counting as 100 dB"
    )
    tlc = False
    higher_is_better: ClassVar[Mapping[str, bool]] = {
        "psnr_db": True,
        "ssim": True,
        "weighted_psnr_db": True,
        "weighted_ssim": True,
    }

    def _score(self, restored: Tensor, sharp: Tensor, mask: Tensor | None) -> dict[str, Tensor | float]:
        return {
            "psnr_db": _limited(psnr(restored, sharp)),
            "ssim": ssim_gaussian_valid(restored, sharp),
            "weighted_psnr_db": math.nan if mask is None else _limited(weighted_psnr(restored, sharp, mask)),
            "weighted_ssim": math.nan if mask is None else weighted_ssim(restored, sharp, mask),
        }


class GoProProtocol(ScoringProtocol):
    """Global motion blur: the tables of GoPro and HIDE. Masks are not looked at."""

    name = "gopro"
    description = (
        "PSNR, and SSIM as MATLAB's of the RGB volume (11x11x11 Gaussian windows, borders replicated), "
        "on 8-bit RGB; means over images, equal images counting as 100 dB"
    )
    tlc = True
    higher_is_better: ClassVar[Mapping[str, bool]] = {"psnr_db": True, "ssim": True}

    def _score(self, restored: Tensor, sharp: Tensor, mask: Tensor | None) -> dict[str, Tensor | float]:
        return {
            "psnr_db": _limited(psnr(restored, sharp)),
            "ssim": ssim_matlab_volume(restored, sharp),
        }


@dataclass(frozen=True)
class Summary:
    """Means over images.

    Attributes:
        means: by score; NaN for a score that no image has.
        left_out: by score, how many images do not have it and are not in its mean.
        images: how many there are in all.
    """

    means: dict[str, float]
    left_out: dict[str, int]
    images: int


def summarise(rows: Sequence[Mapping[str, float]]) -> Summary:
    """Take the mean of each score over the images that have it.

    Sums are rounded once, at their end, so that the means do not depend on the order of the images, nor on
    how they were shared out to processes.

    Args:
        rows: the scores of each image, all of the same names; NaN for one that does not exist.

    Returns:
        The means and what was left out of them; nothing of either if there are no rows.
    """
    means: dict[str, float] = {}
    left_out: dict[str, int] = {}
    for name in rows[0] if rows else ():
        present = [row[name] for row in rows if not math.isnan(row[name])]
        means[name] = math.fsum(present) / len(present) if present else math.nan
        left_out[name] = len(rows) - len(present)
    return Summary(means, left_out, len(rows))


def _limited(decibels: Tensor) -> Tensor:
    return decibels.clamp(max=PSNR_LIMIT_DB)


def _one(image: Tensor) -> Tensor:
    """(1, C, H, W) as (C, H, W), on a device that computes in float64."""
    image = image.detach()
    if image.device.type == "mps":
        image = image.cpu()
    return image.squeeze(0) if image.ndim == 4 else image


def _to_levels(image: Tensor) -> Tensor:
    # Before the rounding, not after: bfloat16 cannot tell neighbouring levels apart.
    return quantise(image.double())
