import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from deblur_lab.images import read_mask, read_rgb, to_tensor
from deblur_lab.metrics import functional
from deblur_lab.metrics.functional import (
    psnr,
    ssim_gaussian_valid,
    ssim_matlab_volume,
    weighted_psnr,
    weighted_ssim,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
UNWEIGHTED = [psnr, ssim_gaussian_valid, ssim_matlab_volume]
WEIGHTED = [weighted_psnr, weighted_ssim]


def noise(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).random(shape))


def pair(height=20, width=23, *leading):
    sharp = noise(0, *leading, 3, height, width)
    return (sharp + 0.2 * (noise(1, *sharp.shape) - 0.5)).clamp(0, 1), sharp


def apply(score, restored, sharp, mask):
    return score(restored, sharp, mask) if score in WEIGHTED else score(restored, sharp)


# Against the field's scripts


@pytest.fixture(scope="module")
def golden():
    restored, sharp = (to_tensor(read_rgb(GOLDEN / f"{name}.png")) for name in ("restored", "sharp"))
    return restored, sharp, torch.from_numpy(read_mask(GOLDEN / "mask.png"))[None].float()


@pytest.mark.parametrize("name", [score.__name__ for score in (*UNWEIGHTED, *WEIGHTED)])
def test_scores_are_those_of_the_published_scripts(golden, name):
    assert apply(getattr(functional, name), *golden).item() == pytest.approx(EXPECTED[name], abs=1e-4)


# Against independent implementations


def gaussian_kernel(dimensions):
    taps = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    kernel = taps
    for _ in range(dimensions - 1):
        kernel = kernel[..., None] * taps
    return kernel / kernel.sum()


def ssim_of_window(one, other, kernel):
    """Wang et al. 2004, eq. 13, of one window, with centred moments."""
    mean_one, mean_other = (kernel * one).sum(), (kernel * other).sum()
    variances = (kernel * (one - mean_one) ** 2).sum(), (kernel * (other - mean_other) ** 2).sum()
    covariance = (kernel * (one - mean_one) * (other - mean_other)).sum()
    return ((2 * mean_one * mean_other + 1e-4) * (2 * covariance + 9e-4)) / (
        (mean_one**2 + mean_other**2 + 1e-4) * (sum(variances) + 9e-4)
    )


def valid_map(restored, sharp):
    """The map of the valid SSIM by loops: (3, H - 10, W - 10)."""
    kernel = gaussian_kernel(2)
    channels, height, width = sharp.shape
    similarity = np.empty((channels, height - 10, width - 10))
    for c, y, x in np.ndindex(*similarity.shape):
        window = np.s_[c, y : y + 11, x : x + 11]
        similarity[c, y, x] = ssim_of_window(restored[window], sharp[window], kernel)
    return similarity


def test_psnr_agrees_with_scikit_image():
    restored, sharp = pair()
    expected = peak_signal_noise_ratio(sharp.numpy(), restored.numpy(), data_range=1)
    assert psnr(restored, sharp).item() == pytest.approx(expected, abs=1e-9)


def test_psnr_of_a_constant_error():
    assert psnr(torch.full((3, 4, 5), 0.6), torch.full((3, 4, 5), 0.5)).item() == pytest.approx(20, abs=1e-5)


def test_weighted_psnr_is_psnr_over_the_masked_pixels():
    restored, sharp = pair()
    mask = (noise(2, 1, 20, 23) > 0.7).double()
    inside = mask.bool().expand_as(sharp)
    expected = peak_signal_noise_ratio(sharp[inside].numpy(), restored[inside].numpy(), data_range=1)
    assert weighted_psnr(restored, sharp, mask).item() == pytest.approx(expected, abs=1e-9)


def test_valid_ssim_agrees_with_loops_and_with_scikit_image():
    restored, sharp = (image.numpy() for image in pair(14, 13))
    ours = ssim_gaussian_valid(*pair(14, 13)).item()
    _, similarity = structural_similarity(
        restored,
        sharp,
        channel_axis=0,
        data_range=1,
        gaussian_weights=True,
        use_sample_covariance=False,
        full=True,
    )
    assert ours == pytest.approx(valid_map(restored, sharp).mean(), abs=1e-12)
    assert ours == pytest.approx(similarity[:, 5:-5, 5:-5].mean(), abs=1e-12)


def test_weighted_ssim_agrees_with_loops():
    restored, sharp = pair(14, 13)
    mask = noise(3, 1, 14, 13)
    weights = mask.numpy()[0, 5:-5, 5:-5]
    expected = (valid_map(restored.numpy(), sharp.numpy()) * weights).sum() / (3 * weights.sum())
    assert weighted_ssim(restored, sharp, mask).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("size", [(6, 9), (1, 1), (2, 13)])
def test_volume_ssim_agrees_with_loops_over_the_padded_volume(size):
    restored, sharp = pair(*size)
    kernel = gaussian_kernel(3)
    one, other = (np.pad(image.numpy(), 5, mode="edge") for image in (restored, sharp))
    windows = [np.s_[c : c + 11, y : y + 11, x : x + 11] for c, y, x in np.ndindex(*sharp.shape)]
    expected = np.mean([ssim_of_window(one[w], other[w], kernel) for w in windows])
    assert ssim_matlab_volume(restored, sharp).item() == pytest.approx(expected, abs=1e-12)


# Properties


@pytest.mark.parametrize("score", [*UNWEIGHTED, *WEIGHTED])
def test_threads_decide_on_no_digit(score):
    """Of an image that PyTorch shares out to its threads."""
    restored, sharp = pair(150, 170)
    mask = noise(5, 1, 150, 170)
    before = torch.get_num_threads()
    try:
        values = set()
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            values.add(apply(score, restored, sharp, mask).item())
    finally:
        torch.set_num_threads(before)
    assert len(values) == 1


@pytest.mark.parametrize("height", [11, 42, 43, 80])
def test_strips_make_no_difference(height):
    restored, sharp = pair(height, 30, 2)
    whole = functional.ssim_map(restored, sharp)
    assert torch.equal(functional.in_strips(functional.ssim_map, restored, sharp, margin_px=5), whole)


@pytest.mark.parametrize("score", [*UNWEIGHTED, *WEIGHTED])
def test_each_image_has_its_own_score(score):
    restored, sharp = pair(12, 15, 2, 4)
    mask = noise(5, 2, 4, 1, 12, 15)
    scores = apply(score, restored, sharp, mask)
    assert scores.shape == (2, 4)
    assert scores.dtype == torch.float64
    for i, j in np.ndindex(2, 4):
        alone = apply(score, restored[i, j], sharp[i, j], mask[i, j])
        assert alone.shape == ()
        assert scores[i, j].item() == pytest.approx(alone.item(), abs=1e-12)


@pytest.mark.parametrize("score", [*UNWEIGHTED, *WEIGHTED])
def test_equal_images_have_the_best_score(score):
    _, sharp = pair()
    best = apply(score, sharp, sharp, torch.ones(1, 20, 23)).item()
    assert best == math.inf if score in (psnr, weighted_psnr) else best == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("score", [*UNWEIGHTED, *WEIGHTED])
def test_more_noise_scores_lower(score):
    _, sharp = pair()
    mask = torch.ones(1, 20, 23)
    values = [
        apply(score, sharp + amount * (noise(7, *sharp.shape) - 0.5), sharp, mask).item()
        for amount in (0.01, 0.05, 0.2, 0.5)
    ]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 4


@pytest.mark.parametrize(("whole", "weighted"), [(psnr, weighted_psnr), (ssim_gaussian_valid, weighted_ssim)])
def test_a_full_mask_weighs_nothing(whole, weighted):
    restored, sharp = pair()
    full = torch.ones(1, 20, 23)
    assert weighted(restored, sharp, full).item() == pytest.approx(whole(restored, sharp).item(), abs=1e-12)


@pytest.mark.parametrize("score", WEIGHTED)
def test_an_empty_mask_has_no_score(score):
    restored, sharp = pair()
    assert math.isnan(score(restored, sharp, torch.zeros(1, 20, 23)).item())


def test_a_mask_at_the_border_alone_has_no_weighted_ssim():
    restored, sharp = pair()
    mask = torch.ones(1, 20, 23)
    mask[:, 5:-5, 5:-5] = 0
    assert math.isnan(weighted_ssim(restored, sharp, mask).item())
    assert math.isfinite(weighted_psnr(restored, sharp, mask).item())


@pytest.mark.parametrize("size", [(10, 30), (30, 10), (1, 1)])
def test_an_image_smaller_than_the_window_has_no_valid_ssim(size):
    restored, sharp = pair(*size)
    assert math.isnan(ssim_gaussian_valid(restored, sharp).item())
    assert math.isnan(weighted_ssim(restored, sharp, torch.ones(1, *size)).item())
    assert weighted_ssim(restored[None], sharp[None], torch.ones(1, 1, *size)).shape == (1,)
    assert math.isfinite(psnr(restored, sharp).item())
    assert math.isfinite(ssim_matlab_volume(restored, sharp).item())


@pytest.mark.parametrize("score", UNWEIGHTED)
@pytest.mark.parametrize("other", [(3, 20, 22), (1, 20, 23), (1, 3, 20, 23)])
def test_images_of_different_shapes_are_refused(score, other):
    with pytest.raises(ValueError, match="shape"):
        score(torch.zeros(3, 20, 23), torch.zeros(other))


@pytest.mark.parametrize("score", WEIGHTED)
@pytest.mark.parametrize("shape", [(20, 23), (3, 20, 23), (1, 23, 20)])
def test_a_mask_of_another_shape_is_refused(score, shape):
    restored, sharp = pair()
    with pytest.raises(ValueError, match=r"\(1, 20, 23\)"):
        score(restored, sharp, torch.ones(shape))
