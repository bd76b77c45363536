import numpy as np
import pytest

from deblur_lab.data.transforms import (
    MaskPixels,
    blur_aware_corner,
    crop,
    random_corner,
    randomly_flipped,
    randomly_turned,
    require_patch,
    turned,
)
from deblur_lab.errors import DataError


def test_a_picture_smaller_than_a_patch_is_refused() -> None:
    require_patch("a", 256, 300, 256)
    with pytest.raises(DataError) as caught:
        require_patch("s01/a.png", 300, 200, 256)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "s01/a.png is 200 x 300",
        "data.patch_size=256",
        "256 x 256 at least",
        "data.patch_size=200 or less",
    ):
        assert part in message


def test_random_corners_reach_everywhere_and_stay_inside() -> None:
    rng = np.random.default_rng(0)
    corners = {random_corner(6, 5, 3, rng) for _ in range(500)}
    assert corners == {(top, left) for top in range(4) for left in range(3)}
    assert random_corner(4, 4, 4, rng) == (0, 0)


def test_patches_lie_on_what_is_blurred() -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[40:60, 50:80] = 1
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(2000):
        top, left = blur_aware_corner(MaskPixels(mask), 11, rng, probability=1.0)
        assert 0 <= top <= 60 - 11
        assert 0 <= left <= 80 - 11
        # Centred on a blurred pixel where there is room, moved by as little as needed where not.
        assert top >= 40 - 5
        assert left >= 50 - 5
        seen.add((top, left))
    assert {top for top, _ in seen} == set(range(35, 50))
    assert {left for _, left in seen} == set(range(45, 70))


def test_a_patch_is_centred_on_its_pixel() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[4, 3] = 1
    assert blur_aware_corner(MaskPixels(mask), 3, np.random.default_rng(0), probability=1.0, share=0.0) == (
        3,
        2,
    )
    assert blur_aware_corner(MaskPixels(mask), 9, np.random.default_rng(0), probability=1.0, share=0.0) == (
        0,
        0,
    )


def share_on_blur(mask: np.ndarray, draws: int = 4000, **options: float) -> float:
    """How often a patch of one pixel is blurred."""
    rng = np.random.default_rng(0)
    return float(
        np.mean([mask[blur_aware_corner(MaskPixels(mask), 1, rng, **options)] for _ in range(draws)])
    )


def test_how_often_and_when_the_mask_is_looked_at() -> None:
    mask = np.zeros((10, 100), np.uint8)
    mask[:, :10] = 1  # 10 %
    assert share_on_blur(mask, probability=1.0) == 1
    assert share_on_blur(mask, probability=0.0) == pytest.approx(0.1, abs=0.02)
    assert share_on_blur(mask) == pytest.approx(0.55, abs=0.03)
    mask[:, 5:] = 0  # 5 %, which is not over 5 %
    assert share_on_blur(mask, probability=1.0) == pytest.approx(0.05, abs=0.02)
    mask[0, 5] = 1
    assert share_on_blur(mask, probability=1.0) == 1
    assert share_on_blur(np.zeros((4, 4), np.uint8), probability=1.0, share=0.0) == 0


def test_patches_of_what_is_blurred_all_over_lie_anywhere() -> None:
    rng = np.random.default_rng(0)
    mask = np.ones((8, 100), np.uint8)
    lefts = [blur_aware_corner(MaskPixels(mask), 8, rng, probability=1.0)[1] for _ in range(3000)]
    assert np.mean(np.array(lefts) == 0) == pytest.approx(1 / 93, abs=0.01)
    assert np.mean(lefts) == pytest.approx(46, abs=2)


def test_crop_cuts_all_maps_alike() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    patches = crop((picture, picture[..., 0]), (2, 3), 4)
    assert patches[0].shape == (4, 4, 3)
    assert np.array_equal(patches[0][..., 0], patches[1])
    assert patches[0][0, 0].tolist() == picture[2, 3].tolist()


def test_there_are_eight_ways_to_lay_a_square_down() -> None:
    picture = np.array([[0, 1], [2, 3]], np.uint8)
    ways = [turned([picture], way)[0].ravel().tolist() for way in range(8)]
    assert ways[0] == [0, 1, 2, 3]
    assert ways[1] == [1, 3, 0, 2]  # a quarter turn against the clock
    assert ways[4] == [1, 0, 3, 2]  # mirrored left to right
    assert len({tuple(way) for way in ways}) == 8


def test_all_maps_are_turned_alike_and_every_way_comes() -> None:
    rng = np.random.default_rng(0)
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    seen = set()
    for _ in range(200):
        first, second = randomly_turned((picture, picture[..., 1]), rng)
        assert np.array_equal(first[..., 1], second)
        seen.add(second.tobytes())
    assert len(seen) == 8


def test_flips_alone_are_the_four_ways_without_a_quarter_turn():
    picture = np.arange(6, dtype=np.uint8).reshape(2, 3)
    rng = np.random.default_rng(0)
    seen = {randomly_flipped([picture], rng)[0].tobytes() for _ in range(60)}
    expected = (picture, picture[:, ::-1], picture[::-1], picture[::-1, ::-1])
    assert seen == {np.ascontiguousarray(way).tobytes() for way in expected}
