"""How sure a difference between two models is: paired by image, bootstrapped over images and seeds.

The same images are scored for both models, so that what makes one image harder than another cancels in each
image's difference. The interval is the percentile bootstrap's (Efron 1979): images are drawn with replacement
many times, and the means of their differences are spread as the mean would be over other images like these.
With several trainings of a model its seeds are drawn as well, each side's by itself, as another training
would come out differently too. Images that are alike, such as the frames of one video, are drawn together,
as another video would have others (Davison & Hinkley 1997, section 3.8). Of n, n - 1 are drawn at a time,
which makes the variance of the drawn means that of the mean itself (McCarthy & Snowden 1985; Rao & Wu 1988);
n would make it too small, of two seeds by half.
"""

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
        low: end of the bootstrap interval of the mean.
        high: its other end.
        count: how many images.
        share_better: of how many of them, from 0 to 1, the first model's score is higher; equal ones count
            half. With several seeds, each image has the mean over them.
        seeds: how many trainings of the first and of the second model.
        groups: how many groups the images were drawn in; None where each was drawn by itself.
    """

    mean: float
    low: float
    high: float
    count: int
    share_better: float
    seeds: tuple[int, int] = (1, 1)
    groups: int | None = None

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
    """The difference between two models of several trainings each: seeds are drawn as well as images.

    A side of one seed alone keeps it: the interval then tells nothing of other trainings of that model.

    Args:
        first: (seeds, images) of a model's scores, higher is better.
        second: (seeds, images) of another's; the same images in the same order, seeds of its own.
        groups: of each image what is equal for those that are drawn together; None for each by itself.
        seed: of the draws; the same seed has the same interval.
        resamples: how often seeds and images are drawn.
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
    sums = [np.stack([np.bincount(number, row) for row in side]).T for side in (one, other)]
    random = np.random.default_rng(seed)
    weights = [_drawn(random, len(side), resamples) for side in (one, other)]
    weights = [counts / counts.sum(1, keepdims=True) for counts in weights]
    means = np.empty(resamples)
    step = max(1, _HELD // drawn)
    for start in range(0, resamples, step):
        part = slice(start, min(start + step, resamples))
        counts = _drawn(random, drawn, part.stop - part.start)
        sides = [(counts @ own * weight[part]).sum(1) for own, weight in zip(sums, weights, strict=True)]
        means[part] = (sides[0] - sides[1]) / (counts @ sizes)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
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


def _drawn(random: np.random.Generator, count: int, resamples: int) -> _Matrix:
    """(resamples, count): how often each was drawn, with replacement, one less than there are at a time."""
    picked = random.integers(count, size=(resamples, max(1, count - 1)))
    counted = np.bincount(
        (picked + count * np.arange(resamples)[:, None]).ravel(), minlength=resamples * count
    )
    return counted.reshape(resamples, count).astype(np.float64)
