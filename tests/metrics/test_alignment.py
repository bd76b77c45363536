"""Alignment by ECC: known warps are found, failures are told, and nothing else decides on the result."""

import math
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from deblur_lab.metrics import EccAlignment
from deblur_lab.metrics.alignment import _corner_motion_px

HEIGHT, WIDTH = 96, 128


def picture(height=HEIGHT, width=WIDTH):
    """A photograph, (H, W, 3) float32 in [0, 1]."""
    return (
        cv2.resize(data.astronaut(), (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    )


def warped(image, warp):
    """A picture whose content at `warp @ (x, y, 1)` is that of `image` at (x, y)."""
    return cv2.warpPerspective(
        image, warp, image.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    ).clip(0, 1)


def tensor(image):
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


WARPS = {
    "none": np.eye(3),
    "shift": np.array([[1, 0, 2.4], [0, 1, -1.7], [0, 0, 1]]),
    "turn": cv2.getRotationMatrix2D((64, 48), 1.5, 1.01),
    "homography": np.array([[1.01, 0.004, -1.2], [-0.003, 0.995, 0.8], [3e-5, -2e-5, 1]]),
}
WARPS["turn"] = np.vstack([WARPS["turn"], [0, 0, 1]])


@pytest.mark.parametrize("name", WARPS)
def test_a_known_warp_is_found(name):
    sharp = picture()
    found = EccAlignment().align(tensor(warped(sharp, WARPS[name])), tensor(sharp))
    assert _corner_motion_px(found.warp, WARPS[name], sharp.shape) < 0.15
    # What is left is that of interpolating twice.
    aligned = (found.restored - found.sharp).square().mean()
    unaligned = tensor(warped(sharp, WARPS[name]) - sharp).square().mean()
    assert aligned <= 0.15 * unaligned + 1e-12


def test_outside_of_the_warp_both_pictures_are_zero():
    sharp = picture()
    found = EccAlignment().align(tensor(warped(sharp, WARPS["shift"])), tensor(sharp))
    assert set(found.valid.unique().tolist()) == {0, 1}
    # What lies right of the last 2.4 px and above the first 1.7 was never seen.
    assert found.valid[0, :, -2:].sum() == 0
    assert found.valid[0, 0].sum() == 0
    assert found.valid.mean() > 0.93
    outside = ~found.valid.bool().expand(3, -1, -1)
    assert found.restored[outside].abs().sum() == 0
    assert found.sharp[outside].abs().sum() == 0
    inside = found.valid.bool().expand(3, -1, -1)
    assert torch.equal(found.sharp[inside], tensor(sharp)[inside])


@pytest.mark.parametrize("factor", [0.5, 0.8])
def test_intensity_is_matched_by_least_squares(factor):
    sharp = picture()
    found = EccAlignment().align(tensor(sharp * factor), tensor(sharp))
    assert (found.restored - found.sharp).abs().mean() < 2e-3


@pytest.mark.parametrize(
    ("restored", "sharp"),
    [
        (np.zeros((HEIGHT, WIDTH, 3), np.float32), picture()),
        (np.full((HEIGHT, WIDTH, 3), 0.5, np.float32), picture()),
        (picture(), np.full((HEIGHT, WIDTH, 3), 0.5, np.float32)),
        (1 - picture(), picture()),
        (picture()[:1, :1], picture()[:1, :1]),
    ],
    ids=["black", "flat", "flat sharp", "negative", "one pixel"],
)
def test_what_cannot_be_aligned_is_told(restored, sharp):
    assert EccAlignment().align(tensor(restored), tensor(sharp)) is None


def test_noise_has_no_warp_or_a_regular_one():
    rng = np.random.default_rng(0)
    for _ in range(3):
        noise = tensor(rng.random((HEIGHT, WIDTH, 3), dtype=np.float32))
        found = EccAlignment().align(noise, tensor(picture()))
        assert found is None or (np.isfinite(found.warp).all() and abs(np.linalg.det(found.warp)) > 1e-6)


def test_pictures_are_left_as_they_were():
    restored, sharp = tensor(warped(picture(), WARPS["shift"])), tensor(picture())
    before = restored.clone(), sharp.clone()
    EccAlignment().align(restored, sharp)
    assert torch.equal(restored, before[0])
    assert torch.equal(sharp, before[1])


def test_ending_early_gives_what_all_iterations_give():
    sharp = picture()
    restored = cv2.blur(warped(sharp, WARPS["homography"]), (5, 1))
    early, full = (
        EccAlignment(settled_px=settled_px).align(tensor(restored), tensor(sharp)) for settled_px in (2e-4, 0)
    )
    assert _corner_motion_px(early.warp, full.warp, sharp.shape) < 1e-3
    scores = [10 * math.log10(1 / (a.restored - a.sharp).double().square().mean()) for a in (early, full)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_all_iterations_in_parts_are_those_of_opencv_at_once():
    sharp = picture()
    restored = warped(sharp, WARPS["turn"])
    scaled = (
        restored * (np.sum(sharp * restored, dtype=np.float64) / np.sum(restored**2, dtype=np.float64))
    ).astype(np.float32)
    _, warp = cv2.findTransformECC(
        cv2.cvtColor(sharp, cv2.COLOR_RGB2GRAY),
        cv2.cvtColor(scaled, cv2.COLOR_RGB2GRAY),
        np.eye(3, dtype=np.float32),
        cv2.MOTION_HOMOGRAPHY,
        (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 0),
        inputMask=None,
        gaussFiltSize=5,
    )
    found = EccAlignment(settled_px=0).align(tensor(restored), tensor(sharp))
    assert np.abs(found.warp - warp).max() < 1e-6


def test_threads_decide_on_nothing():
    """Neither those of OpenCV nor those that call."""
    pairs = [(tensor(warped(picture(), warp)), tensor(picture())) for warp in WARPS.values()]
    before = cv2.getNumThreads()
    try:
        results = []
        for threads in (1, 3):
            cv2.setNumThreads(threads)
            results.append([EccAlignment().align(*pair) for pair in pairs])
    finally:
        cv2.setNumThreads(before)
    with ThreadPoolExecutor(4) as pool:
        results.append(list(pool.map(lambda pair: EccAlignment().align(*pair), pairs)))
    for other in results[1:]:
        for one, same in zip(results[0], other, strict=True):
            assert np.array_equal(one.warp, same.warp)
            assert torch.equal(one.restored, same.restored)


def test_an_even_filter_is_refused():
    with pytest.raises(ValueError, match="blur_px=4"):
        EccAlignment(blur_px=4)


def test_only_the_fields_own_is_the_default():
    assert EccAlignment().is_default
    assert not EccAlignment(iterations=50).is_default
    assert not EccAlignment(settled_px=0).is_default
