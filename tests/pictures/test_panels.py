import math

import numpy as np
import pytest
import torch

from deblur_lab.images import to_uint8
from deblur_lab.pictures import comparison_panel, explained_panel
from tests.pictures.samples import disk, photograph, saturated, straight


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
        "true_motion": straight(5.0, 1.0, height, width)[[0, -1]] * disk(height, width),
        "title": "synthetic  scene 3",
        "scores": {"blurry": {"psnr_db": 25.0, "ssim": 0.8}, "restored": {"psnr_db": 28.0, "ssim": 0.9}},
    }
    return comparison_panel(**(arguments | changes))


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
        ((), 6),
        (("sharp",), 5),
        (("mask",), 6),
        (("probability",), 6),
        (("mask", "probability"), 5),
        (("motion",), 5),
        (("true_motion",), 5),
        (("motion", "true_motion"), 4),
        (("sharp", "mask", "probability", "motion", "true_motion"), 2),
    ],
)
def test_what_is_not_given_has_no_column(absent, columns):
    nothing = dict.fromkeys(("mask", "probability", "motion", "true_motion"))
    two, three = full_panel(sharp=None, **nothing).shape[1], full_panel(**nothing).shape[1]
    panel = full_panel(**dict.fromkeys(absent))
    assert panel.shape[1] == two + (columns - 2) * (three - two)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 301), (301, 33), (101, 410)])
def test_any_size_is_laid_out(size):
    image = torch.rand(3, *size)
    mask, motion = (image[:1] > 0.5).float(), torch.randn(9, 2, *size)
    panel = comparison_panel(image, image, image, mask, image[:1], motion, title="any", true_motion=motion)
    assert panel.shape[1] > 6 * 400
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
    one_line = {"mask": None, "probability": None}  # beside whose scores a second one shows
    np.testing.assert_array_equal(full_panel(scores=with_nan), full_panel(scores=plain))
    assert full_panel(scores=with_one, **one_line).shape[0] > full_panel(scores=plain, **one_line).shape[0]


@pytest.mark.parametrize("name", ["restored", "sharp", "mask", "probability", "motion", "true_motion"])
def test_sizes_that_differ_are_refused(name):
    shape = {
        "mask": (1, 8, 9),
        "probability": (1, 8, 9),
        "motion": (9, 2, 8, 9),
        "true_motion": (2, 2, 8, 9),
    }.get(name, (3, 8, 9))
    with pytest.raises(ValueError, match=r"\(60, 80\).*\(8, 9\)"):
        full_panel(**{name: torch.zeros(shape)})


def columns_of(panel, count):
    """The columns from the left, with their headings, without the line above them."""
    gap = (panel.shape[1] - 400 * count) // (count + 1)
    return [panel[40:, gap + n * (400 + gap) : gap + n * (400 + gap) + 400] for n in range(count)]


def test_true_and_predicted_motion_stand_side_by_side_in_one_scale():
    """What is equal is drawn equal, its heading apart; half as long is drawn paler."""
    mask = disk()
    motion = straight(6.0, 0.0, 60, 80) * mask
    given = {"mask": mask, "probability": mask, "true_motion": motion[[0, -1]]}
    *_, same, true = columns_of(full_panel(**given, motion=motion), 6)
    np.testing.assert_array_equal(same[-280:], true[-280:])
    assert (same[:50] != true[:50]).any()
    *_, half, true = columns_of(full_panel(**given, motion=motion / 2), 6)
    np.testing.assert_array_equal(true[-280:], same[-280:])
    chroma = [int(np.ptp(column[-290:], axis=2).max()) for column in (half, true)]
    assert 40 < chroma[0] < chroma[1] - 20


def test_panels_draw_and_name_the_threshold_of_the_prediction_alone():
    usual, lower = (
        columns_of(full_panel(probability=0.4 * disk(), threshold=threshold), 6) for threshold in (0.5, 0.3)
    )
    changed = [bool((one != other).any()) for one, other in zip(usual, lower, strict=True)]
    assert changed == [False, False, False, True, True, False]
    blur = [columns[3][:-310] for columns in (usual, lower)]
    assert (blur[0] != blur[1]).any()  # the heading, whose words end within the column
    assert (blur[1][:, -8:] == blur[1][0, -1]).all()
    small, motion = to_uint8(photograph()), straight(4.0, 0.0, 60, 80)
    usual, lower = (
        columns_of(explained_panel(small, small, 0.4 * disk(), motion, threshold=threshold), 4)
        for threshold in (0.5, 0.3)
    )
    changed = [bool((one[-290:] != other[-290:]).any()) for one, other in zip(usual, lower, strict=True)]
    assert changed == [False, False, True, True]


def test_the_wheel_stands_in_the_heading_where_there_is_motion():
    still = torch.zeros(9, 2, 60, 80)
    *_, moving, nothing = columns_of(full_panel(true_motion=still), 6)
    heading = moving.shape[0] - 315
    assert saturated(moving[:heading]).sum() > 300
    assert not saturated(nothing).any()


def test_a_reduced_photo_is_explained_in_its_own_pixels():
    """Motion is told in px of the photo, and drawn where the reduced photo has it."""
    small = to_uint8(photograph())
    mask = disk()
    motion = straight(5.0, 0.0, 60, 80) * mask
    as_it_is = explained_panel(small, small, mask, motion)
    reduced = explained_panel(small, small, mask, 3 * motion, reduction=3)
    assert as_it_is.shape == reduced.shape
    (*_, whole), (*_, part) = columns_of(as_it_is, 4), columns_of(reduced, 4)
    assert (whole[:60] != part[:60]).any()
    # But for the number on the badge, the arrows are the same.
    assert (whole[-300:] != part[-300:]).any(axis=2).mean() < 0.01
    with pytest.raises(ValueError, match=r"\(60, 80\).*\(30, 40\)"):
        explained_panel(small, small, mask[:, ::2, ::2])
