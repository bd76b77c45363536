"""Curves, as pictures."""

import math

import numpy as np
import pytest

from deblur_lab.curves import SELECTED, threshold_curves, ticks


def points(*, weighted=True, count=3):
    return [
        {
            "threshold": 0.2 + 0.2 * number,
            "selected_share": 0.6 / (number + 1),
            "dilated_share": 0.8 / (number + 1),
            "scores": {
                "psnr_db": 30.0 - number,
                "ssim": 0.9 - 0.01 * number,
                "weighted_psnr_db": 25.0 - number if weighted else math.nan,
                "weighted_ssim": 0.8 if weighted else math.nan,
            },
        }
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (0, 37, [0, 10, 20, 30, 40]),
        (25.42, 25.5, [25.42, 25.44, 25.46, 25.48, 25.5]),
        (-0.4, 0.1, [-0.4, -0.3, -0.2, -0.1, 0, 0.1]),
    ],
)
def test_ticks_are_round_numbers_that_span_the_values(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_equal_ends_have_ticks_too():
    assert ticks(0, 0)[0] < ticks(0, 0)[-1]


def test_a_plot_for_each_score_that_exists():
    four, two = threshold_curves({"a": points()}), threshold_curves({"a": points(weighted=False)})
    assert four.dtype == np.uint8
    assert (four.shape[1], four.shape[2]) == (two.shape[1], 3)
    assert four.shape[0] > 1.8 * two.shape[0]
    both = threshold_curves({"a": points(), "b": points(weighted=False)})
    assert both.shape[0] == four.shape[0] + two.shape[0]
    # The same curves in another place.
    assert (both[: four.shape[0]] == four).all()


def test_a_dot_stands_where_its_numbers_say():
    """Of one plot with one threshold: half of the pixels, on an axis of 0 to 50 %."""
    one = points(count=1)
    one[0] |= {"selected_share": 0.25, "dilated_share": 0.5}
    one[0]["scores"] = {"psnr_db": 30.0}
    picture = threshold_curves({"a": one}).astype(int)
    near = np.abs(picture - np.array(SELECTED)).sum(2) < 40
    near[:150] = False  # the legend
    rows, columns = np.nonzero(near)
    left, right = 84, 620 - 28
    assert np.median(columns) == pytest.approx((left + right) / 2, abs=2)
    # In the middle of the axis too, as the only value.
    assert np.median(rows) == pytest.approx(46 + (74 + 440 - 64) / 2, abs=6)


def test_no_score_at_all_is_an_empty_page():
    one = points(count=1)
    one[0]["scores"] = {"psnr_db": math.nan}
    assert (threshold_curves({"a": one}) == 255).all()
