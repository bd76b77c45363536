import math

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from deblur_lab.images import to_tensor, to_uint8
from deblur_lab.pictures import (
    PREDICTED,
    TRUE_OUTLINE,
    comparison_panel,
    mask_overlay,
    trajectory_overlay,
)

GRAY = np.full((120, 160, 3), 128, np.uint8)


def photograph(height=60, width=80):
    return to_tensor(np.ascontiguousarray(data.chelsea()[80 : 80 + height, 120 : 120 + width]))


def disk(height=60, width=80, radius=18):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return ((rows - height // 2) ** 2 + (columns - width // 2) ** 2 < radius**2).float()[None]


def straight(x_px, y_px, height=120, width=160):
    """Uniform motion from -(x, y) to (x, y)."""
    motion = torch.linspace(-1, 1, 9).view(9, 1, 1, 1) * torch.tensor([x_px, y_px]).view(2, 1, 1)
    return motion.expand(9, 2, height, width).clone()


def full_panel(height=60, width=80, **changes):
    image = photograph(height, width)
    blurry = torch.nn.functional.avg_pool2d(image, 5, 1, 2)
    arguments = {
        "blurry": blurry,
        "restored": (image + blurry) / 2,
        "sharp": image,
        "mask": disk(height, width),
        "probability": disk(height, width, 22) * 0.8,
        "motion": straight(4.0, 2.0, height, width) * disk(height, width),
        "title": "synthetic  scene 3",
        "scores": {"blurry": {"psnr_db": 25.0, "ssim": 0.8}, "restored": {"psnr_db": 28.0, "ssim": 0.9}},
    }
    return comparison_panel(**(arguments | changes))


def saturated(picture):
    """Where a picture has strong colours: what is drawn, over what is gray."""
    return (picture.max(axis=2).astype(int) - picture.min(axis=2)) > 100


def hue_degrees(picture):
    """The mean direction of the hues of strongly coloured pixels."""
    hues = np.radians(cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)[..., 0])
    coloured = saturated(picture)
    return math.degrees(np.angle(np.exp(1j * hues[coloured]).mean())) % 360


# The panel


def test_the_panel_is_an_rgb_picture_and_always_the_same():
    panel = full_panel()
    assert panel.dtype == np.uint8
    assert panel.ndim == 3
    assert panel.shape[2] == 3
    np.testing.assert_array_equal(panel, full_panel())


def test_the_panel_leaves_its_inputs_alone():
    image = photograph()
    before = image.clone()
    full_panel(blurry=image, restored=image, sharp=image)
    assert torch.equal(image, before)


def test_pictures_stand_enlarged_but_unchanged_in_the_order_of_their_columns():
    image = photograph()
    shades = [image, image * 0.7, image * 0.4]
    panel = comparison_panel(*shades)
    factor = 5  # 80 px to the 400 px of a column
    enlarged = [to_uint8(shade).repeat(factor, axis=0).repeat(factor, axis=1) for shade in shades]
    height = enlarged[0].shape[0]
    found = []
    for picture in enlarged:
        windows = [
            (top, left)
            for top in range(panel.shape[0] - height + 1)
            for left in range(panel.shape[1] - 400 + 1)
            if (panel[top, left] == picture[0, 0]).all()
            and (panel[top : top + height, left : left + 400] == picture).all()
        ]
        found += windows
    assert len(found) == 3
    assert len({top for top, _ in found}) == 1
    lefts = [left for _, left in found]
    assert lefts == sorted(lefts)


@pytest.mark.parametrize(
    ("absent", "columns"),
    [
        ((), 5),
        (("sharp",), 4),
        (("mask",), 5),
        (("probability",), 5),
        (("mask", "probability"), 4),
        (("motion",), 4),
        (("sharp", "mask", "probability", "motion"), 2),
    ],
)
def test_what_is_not_given_has_no_column(absent, columns):
    two = full_panel(sharp=None, mask=None, probability=None, motion=None).shape[1]
    three = full_panel(mask=None, probability=None, motion=None).shape[1]
    panel = full_panel(**dict.fromkeys(absent))
    assert panel.shape[1] == two + (columns - 2) * (three - two)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 301), (301, 33), (101, 410)])
def test_any_size_is_laid_out(size):
    image = torch.rand(3, *size)
    mask, motion = (image[:1] > 0.5).float(), torch.randn(9, 2, *size)
    panel = comparison_panel(image, image, image, mask, image[:1], motion, title="any")
    assert panel.shape[1] > 5 * 400
    assert panel.shape[0] > size[0]
    assert max(panel.shape[:2]) < 8000


def test_large_pictures_are_not_enlarged_and_small_ones_by_a_whole_factor():
    large, small = torch.rand(3, 30, 500), torch.rand(3, 30, 100)
    for image, column_px in ((large, 500), (small, 400)):
        two, three = comparison_panel(image, image, None), comparison_panel(image, image, image)
        assert column_px < three.shape[1] - two.shape[1] < column_px + 20


def test_a_title_takes_a_line_and_a_long_one_is_shortened():
    plain, short, long = (full_panel(title=title) for title in ("", "name", "name/" * 200))
    assert short.shape == long.shape
    assert short.shape[1] == plain.shape[1]
    assert short.shape[0] > plain.shape[0]
    line = short.shape[0] - plain.shape[0]
    assert (long[:line].max(axis=2) > 128).sum() > (short[:line].max(axis=2) > 128).sum() > 0


def test_gains_are_green_and_losses_are_not():
    image = photograph()

    def strong_colours(gain):
        scores = {"blurry": {"psnr_db": 25.0}, "restored": {"psnr_db": 25.0 + gain}}
        header = comparison_panel(image, image, image, scores=scores)[:-310]
        return header[saturated(header)].astype(int).sum(axis=0)

    gained, lost = strong_colours(2.5), strong_colours(-2.5)
    assert gained[1] > gained[0]
    assert lost[0] > lost[1]


def test_scores_that_do_not_exist_are_not_printed():
    plain = {"blurry": {"psnr_db": 25.0}, "restored": {"psnr_db": 28.0}}
    with_nan = {column: scores | {"weighted_psnr_db": math.nan} for column, scores in plain.items()}
    with_one = {column: scores | {"weighted_psnr_db": 20.0} for column, scores in plain.items()}
    np.testing.assert_array_equal(full_panel(scores=with_nan), full_panel(scores=plain))
    assert full_panel(scores=with_one).shape[0] > full_panel(scores=plain).shape[0]


@pytest.mark.parametrize("name", ["restored", "sharp", "mask", "probability", "motion"])
def test_sizes_that_differ_are_refused(name):
    shape = {"mask": (1, 8, 9), "probability": (1, 8, 9), "motion": (9, 2, 8, 9)}.get(name, (3, 8, 9))
    with pytest.raises(ValueError, match=r"\(60, 80\).*\(8, 9\)"):
        full_panel(**{name: torch.zeros(shape)})


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
    np.testing.assert_array_equal(
        mask_overlay(image, mask, enlarge=3), mask_overlay(image, mask).repeat(3, axis=0).repeat(3, axis=1)
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


def test_an_arrow_lies_along_its_motion_and_its_head_is_at_the_end():
    motion = torch.zeros(9, 2, 120, 160)
    motion[:, :, 55:65, 75:85] = straight(30.0, 0.0, 10, 10)
    overlay = trajectory_overlay(GRAY, motion)[:100, :130]
    rows, columns = np.nonzero(saturated(overlay))
    assert 40 < columns.min() < 60
    assert 100 < columns.max() < 125
    assert np.abs(rows - 60).max() < 12
    thickness = [int((columns == x).sum()) for x in range(160)]
    assert np.argmax(thickness) > 95


def test_motion_down_points_down():
    """Channel 1 is y, and y is downwards."""
    motion = torch.zeros(9, 2, 120, 160)
    motion[:, :, 55:65, 75:85] = straight(0.0, 25.0, 10, 10)
    rows, columns = np.nonzero(saturated(trajectory_overlay(GRAY, motion)[:100, :130]))
    thickness = [int((rows == y).sum()) for y in range(120)]
    assert np.argmax(thickness) > 75
    assert np.abs(columns - 80).max() < 12


def test_curved_motion_is_drawn_curved():
    """Out and down, then out and up: the middle of the path lies where the pixel is, its ends below."""
    instants = torch.linspace(-1, 1, 9)
    motion = torch.zeros(9, 2, 120, 160)
    motion[:, 0, 55:65, 75:85] = 25 * instants.view(9, 1, 1)
    motion[:, 1, 55:65, 75:85] = 25 * instants.square().view(9, 1, 1)
    coloured = saturated(trajectory_overlay(GRAY, motion)[:, :120])
    rows_at = [np.nonzero(coloured[:, x])[0].mean() for x in (58, 80)]
    assert rows_at[0] > rows_at[1] + 10


def test_longer_motion_is_longer_and_brighter():
    motion = torch.zeros(9, 2, 120, 160)
    motion[..., :80] = straight(1.0, 0.0, 120, 80)
    motion[..., 80:] = straight(4.0, 0.0, 120, 80)
    overlay = trajectory_overlay(GRAY, motion)[:90]
    left, right = overlay[:, :75], overlay[:, 85:]
    assert saturated(right).sum() > 2 * saturated(left).sum()
    assert right[saturated(right)].max() > left[saturated(left)].max() + 20


def test_motion_is_fainter_where_blur_is_unlikely():
    probability = torch.ones(1, 120, 160)
    probability[..., :80] = 0.2
    overlay = trajectory_overlay(GRAY, straight(4.0, 0.0), probability)[:90]
    assert overlay[:, :75].max() < overlay[:, 85:].max() - 50
    np.testing.assert_array_equal(overlay[:, 85:], trajectory_overlay(GRAY, straight(4.0, 0.0))[:90, 85:])


def test_without_motion_there_are_no_arrows_and_no_wheel():
    assert not saturated(trajectory_overlay(GRAY, torch.zeros(9, 2, 120, 160))).any()


def test_motion_that_is_not_finite_is_left_out():
    motion = straight(4.0, 0.0)
    motion[:, :, :, :80] = math.nan
    motion[3, 0, :60] = math.inf
    coloured = saturated(trajectory_overlay(GRAY, motion))
    assert not coloured[:, :70].any()
    assert not coloured[:50].any()
    assert coloured[65:, 85:].any()
    assert not saturated(trajectory_overlay(GRAY, torch.full((9, 2, 120, 160), math.nan))).any()
