import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deblur_lab.ops.ssim import gaussian_taps, gaussian_valid, ssim_map


def noise(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).random(shape))


def window():
    taps = torch.tensor(gaussian_taps(), dtype=torch.float64)
    return (taps[:, None] * taps)[None, None]


def test_taps_are_a_gaussian_that_sums_to_one():
    taps = np.array(gaussian_taps())
    assert taps.sum() == pytest.approx(1, abs=1e-15)
    assert taps[5] == taps.max()
    np.testing.assert_allclose(np.log(taps[5] / taps[7]), 2**2 / (2 * 1.5**2), rtol=1e-12)
    np.testing.assert_array_equal(taps, taps[::-1])


@pytest.mark.parametrize("shape", [(11, 11), (2, 12, 17), (2, 3, 20, 11)])
def test_smoothing_is_convolution_with_the_window(shape):
    image = noise(0, *shape)
    expected = F.conv2d(image.reshape(-1, 1, *shape[-2:]), window()).reshape(*shape[:-2], shape[-2] - 10, -1)
    torch.testing.assert_close(gaussian_valid(image), expected, rtol=1e-12, atol=1e-12)


def test_smoothing_leaves_its_input_alone():
    image = noise(0, 3, 14, 15)
    before = image.clone()
    gaussian_valid(image)
    assert torch.equal(image, before)


def test_gradients_of_both_orders():
    image = noise(0, 2, 12, 13).requires_grad_()
    assert torch.autograd.gradcheck(gaussian_valid, image)
    assert torch.autograd.gradgradcheck(gaussian_valid, image)


def test_an_image_without_a_window_is_refused():
    with pytest.raises(ValueError, match=r"11x11 .* 10x30"):
        gaussian_valid(torch.zeros(3, 30, 10))


def test_the_map_is_one_for_equal_images_and_symmetric():
    restored, sharp = noise(0, 3, 14, 15), noise(1, 3, 14, 15)
    torch.testing.assert_close(ssim_map(sharp, sharp), torch.ones(3, 4, 5).double())
    torch.testing.assert_close(ssim_map(restored, sharp), ssim_map(sharp, restored))


def test_the_map_looks_through_its_own_windows_alone():
    restored, sharp = noise(0, 1, 14, 25), noise(1, 1, 14, 25)
    changed = restored.clone()
    changed[..., 20:] = 0
    same = ssim_map(restored, sharp) == ssim_map(changed, sharp)
    assert same[..., :10].all()
    assert not same[..., 10:].any()
