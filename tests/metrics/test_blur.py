"""Scores of a blur mask, against counting pixel by pixel."""

import itertools
import math

import pytest
import torch

from deblur_lab.metrics import (
    THRESHOLDS,
    calibration,
    calibration_error,
    mask_scores,
    pool_blur,
    tally_blur,
)


def image(seed=0, height=13, width=17):
    """A probability that knows something of the mask."""
    rng = torch.Generator().manual_seed(seed)
    mask = (torch.rand(1, height, width, generator=rng) > 0.7).float()
    noise = torch.rand(1, height, width, generator=rng)
    return 0.4 * mask + 0.6 * noise, mask


def by_hand(probability, mask, threshold):
    """Precision, recall, F1 and IoU with sets of pixels."""
    found = {pixel for pixel, p in enumerate(probability.flatten().tolist()) if p > threshold}
    blurred = {pixel for pixel, m in enumerate(mask.flatten().tolist()) if m == 1}
    precision, recall = len(found & blurred) / len(found), len(found & blurred) / len(blurred)
    f1 = 2 * precision * recall / (precision + recall)
    return precision, recall, f1, len(found & blurred) / len(found | blurred)


@pytest.mark.parametrize("threshold", [0.05, 0.37, 0.5, 0.8])
def test_a_mask_is_scored_as_by_sets_of_pixels(threshold):
    probability, mask = image()
    scores = mask_scores(tally_blur(probability, mask, (0.9, threshold, 0.2)), threshold)
    assert (scores.precision, scores.recall, scores.f1, scores.iou) == pytest.approx(
        by_hand(probability, mask, threshold)
    )


def test_pooling_images_is_scoring_one_picture_of_all_their_pixels():
    images = [image(seed, height=8 + seed) for seed in range(3)]
    tallies = [tally_blur(*one) for one in images]
    whole = [torch.cat([one[part].flatten() for one in images]).view(1, 1, -1) for part in range(2)]
    expected = tally_blur(whole[0], whole[1])
    for order in itertools.permutations(tallies):
        pooled = pool_blur(order)
        assert pooled == pool_blur(tallies)  # to the last bit
        assert (pooled.hits, pooled.false_alarms, pooled.misses, pooled.pixels, pooled.blurred) == (
            expected.hits,
            expected.false_alarms,
            expected.misses,
            expected.pixels,
            expected.blurred,
        )
        assert pooled.predicted == pytest.approx(expected.predicted)
    for threshold in THRESHOLDS:
        scores = mask_scores(pool_blur(tallies), threshold)
        if not math.isnan(scores.f1) and scores.f1 > 0:
            assert scores.iou == pytest.approx(by_hand(*whole, threshold)[3])


def test_a_probability_at_the_threshold_is_not_blurred_as_in_the_network():
    levels = torch.tensor(THRESHOLDS, dtype=torch.float32).view(1, 1, -1)
    tally = tally_blur(levels, torch.ones_like(levels))
    assert tally.misses == tuple(int((~(levels > threshold)).sum()) for threshold in THRESHOLDS)
    assert tally.misses == tuple(range(1, 20))


def test_what_cannot_be_said_is_not_a_number():
    nothing = torch.zeros(1, 4, 4)
    scores = mask_scores(tally_blur(nothing, nothing, (0.5,)), 0.5)
    assert all(math.isnan(score) for score in (scores.precision, scores.recall, scores.f1, scores.iou))
    missed = mask_scores(tally_blur(nothing, 1 - nothing, (0.5,)), 0.5)
    assert math.isnan(missed.precision)
    assert (missed.recall, missed.f1, missed.iou) == (0, 0, 0)


def test_all_found_at_threshold_0_and_nothing_at_1():
    probability, mask = image()
    tally = tally_blur(probability, mask, (0.0, 1.0))
    assert tally.hits == (int(mask.sum()), 0)
    assert tally.misses == (0, int(mask.sum()))


def test_calibration_says_how_many_of_each_tenth_are_blurred():
    probability = torch.tensor([0.0, 0.05, 0.1, 0.62, 0.68, 0.69, 1.0, 0.95]).view(1, 2, 4)
    mask = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]).view(1, 2, 4)
    bins = calibration(tally_blur(probability, mask))
    assert [part.pixels for part in bins] == [2, 1, 0, 0, 0, 0, 3, 0, 0, 2]
    assert [(part.low, part.high) for part in bins[:2]] == [(0, 0.1), (0.1, 0.2)]
    assert bins[6].predicted == pytest.approx((0.62 + 0.68 + 0.69) / 3)
    assert bins[6].blurred == pytest.approx(2 / 3)
    assert math.isnan(bins[3].predicted)
    assert math.isnan(bins[3].blurred)
    expected = (2 * (0.5 - 0.025) + 0.1 + 3 * abs(2 / 3 - 1.99 / 3) + 2 * (1 - 0.975)) / 8
    assert calibration_error(bins) == pytest.approx(expected)


def test_what_is_drawn_by_its_own_probability_is_calibrated():
    rng = torch.Generator().manual_seed(0)
    probability = torch.rand(1, 500, 500, generator=rng)
    mask = (torch.rand(1, 500, 500, generator=rng) < probability).float()
    assert calibration_error(calibration(tally_blur(probability, mask))) < 0.01
    assert calibration_error(calibration(tally_blur(1 - probability, mask))) == pytest.approx(0.5, abs=0.02)


def test_threads_change_no_bit():
    probability, mask = image(height=400, width=400)
    threads = torch.get_num_threads()
    try:
        tallies = []
        for count in (1, 2):
            torch.set_num_threads(count)
            tallies.append(tally_blur(probability, mask))
    finally:
        torch.set_num_threads(threads)
    assert tallies[0] == tallies[1]


def test_pictures_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 4, 4\), but has \(1, 4, 5\)"):
        tally_blur(torch.zeros(1, 4, 5), torch.zeros(1, 4, 4))
