"""Intervals hold against what is known by hand, by theory and by simulation; seeds and groups widen them."""

import math

import numpy as np
import pytest
from scipy import stats

from deblur_lab import significance
from deblur_lab.significance import PairedDifference, paired, paired_over_seeds


def test_the_bootstraps_over_images_alone_is_that_of_the_means_over_seeds():
    random = np.random.default_rng(7)
    first, second = random.normal(30.0, 1.0, (3, 40)), random.normal(29.0, 1.0, (2, 40))
    several = paired_over_seeds(first, second)
    single = paired(first.mean(0), second.mean(0))
    assert several.over_images == pytest.approx((single.low, single.high))
    assert single.over_images == (single.low, single.high)
    # Seeds widen the interval.
    assert several.low < several.over_images[0] < several.over_images[1] < several.high


def test_mean_and_share_are_those_of_the_images_differences():
    found = paired([30.0, 31.0, 32.0, 33.0], [29.0, 31.0, 33.0, 30.0])
    assert found.mean == pytest.approx((1 + 0 - 1 + 3) / 4)
    assert found.share_better == (1 + 0.5 + 0 + 1) / 4  # equal ones count half
    assert (found.count, found.seeds, found.groups) == (4, (1, 1), None)
    assert found.low < found.mean < found.high


def test_an_interval_is_that_of_a_mean_of_normal_differences():
    random = np.random.default_rng(3)
    hardness, differences = random.normal(30, 4, 300), random.normal(0.1, 0.5, 300)
    found = paired(hardness + differences, hardness)
    # By theory, as the images' own hardness cancels.
    error = differences.std(ddof=1) / math.sqrt(300)
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.06 * error)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.06 * error)
    narrower = paired(hardness + differences, hardness, level=0.5)
    assert narrower.high - narrower.low == pytest.approx(2 * 0.6745 * error, rel=0.05)


def test_few_images_have_no_interval_that_is_too_narrow():
    """The drawn means vary as the mean does, with the sample variance (of n - 1); n draws would vary less."""
    found = paired([0.0, 1.0], [0.0, 0.0])
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)


def test_seeds_that_alone_differ_have_welchs_interval():
    # All images alike. By hand: variances 0.5 and 0.125, by two seeds each; Welch's degrees of freedom.
    first, second = [[1.0] * 5, [2.0] * 5], [[0.0] * 5, [0.5] * 5]
    found = paired_over_seeds(first, second)
    variances = 0.25, 0.0625
    freedom = sum(variances) ** 2 / (0.25**2 + 0.0625**2)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(variances))
    assert (found.mean, found.seeds) == (1.25, (2, 2))
    assert (found.low, found.high) == (
        pytest.approx(1.25 - half, rel=1e-3),
        pytest.approx(1.25 + half, rel=1e-3),
    )
    # Against a fixed input it is the textbook's for two values: 12.706 standard errors.
    found = paired_over_seeds(first, [[0.0] * 5])
    assert found.high - found.mean == pytest.approx(12.706 * 0.5, rel=1e-3)
    one_seed = paired([1.5] * 5, [0.25] * 5)
    assert (one_seed.low, one_seed.high) == (1.25, 1.25)
    equal = paired_over_seeds([[1.5] * 5] * 2, [[0.25] * 5] * 2)
    assert (equal.low, equal.high) == (1.25, 1.25)


@pytest.mark.parametrize("freedom", [1, 1.7, 3, 30, 5000])
@pytest.mark.parametrize("share", [0.75, 0.975, 0.995])
def test_quantiles_are_students(share, freedom):
    assert significance._quantile(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), rel=1e-3)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("fixed", [False, True], ids=["model", "input"])
@pytest.mark.parametrize(
    ("of_seeds", "of_images", "of_both"),
    [(0.1, 0.0, 0.1), (0.1, 0.5, 0.1), (0.02, 0.5, 0.05)],
    ids=["seeds", "even", "images"],
)
def test_zero_is_excluded_for_hardly_more_than_one_in_twenty_equal_models(
    seeds, fixed, of_seeds, of_images, of_both
):
    """Nominally 5 %; a bootstrap that draws seeds as well excludes it for 23 to 32 % at two seeds."""
    random, repetitions, images = np.random.default_rng(11), 400, 48
    excluded = 0
    for _ in range(repetitions):
        alike = random.normal(0, of_images, (1, images))
        first, second = (
            random.normal(0, of_seeds, (seeds, 1)) + random.normal(0, of_both, (seeds, images)) for _ in "ab"
        )
        other = np.zeros((1, images)) if fixed else second
        excluded += paired_over_seeds(first + alike, other).excludes_zero
    assert 0.005 <= excluded / repetitions <= 0.095  # 8 % and the chance of 400 repetitions


def test_where_images_dominate_the_interval_is_the_usual_one():
    random = np.random.default_rng(2)
    differences = random.normal(0.1, 0.5, 200)
    seeds = np.array([[0.001], [-0.001]])
    found = paired_over_seeds(seeds + differences, seeds + np.zeros(200))
    error = differences.std(ddof=1) / math.sqrt(200)
    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.975, 199) * error, rel=0.01)
    # The same by groups: of one image each, and of three images that are all alike.
    by_groups = paired_over_seeds(seeds + differences, seeds + np.zeros(200), groups=range(200))
    assert (by_groups.low, by_groups.high) == (found.low, found.high)
    twice = [np.repeat(seeds + each, 3, axis=1) for each in (differences, np.zeros(200))]
    grouped = paired_over_seeds(*twice, groups=np.repeat(np.arange(200), 3).tolist())
    assert grouped.high == pytest.approx(found.high)


def test_both_levels_add_up():
    random = np.random.default_rng(7)
    seeds, images = random.normal(0, 0.3, (2, 20, 1)), random.normal(0, 1.0, (20, 400))
    # Each image differs by its own amount, the same in all seeds, and each seed as a whole.
    first, second = seeds[0] + images[0], seeds[1] + np.zeros(400)
    found = paired_over_seeds(first, second)
    variance = seeds[0].var(ddof=1) / 20 + seeds[1].var(ddof=1) / 20 + images[0].var(ddof=1) / 400
    assert found.high - found.low == pytest.approx(2 * 2.02 * math.sqrt(variance), rel=0.03)
    assert found.low == pytest.approx(2 * found.mean - found.high)


def test_images_of_a_group_are_drawn_together():
    """Frames that are all alike say no more than one of them."""
    scores = [30.0, 31.0, 29.0, 34.0, 32.0]
    other = [30.5, 30.0, 29.0, 31.0, 30.0]
    each = paired(scores, other)
    frames = paired(
        [score for score in scores for _ in range(20)],
        [score for score in other for _ in range(20)],
        groups=[name for name in "abcde" for _ in range(20)],
    )
    assert (frames.low, frames.high) == (pytest.approx(each.low), pytest.approx(each.high))
    assert (frames.count, frames.groups) == (100, 5)


def test_the_same_seed_draws_the_same_whatever_is_held_at_a_time(monkeypatch):
    random = np.random.default_rng(1)
    first, second = random.normal(size=(2, 30))
    whole = paired(first, second, seed=4, resamples=500)
    monkeypatch.setattr(significance, "_HELD", 100)
    assert paired(first, second, seed=4, resamples=500) == whole
    assert paired(first, second, seed=5, resamples=500).low != whole.low


def test_zero_is_outside_on_one_side_alone():
    assert PairedDifference(1, 0.5, 2, 3, 1).excludes_zero
    assert PairedDifference(-1, -2, -0.5, 3, 0).excludes_zero
    assert not PairedDifference(0.1, 0.0, 0.5, 3, 1).excludes_zero


@pytest.mark.parametrize(
    ("first", "second", "others", "told"),
    [
        ([1.0, 2.0], [1.0], {}, "the same images are needed, not of 2 and of 1"),
        ([1.0], [1.0], {}, "two images at least, not 1"),
        ([1.0, math.nan], [1.0, 2.0], {}, "finite"),
        ([1.0, 2.0], [1.0, 2.0], {"level": 1.0}, "level is between 0 and 1"),
        ([1.0, 2.0], [1.0, 2.0], {"groups": ["a"]}, "groups of 2 images are needed, not of 1"),
        ([1.0, 2.0], [1.0, 2.0], {"groups": ["a", "a"]}, "two groups of images at least"),
    ],
)
def test_what_has_no_interval_is_refused(first, second, others, told):
    with pytest.raises(ValueError, match=told):
        paired(first, second, **others)
