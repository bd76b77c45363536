"""Intervals hold against what is known by hand and by theory; seeds and sequences widen them."""

import math

import numpy as np
import pytest

from deblur_lab import significance
from deblur_lab.significance import PairedDifference, paired, paired_over_seeds


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


def test_seeds_are_drawn_as_well_as_images():
    # All images alike, so that seeds alone differ: one of the two is drawn at a time, by itself on each side.
    first, second = [[1.0] * 5, [2.0] * 5], [[0.0] * 5, [0.5] * 5]
    found = paired_over_seeds(first, second)
    assert (found.mean, found.low, found.high) == (1.25, 0.5, 2.0)
    assert found.seeds == (2, 2)
    one_seed = paired([1.5] * 5, [0.25] * 5)
    assert (one_seed.low, one_seed.high) == (1.25, 1.25)


def test_both_levels_add_up():
    random = np.random.default_rng(7)
    seeds, images = random.normal(0, 0.3, (2, 20, 1)), random.normal(0, 1.0, (20, 400))
    # Each image differs by its own amount, the same in all seeds, and each seed as a whole.
    first, second = seeds[0] + images[0], seeds[1] + np.zeros(400)
    found = paired_over_seeds(first, second)
    variance = seeds[0].var(ddof=1) / 20 + seeds[1].var(ddof=1) / 20 + images[0].var(ddof=1) / 400
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.04)


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
    first, second = random.normal(size=(2, 30)), random.normal(size=(3, 30))
    whole = paired_over_seeds(first, second, seed=4, resamples=500)
    monkeypatch.setattr(significance, "_HELD", 100)
    assert paired_over_seeds(first, second, seed=4, resamples=500) == whole
    assert paired_over_seeds(first, second, seed=5, resamples=500).low != whole.low


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
