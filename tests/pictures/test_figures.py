import math

import cv2
import numpy as np
import pytest
import torch

from deblur_lab.images import to_uint8
from deblur_lab.pictures import (
    PREDICTED,
    TRUE_OUTLINE,
    blur_figure,
    mask_overlay,
    motion_figure,
    trajectory_overlay,
)
from tests.pictures.samples import GRAY, disk, hue_degrees, photograph, saturated, straight

# The blur mask


def test_likely_blur_is_tinted_the_stronger_the_likelier():
    probability = torch.zeros(1, 120, 160)
    probability[..., 40:80], probability[..., 80:120], probability[..., 120:] = 0.5, 1, math.nan
    overlay = mask_overlay(GRAY, probability).astype(int)
    none, half, full, unknown = (overlay[60, x] for x in (20, 60, 100, 140))
    assert none.max() == none.min()
    np.testing.assert_array_equal(unknown, none)
    tint = np.array(PREDICTED)
    distances = [np.abs(colour - tint).sum() for colour in (none, half, full)]
    assert distances[0] > distances[1] > distances[2]


def test_the_true_mask_is_outlined_and_not_filled():
    overlay = mask_overlay(GRAY, mask=disk(120, 160, 40))
    outline = np.abs(overlay.astype(int) - TRUE_OUTLINE).sum(axis=2) < 60
    rows, columns = np.nonzero(outline)
    radii = np.hypot(rows - 60, columns - 80)
    assert len(rows) > 2 * 40
    assert radii.min() > 36
    assert radii.max() < 43
    assert (overlay[60, 80] == overlay[0, 0]).all()
    assert not outline[60, 80]


def test_a_mask_that_reaches_the_edge_has_no_outline_along_it():
    mask = torch.zeros(1, 120, 160)
    mask[..., :80] = 1
    outline = np.abs(mask_overlay(GRAY, mask=mask).astype(int) - TRUE_OUTLINE).sum(axis=2) < 60
    assert outline[:, 77:83].any(axis=1).all()
    assert not outline[:, :70].any()
    assert not outline[:, 90:].any()


def test_likely_blur_has_an_outline_of_its_own_and_specks_have_none():
    probability = 0.8 * disk(120, 160, 30)
    probability[:, 5:8, 5:8] = 0.8
    overlay = mask_overlay(GRAY, probability)
    rows, columns = np.nonzero(np.abs(overlay.astype(int) - PREDICTED).sum(axis=2) < 60)
    radii = np.hypot(rows - 60, columns - 80)
    assert len(rows) > 100
    assert radii.min() > 26
    assert radii.max() < 33


def test_the_outline_of_likely_blur_is_where_the_threshold_is():
    probability = 0.4 * disk(120, 160, 40) + 0.5 * disk(120, 160, 20)
    usual, lower = mask_overlay(GRAY, probability), mask_overlay(GRAY, probability, threshold=0.3)
    for overlay, radius in ((usual, 20), (lower, 40)):
        rows, columns = np.nonzero(np.abs(overlay.astype(int) - PREDICTED).sum(axis=2) < 60)
        radii = np.hypot(rows - 60, columns - 80)
        assert len(radii) > 2 * radius
        assert np.abs(radii - radius).max() < 4
    # What is tinted is the probability itself, and of the truth there is no threshold.
    np.testing.assert_array_equal(usual[60, 70:90], lower[60, 70:90])
    mask = disk(120, 160, 30)
    np.testing.assert_array_equal(
        mask_overlay(GRAY, mask=mask), mask_overlay(GRAY, mask=mask, threshold=0.99)
    )


def test_holes_of_the_true_mask_are_outlined_too():
    ring = disk(120, 160, 50) - disk(120, 160, 20)
    rows, columns = np.nonzero(saturated(mask_overlay(GRAY, mask=ring)))
    radii = np.hypot(rows - 60, columns - 80)
    assert ((radii > 17) & (radii < 23)).sum() > 40
    assert ((radii > 47) & (radii < 53)).sum() > 100


def test_overlays_are_enlarged_by_a_whole_factor():
    image = to_uint8(photograph(21, 33))
    mask, motion = disk(21, 33, 8), straight(1.0, 0.0, 21, 33)
    assert mask_overlay(image, mask, mask, enlarge=3).shape == (63, 99, 3)
    assert trajectory_overlay(image, motion, enlarge=4).shape == (84, 132, 3)
    tint = mask / 4  # nowhere likelier than not: nothing has an outline
    np.testing.assert_array_equal(
        mask_overlay(image, tint, enlarge=3), mask_overlay(image, tint).repeat(3, axis=0).repeat(3, axis=1)
    )


# The motion


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (24, 24), (120, 7)])
def test_overlays_of_small_pictures_have_their_size(size):
    probability, motion = torch.rand(1, *size), torch.randn(9, 2, *size)
    picture = to_uint8(torch.rand(3, *size))
    assert trajectory_overlay(picture, motion, probability).shape == (*size, 3)
    assert mask_overlay(picture, probability, (probability > 0.5).float()).shape == (*size, 3)


def test_colours_are_directions():
    """Right is red, and hues follow the clock: down, left, up."""
    motions = [straight(4.0, 0.0), straight(0.0, 4.0), straight(-4.0, 0.0), straight(0.0, -4.0)]
    image = GRAY[:, :100]  # too small, beside its height, for the wheel to matter
    hues = [hue_degrees(trajectory_overlay(image, motion[..., :100])[:90, :70]) for motion in motions]
    for hue, expected in zip(hues, (0, 90, 180, 270), strict=True):
        assert abs((hue - expected + 180) % 360 - 180) < 12


def in_block(motion, rows=slice(40, 80), columns=slice(60, 100)):
    """Motion of a block of the picture, and the likelihood of blur there."""
    probability = torch.zeros(1, *motion.shape[-2:])
    probability[:, rows, columns] = 1
    return motion * probability, probability


def arrows(overlay):
    """Where there are arrows, which have stronger colours than what they lie on."""
    return (overlay.max(axis=2).astype(int) - overlay.min(axis=2)) > 190


def test_an_arrow_lies_along_its_motion_and_its_head_is_at_the_end():
    motion, probability = in_block(straight(30.0, 0.0), slice(55, 65), slice(75, 85))
    rows, columns = np.nonzero(arrows(trajectory_overlay(GRAY, motion, probability))[50:70])
    assert 45 < columns.min() < 60
    assert 100 < columns.max() < 115
    thickness = [int((columns == x).sum()) for x in range(160)]
    assert np.argmax(thickness) > 95
    assert max(thickness) >= 2 * thickness[80]
    assert np.abs(rows - 10).max() < 8


def test_motion_down_points_down():
    """Channel 1 is y, and y is downwards."""
    motion, probability = in_block(straight(0.0, 25.0), slice(55, 65), slice(75, 85))
    rows, _ = np.nonzero(arrows(trajectory_overlay(GRAY, motion, probability))[:, 70:90])
    thickness = [int((rows == y).sum()) for y in range(120)]
    assert np.argmax(thickness) > 75


def curved():
    """Out and down, then out and up: the middle of the path lies where the pixel is, its ends below."""
    instants = torch.linspace(-1, 1, 9).view(9, 1, 1, 1)
    path = torch.cat((25 * instants, 25 * instants.square()), dim=1)
    return in_block(path.expand(9, 2, 120, 160), slice(55, 65), slice(75, 85))


def test_curved_motion_is_drawn_curved():
    motion, probability = curved()
    coloured = arrows(trajectory_overlay(GRAY, motion, probability))[:, 50:110]
    coloured[:56] = False  # the badge
    rows_at = [np.nonzero(coloured[:, x])[0].mean() for x in (11, 30)]
    assert rows_at[0] > rows_at[1] + 10


def test_two_instants_are_the_ends_of_a_parabola():
    motion, probability = curved()
    np.testing.assert_array_equal(
        trajectory_overlay(GRAY, motion[[0, -1]], probability),
        trajectory_overlay(GRAY, motion, probability),
    )


def test_longer_motion_is_longer_and_of_a_stronger_colour():
    motion = torch.zeros(9, 2, 120, 160)
    motion[..., 10:70] = straight(0.0, 1.0, 120, 60)
    motion[..., 90:150] = straight(0.0, 4.0, 120, 60)
    overlay = trajectory_overlay(GRAY, motion, (motion[-1, 1:] > 0).float())[30:90].astype(int)
    left, right = overlay[:, 15:65], overlay[:, 95:145]
    chroma = [np.ptp(side, axis=2) for side in (left, right)]
    assert chroma[1].max() > chroma[0].max() + 50
    # At rows through the middle of arrows as at others: more of the right is arrows.
    assert (chroma[1] > 0.9 * chroma[1].max()).sum() > (chroma[0] > 0.9 * chroma[0].max()).sum()


def test_where_blur_is_unlikely_the_picture_is_quiet():
    motion, probability = straight(4.0, 0.0), 0.4 * torch.ones(1, 120, 160)
    assert np.ptp(trajectory_overlay(GRAY, motion, probability), axis=2).max() == 0
    probability[..., 100:] = 0.9
    coloured = saturated(trajectory_overlay(GRAY, motion, probability))
    assert not coloured[80:, :90].any()  # above it there is the badge
    assert coloured[80:, 110:].any()


def test_objects_are_where_blur_is_over_the_threshold():
    motion, probability = straight(4.0, 0.0), 0.4 * torch.ones(1, 120, 160)
    probability[..., :80] = 0.2
    assert not saturated(trajectory_overlay(GRAY, motion, probability)).any()
    coloured = saturated(trajectory_overlay(GRAY, motion, probability, threshold=0.3))
    assert not coloured[80:, :60].any()  # above it there is the badge
    assert coloured[80:, 90:].any()
    assert saturated(trajectory_overlay(GRAY, motion, probability, threshold=0.1))[80:, :60].any()
    # Without a probability, there is nothing that a threshold is of.
    np.testing.assert_array_equal(
        trajectory_overlay(GRAY, motion), trajectory_overlay(GRAY, motion, threshold=0.9)
    )


def test_each_object_has_an_outline_and_a_badge_that_hides_no_object():
    first, one = in_block(straight(5.0, 0.0), slice(30, 60), slice(20, 60))
    second, other = in_block(straight(0.0, 5.0), slice(70, 110), slice(100, 140))
    overlay = trajectory_overlay(GRAY, first + second, one + other, enlarge=4)
    outlined = overlay.min(axis=2) > 200
    for rows, columns in ((slice(112, 248), slice(72, 248)), (slice(272, 448), slice(392, 568))):
        assert outlined[rows, columns].any(axis=0).mean() > 0.8
        assert outlined[rows, columns].any(axis=1).mean() > 0.8
    # The ground of badges is dark; so are the casings of arrows, but they are thin.
    dark = cv2.erode((overlay.max(axis=2) < 32).astype(np.uint8), np.ones((5, 5), np.uint8))
    objects = (one + other)[0].numpy().repeat(4, axis=0).repeat(4, axis=1) > 0
    assert not dark[objects].any()
    count, _, statistics, _ = cv2.connectedComponentsWithStats(cv2.dilate(dark, np.ones((15, 15), np.uint8)))
    assert count - 1 == 2
    assert statistics[1:, cv2.CC_STAT_HEIGHT].max() < 40


def test_objects_that_touch_have_a_badge_each_if_they_move_differently():
    probability = torch.zeros(1, 120, 160)
    probability[:, 40:80, 40:120] = 1
    together = straight(5.0, 0.0) * probability
    apart = together.clone()
    apart[..., 80:] = straight(0.0, -5.0)[..., 80:] * probability[..., 80:]

    def dark(motion):
        overlay = trajectory_overlay(GRAY, motion, probability, enlarge=4)
        overlay[150:330, 150:490] = 255  # the objects with their outline
        return (overlay.max(axis=2) < 32).sum()

    assert dark(apart) > 1.5 * dark(together) > 100


def test_without_a_probability_objects_are_what_moves_farthest():
    motion, probability = in_block(straight(6.0, 2.0))
    motion = motion + straight(0.2, 0.1)
    alone = trajectory_overlay(GRAY, motion)
    assert saturated(alone)[45:75, 65:95].any()
    assert np.ptp(alone, axis=2)[100:, :50].max() == 0
    np.testing.assert_array_equal(alone, trajectory_overlay(GRAY, motion, probability))


def test_short_motion_is_drawn_longer_and_the_caption_says_so():
    motion, probability = in_block(straight(1.0, 0.0))
    short = trajectory_overlay(GRAY, motion, probability)
    assert (arrows(short)[45:75, 65:95].sum(axis=1) > 0).any()
    figures = [motion_figure(GRAY, motion * factor, probability) for factor in (1, 20)]
    assert (figures[0][-50:] != figures[1][-50:]).any()


def test_without_motion_there_are_no_arrows_and_no_outlines():
    for probability in (None, torch.ones(1, 120, 160)):
        overlay = trajectory_overlay(GRAY, torch.zeros(9, 2, 120, 160), probability)
        assert (overlay == overlay[0, 0]).all()


def test_motion_that_is_not_finite_is_left_out():
    motion = straight(4.0, 0.0)
    motion[:, :, :, :80] = math.nan
    motion[3, 0, :60] = math.inf
    coloured = saturated(trajectory_overlay(GRAY, motion))
    assert not coloured[70:, :60].any()
    assert not coloured[:30].any()
    assert coloured[65:, 85:].any()
    assert not saturated(trajectory_overlay(GRAY, torch.full((9, 2, 120, 160), math.nan))).any()


# Figures of their own


@pytest.mark.parametrize(("size", "factor"), [((90, 120), 8), ((300, 500), 2), ((600, 1001), 1)])
def test_figures_begin_with_the_picture_by_a_whole_factor_and_end_with_a_legend(size, factor):
    picture = np.full((*size, 3), 128, np.uint8)
    probability = disk(*size, 20)
    motion = straight(4.0, 0.0, *size) * probability
    height, width = size[0] * factor, size[1] * factor
    moved = motion_figure(picture, motion, probability)
    blurred = blur_figure(picture, probability, probability)
    for figure in (moved, blurred):
        assert figure.shape[1] == width
        assert height + 20 < figure.shape[0] < height + 0.1 * max(height, width)
    np.testing.assert_array_equal(
        moved[:height], trajectory_overlay(picture, motion, probability, enlarge=factor)
    )
    np.testing.assert_array_equal(
        blurred[:height], mask_overlay(picture, probability, probability, enlarge=factor)
    )
    assert saturated(moved[height:]).sum() > 200  # the wheel
    assert (np.abs(blurred[height:].astype(int) - TRUE_OUTLINE).sum(axis=2) < 30).any()


def test_figures_take_a_threshold_and_the_legend_says_which():
    probability, motion = disk(120, 160, 30), straight(4.0, 0.0)
    usual, same, other = (
        blur_figure(GRAY, probability, **given) for given in ({}, {"threshold": 0.5}, {"threshold": 0.3})
    )
    np.testing.assert_array_equal(usual, same)
    legend = usual.shape[0] - 120 * 6
    assert (usual[-legend:] != other[-legend:]).any()
    np.testing.assert_array_equal(other[:-legend], mask_overlay(GRAY, probability, enlarge=6, threshold=0.3))
    drawn = {"probability": 0.4 * probability, "threshold": 0.3}
    np.testing.assert_array_equal(
        motion_figure(GRAY, motion, **drawn)[: 120 * 6], trajectory_overlay(GRAY, motion, enlarge=6, **drawn)
    )


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (24, 24), (7, 120), (120, 7)])
def test_figures_of_small_pictures_are_drawn(size):
    picture = to_uint8(torch.rand(3, *size))
    probability, motion = torch.rand(1, *size), torch.randn(9, 2, *size)
    for figure in (motion_figure(picture, motion, probability), blur_figure(picture, probability)):
        assert figure.shape[1] == size[1] * (1000 // max(size))


@pytest.mark.parametrize("size", [(1920, 1080), (1500, 450), (600, 800)])
def test_legends_fit_below_the_picture(size):
    probability = disk(*size, 100)
    picture = np.full((*size, 3), 128, np.uint8)
    for figure in (
        blur_figure(picture, probability, probability),
        motion_figure(picture, 20 * straight(1.0, 0.0, *size) * probability, probability),
    ):
        legend = figure[size[0] :]
        assert (legend[:, -5:] == legend[0, 0]).all()
        assert (legend[:, -size[1] // 2 :] != legend[0, 0]).any()


def test_maps_that_are_reduced_lie_where_they_belong():
    """The whole factor does not divide the picture: its last row and column are of smaller squares."""
    picture = np.full((1199, 1600, 3), 128, np.uint8)
    probability = torch.zeros(1, 400, 534)
    probability[:, 100:200, 300:400] = 1
    motion = straight(9.0, 0.0, 400, 534) * probability
    for figure in (
        blur_figure(picture, probability, reduction=3),
        motion_figure(picture, motion, probability, reduction=3),
    ):
        assert figure.shape[1] == 1600
        coloured = np.ptp(figure[:1199], axis=2) > 40
        rows, columns = np.flatnonzero(coloured.any(axis=1)), np.flatnonzero(coloured[310:590].any(axis=0))
        assert abs(columns[0] - 900) < 30
        assert abs(columns[-1] - 1200) < 30
        assert rows[0] > 220
        assert abs(rows[-1] - 600) < 10
    with pytest.raises(ValueError, match=r"\(400, 534\).*\(399, 534\)"):
        blur_figure(picture, probability[:, 1:], reduction=3)
