"""What sub-decoders do, drawn: sharpening, feature maps, and what masks keep."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from deblur_lab.images import to_uint8
from deblur_lab.pictures import (
    BlockAttention,
    FeatureMap,
    FeatureRow,
    attention_figure,
    feature_figure,
    sharpening_figure,
)
from deblur_lab.pictures.attention import BAR
from deblur_lab.pictures.drawing import font, wrapped
from deblur_lab.pictures.heat import LARGEST_COLUMN_PX, heat_colours, scale_of
from deblur_lab.pictures.panels import BETTER, WORSE
from deblur_lab.pictures.sharpening import CROP_COLOURS, crop_boxes
from tests.pictures.samples import photograph


def blurred(size_px, height=60, width=80):
    around = (size_px // 2,) * 4
    return to_uint8(
        F.avg_pool2d(F.pad(photograph(height, width)[None], around, mode="replicate"), size_px, 1)[0]
    )


def near(picture, colour):
    return np.abs(picture.astype(int) - np.array(colour)).sum(axis=2) < 30


def test_columns_are_the_pictures_in_their_order():
    pictures = [blurred(size) for size in (9, 5, 3)]
    figure = sharpening_figure(pictures[0], pictures[1:], to_uint8(photograph()), psnr_db=[20, 22, 21.5])
    assert figure.dtype == np.uint8
    np.testing.assert_array_equal(
        figure,
        sharpening_figure(pictures[0], pictures[1:], to_uint8(photograph()), psnr_db=[20, 22, 21.5]),
    )
    # A gain stands in green, a loss in red; each column has the boxes and crops in their colours.
    assert near(figure, BETTER).any()
    assert near(figure, WORSE).any()
    for colour in CROP_COLOURS:
        columns = np.flatnonzero(near(figure, colour).any(axis=0))
        assert set(4 * columns // figure.shape[1]) == {0, 1, 2, 3}
    plain = sharpening_figure(pictures[0], pictures[1:])
    assert plain.shape[1] < figure.shape[1]
    assert not near(plain, BETTER).any()
    with pytest.raises(ValueError, match="one size"):
        sharpening_figure(pictures[0], [pictures[1][1:]])
    with pytest.raises(ValueError, match="one size"):
        sharpening_figure(pictures[0], [])


def test_crops_are_where_most_was_changed_and_do_not_overlap():
    before = np.zeros((100, 200, 3), np.uint8)
    after = before.copy()
    after[10:30, 20:40], after[70:90, 150:170] = 200, 100
    boxes = crop_boxes(before, after)
    assert [side for _, _, side in boxes] == [25, 25]
    for (top, left, side), (row, column) in zip(boxes, ((10, 20), (70, 150)), strict=True):
        assert top <= row <= row + 20 <= top + side
        assert left <= column <= column + 20 <= left + side
    assert len(crop_boxes(before[:8, :9], after[:8, :9])) >= 1


def test_equal_values_have_equal_colours_within_a_row():
    steps = torch.arange(64.0).repeat(48, 1)[None]
    row = FeatureRow("compared", [FeatureMap("one", steps), FeatureMap("half", steps / 2)])
    low, high = scale_of([one.values[0].numpy() for one in row.maps])
    assert low == pytest.approx(0, abs=0.5)
    assert high == pytest.approx(63, abs=1)
    picture = np.full((48, 64, 3), 128, np.uint8)
    figure = feature_figure(picture, [row], "title")
    for one in row.maps:
        colour = heat_colours(one.values[0].numpy()[:1, 30:31], low, high)[0, 0]
        assert near(figure, colour).any()
    bright = [
        heat_colours(np.array([[value]], np.float32), low, high)[0, 0].sum() for value in (0, 20, 40, 63)
    ]
    assert bright == sorted(bright)


def test_what_is_not_finite_or_all_the_same_is_drawn():
    for values in (torch.full((1, 8, 8), torch.nan), torch.zeros(1, 8, 8)):
        feature_figure(np.zeros((16, 16, 3), np.uint8), [FeatureRow("flat", [FeatureMap("map", values)])])


def test_large_pictures_are_shown_reduced_and_small_maps_stretched():
    picture = np.zeros((1000, 1500, 3), np.uint8)
    row = FeatureRow("a row", [FeatureMap("map", torch.rand(1, 50, 75))])
    assert feature_figure(picture, [row]).shape[1] < 2 * LARGEST_COLUMN_PX + 100
    assert sharpening_figure(picture, [picture + 1]).shape[1] < 2 * LARGEST_COLUMN_PX + 100


def test_bars_are_as_long_as_what_is_kept():
    def bar_px(share):
        block = BlockAttention("block", [share], [0.5], [0.25])
        return int(near(attention_figure([[block]]), BAR).any(axis=0).sum())

    full = bar_px(1.0)
    assert bar_px(0.0) == 0
    assert bar_px(0.25) == pytest.approx(full / 4, abs=4)
    without = BlockAttention("nothing", [], [], [])
    assert not near(attention_figure([[without]]), BAR).any()


def test_words_are_broken_into_lines():
    face = font(16)
    lines = wrapped("the quick brown fox jumps over a dog", face, 120)
    assert " ".join(lines) == "the quick brown fox jumps over a dog"
    assert all(face.getlength(line) <= 120 for line in lines)
    assert wrapped("unbreakable", face, 5) == ["unbreakable"]
