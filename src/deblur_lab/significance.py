"""How sure a difference between two models is: paired by image, over images and seeds.

The same images are scored for both models, so that what makes one image harder than another cancels in each
image's difference. Of two single trainings the interval is the percentile bootstrap's (Efron 1979): images
are drawn with replacement many times, and the means of their differences are spread as the mean would be over
other images like these. Images that are alike, such as the frames of one video, are drawn together, as
another video would have others (Davison & Hinkley 1997, section 3.8). Of n, n - 1 are drawn at a time, which
makes the variance of the drawn means that of the mean itself (McCarthy & Snowden 1985; Rao & Wu 1988).

Where a side has several trainings, another one would come out differently too. Two or three seeds are too
few to draw from: what they lack is knowledge of their own spread. The interval is then Student's, mean ± t
SE. The variance of the mean is a sum of three: that over the seeds of each side by their number, and that
over images (or groups) by theirs; what differs from seed to seed image by image is in two of them, which is
on the safe side. The degrees of freedom of both sides' seeds are Welch's (1938) and Satterthwaite's (1946).
Those of seeds and images together are the harmonic mean, weighted by the shares of the variance.
Satterthwaite's formula has the squares of the shares, and then excludes zero for 12 % of equal models where
two seeds stand against a fixed input, as they may agree by chance; so it is 8 % there and at most 5 %
elsewhere (simulated). The bootstrap's over images stands beside it: it speaks of these trainings alone.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95
# So many numbers are held at a time while images are drawn: 64 MB of floats.
_HELD = 8_000_000
_Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class PairedDifference:
    """The first model's score less the second's, over the images that both were scored on.

    Attributes:
        mean: over images, and over the seeds of each side; in the score's unit.
        low: end of the interval of the mean.
        high: its other end.
        count: how many images.
        share_better: of how many of them, from 0 to 1, the first model's score is higher; equal ones count
            half. With several seeds, each image has the mean over them.
        seeds: how many trainings of the first and of the second model.
        groups: how many groups the images were drawn in; None where each was drawn by itself.
        over_images: the bootstrap interval over images alone, of the means over these very trainings; of one
            training each it is the interval itself.
    """

    mean: float
    low: float
    high: float
    count: int
    share_better: float
    seeds: tuple[int, int] = (1, 1)
    groups: int | None = None
    over_images: tuple[float, float] = (math.nan, math.nan)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def paired(
    first: Sequence[float],
    second: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> PairedDifference:
    """The difference between two models of one training each.

    Args:
        first: a model's scores, one an image, higher is better.
        second: another's of the same images, in the same order.
        groups: of each image what is equal for those that are drawn together; None for each by itself.
        seed: of the draws; the same seed has the same interval.
        resamples: how often images are drawn.
        level: of the interval, between 0 and 1.

    Raises:
        ValueError: lengths differ, or there are fewer than two images or groups, or a score is not
            finite.
    """
    return paired_over_seeds([first], [second], groups=groups, seed=seed, resamples=resamples, level=level)


def paired_over_seeds(
    first: Sequence[Sequence[float]],
    second: Sequence[Sequence[float]],
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> PairedDifference:
    """The difference between two models of several trainings each: it counts seeds as well as images.

    A side of one seed alone keeps it: the interval then tells nothing of other trainings of that model. Of
    one seed on both sides it is the bootstrap's, else Student's.

    Args:
        first: (seeds, images) of a model's scores, higher is better.
        second: (seeds, images) of another's; the same images in the same order, seeds of its own.
        groups: of each image what is equal for those that are drawn together; None for each by itself.
        seed: of the draws, where there are any; the same seed has the same interval.
        resamples: how often images are drawn.
        level: of the interval, between 0 and 1.

    Raises:
        ValueError: numbers of images differ, or there are fewer than two images or groups, or a score is not
            finite.
    """
    one, other = _matrix(first), _matrix(second)
    count = one.shape[1]
    if other.shape[1] != count:
        raise ValueError(f"scores of the same images are needed, not of {count} and of {other.shape[1]}")
    if count < 2:
        raise ValueError(f"an interval takes two images at least, not {count}")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level is between 0 and 1 and resamples at least 1, not {level} and {resamples}")
    number = np.arange(count) if groups is None else _numbered(groups, count)
    drawn = int(number.max()) + 1
    if drawn < 2:
        raise ValueError("an interval takes two groups of images at least, not one")
    sizes = np.bincount(number).astype(np.float64)
    sums = [np.array([np.bincount(number, row) for row in side], np.float64).T for side in (one, other)]
    over_images = _bootstrapped(sums[0].mean(1) - sums[1].mean(1), sizes, seed, resamples, level)
    single = len(one) == len(other) == 1
    low, high = over_images if single else _of_student(sums, sizes, level)
    differences = one.mean(0) - other.mean(0)
    better = float((np.sign(differences).mean() + 1) / 2)
    return PairedDifference(
        float(differences.mean()),
        float(low),
        float(high),
        count,
        better,
        (len(one), len(other)),
        None if groups is None else drawn,
        over_images,
    )


def _matrix(scores: Sequence[Sequence[float]]) -> _Matrix:
    if len({len(row) for row in scores}) != 1:
        raise ValueError("every seed is scored on the same images")
    matrix = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(matrix).all():
        raise ValueError("scores are finite numbers")
    return matrix


def _numbered(groups: Sequence[Hashable], count: int) -> NDArray[np.int64]:
    """The number of each image's group, from 0."""
    if len(groups) != count:
        raise ValueError(f"groups of {count} images are needed, not of {len(groups)}")
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[group] for group in groups], dtype=np.int64)


def _bootstrapped(
    sums: _Matrix, sizes: _Matrix, seed: int, resamples: int, level: float
) -> tuple[float, float]:
    """The percentile bootstrap's interval over groups.

    Args:
        sums: (groups) of the differences of their images.
        sizes: (groups) how many images they have.
        seed: of the draws.
        resamples: how often groups are drawn.
        level: of the interval.
    """
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _HELD // len(sums))
    for start in range(0, resamples, step):
        part = slice(start, min(start + step, resamples))
        counts = _drawn(random, len(sums), part.stop - part.start)
        means[part] = (counts @ sums) / (counts @ sizes)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _of_student(sums: Sequence[_Matrix], sizes: _Matrix, level: float) -> tuple[float, float]:
    """Student's interval, of the variances over the seeds of each side and over groups.

    Args:
        sums: of each side, (groups, seeds) of the scores of their images.
        sizes: (groups) how many images they have.
        level: of the interval.
    """
    count, groups = float(sizes.sum()), len(sizes)
    several = [own.sum(0) / count for own in sums if own.shape[1] > 1]
    variances = [float(means.var(ddof=1)) / len(means) for means in several]
    of_seeds = sum(variances)
    differences = sums[0].mean(1) - sums[1].mean(1)
    mean = float(differences.sum()) / count
    # Groups of several sizes: the variance of a ratio of sums, which for equal ones is that of a mean.
    left = differences - mean * sizes
    of_images = groups / (groups - 1) * float((left**2).sum()) / count**2
    variance = of_seeds + of_images
    if variance == 0:
        return mean, mean
    inverse = of_images / variance / (groups - 1)
    if of_seeds > 0:
        shares = [own / of_seeds for own in variances]
        welch = sum(share**2 / (len(means) - 1) for share, means in zip(shares, several, strict=True))
        inverse += of_seeds / variance * welch
    half = _quantile((1 + level) / 2, 1 / inverse) * math.sqrt(variance)
    return mean - half, mean + half


def _quantile(share: float, freedom: float) -> float:
    """That of Student's t distribution, to about a thousandth; of infinite freedom it is the normal one's.

    With t = tan(a) sqrt(freedom) its density is that of cos(a) to the power of freedom - 1, which is
    summed up over the angle.

    Args:
        share: below it, between 0.5 and 1.
        freedom: degrees, at least 1, not necessarily whole.
    """
    angles = np.linspace(0, np.pi / 2, 20_001)
    density = np.cos(angles) ** (freedom - 1)
    summed = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    angle = np.interp((2 * share - 1) * summed[-1], summed, angles)
    return float(np.tan(angle) * math.sqrt(freedom))


def _drawn(random: np.random.Generator, count: int, resamples: int) -> _Matrix:
    """(resamples, count): how often each was drawn, with replacement, one less than there are at a time."""
    picked = random.integers(count, size=(resamples, max(1, count - 1)))
    counted = np.bincount(
        (picked + count * np.arange(resamples)[:, None]).ravel(), minlength=resamples * count
    )
    return counted.reshape(resamples, count).astype(np.float64)
