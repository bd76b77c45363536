"""End-point errors of displacements, against computing them pixel by pixel."""

import itertools
import math

import pytest
import torch

from deblur_lab.metrics import motion_scores, tally_motion


def scene(seed=0, height=7, width=9):
    rng = torch.Generator().manual_seed(seed)
    mask = (torch.rand(1, height, width, generator=rng) > 0.5).float()
    start, end = (5 * torch.randn(2, height, width, generator=rng) for _ in range(2))
    start, end = start * mask, end * mask
    # Some blurred pixels show what stands still: an object has covered them for a while.
    start[:, :, :4], end[:, :, :4] = 0, 0
    motion = 3 * torch.randn(9, 2, height, width, generator=rng)
    return motion, start, end, mask


def by_hand(motion, start, end, mask):
    """Mean errors over blurred pixels and over moving ones, of the motion and of none."""
    rows = []
    for y, x in itertools.product(range(mask.shape[1]), range(mask.shape[2])):
        if mask[0, y, x]:
            first, last = motion[0, :, y, x].tolist(), motion[-1, :, y, x].tolist()
            true_first, true_last = start[:, y, x].tolist(), end[:, y, x].tolist()
            forward = (math.dist(first, true_first) + math.dist(last, true_last)) / 2
            backward = (math.dist(first, true_last) + math.dist(last, true_first)) / 2
            none = (math.hypot(*true_first) + math.hypot(*true_last)) / 2
            moves = max(math.hypot(*true_first), math.hypot(*true_last)) > 0.25
            rows.append((min(forward, backward), none, moves))
    moving = [row for row in rows if row[2]]
    return [sum(row[at] for row in part) / len(part) for part in (rows, moving) for at in (0, 1)]


def test_errors_are_those_computed_pixel_by_pixel():
    given = scene()
    scores = motion_scores([tally_motion(*given)])
    assert [
        scores.epe_px,
        scores.zero_epe_px,
        scores.moving_epe_px,
        scores.moving_zero_epe_px,
    ] == pytest.approx(by_hand(*given))
    assert scores.pixels == given[3].sum()


def test_the_truth_has_no_error_and_nor_has_it_backwards_pixel_by_pixel():
    _, start, end, mask = scene()
    truth = torch.stack([start, end])
    assert motion_scores([tally_motion(truth, start, end, mask)]).epe_px == 0
    assert motion_scores([tally_motion(truth.flip(0), start, end, mask)]).epe_px == 0
    mixed = torch.where(torch.arange(truth.shape[-1]) % 2 == 0, truth, truth.flip(0))
    assert motion_scores([tally_motion(mixed, start, end, mask)]).epe_px == 0


def test_a_direction_is_not_chosen_for_each_end_alone():
    """Both ends at the place of one true end are half right, in either direction."""
    start, end = torch.full((2, 1, 1), -3.0), torch.full((2, 1, 1), 3.0)
    tally = tally_motion(torch.stack([start, start]), start, end, torch.ones(1, 1, 1))
    assert tally.error_px == pytest.approx(math.hypot(6, 6) / 2)


def test_no_motion_has_the_error_of_no_motion():
    motion, start, end, mask = scene()
    scores = motion_scores([tally_motion(torch.zeros_like(motion), start, end, mask)])
    assert scores.epe_px == scores.zero_epe_px > 0
    assert scores.moving_epe_px == scores.moving_zero_epe_px > scores.epe_px


@pytest.mark.parametrize(
    ("predicted", "off_deg"),
    [((3, 0), 0), ((-0.1, 0), 0), ((0, 7), 90), ((1, 1), 45), ((0, 0), 45), ((1, math.sqrt(3)), 60)],
)
def test_orientation_is_the_angle_between_lines_without_a_sense(predicted, off_deg):
    end = torch.tensor([2.0, 0.0]).view(2, 1, 1).expand(2, 3, 4)
    given = torch.tensor(predicted, dtype=torch.float32).view(2, 1, 1).expand(2, 3, 4)
    tally = tally_motion(torch.stack([-given, given]), -end, end, torch.ones(1, 3, 4))
    assert tally.oriented_pixels == 12
    assert motion_scores([tally]).orientation_error_deg == pytest.approx(off_deg, abs=1e-4)


def test_what_comes_back_to_where_it_was_has_no_orientation():
    there = torch.full((2, 1, 1), 3.0)
    tally = tally_motion(torch.stack([there, -there]), there, there, torch.ones(1, 1, 1))
    assert (tally.moving_pixels, tally.oriented_pixels) == (1, 0)
    assert math.isnan(motion_scores([tally]).orientation_error_deg)


def test_one_motion_everywhere_is_below_no_motion_but_has_no_orientation():
    """What the documentation says of the two scores."""
    angle = torch.linspace(0, math.pi, 181)[:-1]
    end = torch.stack([angle.cos(), angle.sin()]).view(2, 1, -1)
    fixed = 0.6 * torch.tensor([1.0, 0.0]).view(2, 1, 1).expand_as(end)
    scores = motion_scores([tally_motion(torch.stack([-fixed, fixed]), -end, end, torch.ones(1, 1, 180))])
    assert 0.7 < scores.epe_px / scores.zero_epe_px < 0.8
    assert scores.orientation_error_deg == pytest.approx(45, abs=0.1)


def test_images_are_pooled_by_pixels_in_any_order():
    scenes = [scene(seed, height=5 + seed) for seed in range(3)]
    tallies = [tally_motion(*one) for one in scenes]
    pooled = motion_scores(tallies)
    assert all(motion_scores(order) == pooled for order in itertools.permutations(tallies))
    expected = math.fsum(tally.error_px for tally in tallies) / sum(tally.pixels for tally in tallies)
    assert pooled.epe_px == pytest.approx(expected)


def test_where_nothing_is_blurred_there_is_no_score():
    motion, start, end, mask = scene()
    scores = motion_scores([tally_motion(motion, start, end, torch.zeros_like(mask))])
    assert math.isnan(scores.epe_px)
    assert scores.pixels == 0


def test_shapes_that_do_not_fit_are_refused():
    motion, start, end, mask = scene()
    with pytest.raises(ValueError, match="are expected, not"):
        tally_motion(motion[:1], start, end, mask)
    with pytest.raises(ValueError, match="are expected, not"):
        tally_motion(motion, start[:, :-1], end, mask)
