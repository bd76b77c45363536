import numpy as np
import pytest
import torch

from deblur_lab.ops.pyramid import pyramid_laplacian

TAPS = (0.05, 0.25, 0.4, 0.25, 0.05)


def picture(*shape):
    return torch.from_numpy(np.random.default_rng(0).random(shape))


def blurred(rows):
    """Each row, by loops; beyond the ends stand the ends."""
    found = np.zeros_like(rows)
    for place in np.ndindex(rows.shape):
        for tap, weight in zip(range(-2, 3), TAPS, strict=True):
            column = min(max(place[-1] + tap, 0), rows.shape[-1] - 1)
            found[place] += weight * rows[(*place[:-1], column)]
    return found


@pytest.mark.parametrize("size", [(6, 7), (8, 8), (1, 1), (2, 5)])
def test_laplacian_is_what_a_level_of_the_pyramid_loses(size):
    given = picture(2, 3, *size)

    def blurred_twice(array):
        return np.swapaxes(blurred(np.swapaxes(blurred(array), 2, 3)), 2, 3)

    kept = np.zeros(given.shape)
    kept[..., ::2, ::2] = 4 * blurred_twice(given.numpy())[..., ::2, ::2]
    expected = torch.from_numpy(given.numpy() - blurred_twice(kept))
    torch.testing.assert_close(pyramid_laplacian(given), expected)


def test_laplacian_of_a_flat_picture_is_zero_inside():
    flat = pyramid_laplacian(torch.full((1, 1, 12, 12), 0.7))
    assert flat[..., 2:-3, 2:-3].abs().max() < 1e-6


def test_gradients_and_autocast():
    given = picture(1, 2, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(pyramid_laplacian, (given,))
    expected = pyramid_laplacian(given.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pyramid_laplacian(given.float()), expected)
