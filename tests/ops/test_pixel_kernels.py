"""Convolution with a kernel for each pixel, against loops and PyTorch's own convolution."""

import pytest
import torch
import torch.nn.functional as F

from deblur_lab.ops.costs import counting
from deblur_lab.ops.pixel_kernels import convolve_per_pixel, normalise_kernels


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(picture, kernels):
    """The definition, pixel by pixel."""
    batch, channels, height, width = picture.shape
    side = int(kernels.shape[1] ** 0.5)
    output = torch.zeros_like(picture)
    for image in range(batch):
        for channel in range(channels):
            for row in range(height):
                for column in range(width):
                    for point in range(side * side):
                        down, right = point // side - side // 2, point % side - side // 2
                        seen = picture[
                            image,
                            channel,
                            min(max(row + down, 0), height - 1),
                            min(max(column + right, 0), width - 1),
                        ]
                        output[image, channel, row, column] += kernels[image, point, row, column] * seen
    return output


@pytest.mark.parametrize(("side", "height", "width"), [(3, 4, 5), (5, 3, 2), (1, 2, 2)])
def test_it_is_the_sum_of_what_each_pixel_sees_edges_replicated(side, height, width):
    picture, kernels = drawn(2, 3, height, width), drawn(2, side**2, height, width, seed=1)
    torch.testing.assert_close(convolve_per_pixel(picture, kernels), by_loops(picture, kernels))


def test_with_one_kernel_for_all_it_is_pytorchs_convolution():
    picture, kernel = drawn(2, 3, 12, 17), drawn(7, 7, seed=1)
    padded = F.pad(picture, (3, 3, 3, 3), mode="replicate")
    expected = F.conv2d(padded, kernel.expand(3, 1, 7, 7), groups=3)
    same = kernel.view(1, 49, 1, 1).expand(2, 49, 12, 17)
    torch.testing.assert_close(convolve_per_pixel(picture, same), expected)


def test_a_kernel_whose_only_value_is_right_of_the_middle_shows_what_is_right():
    picture, kernels = drawn(1, 3, 4, 6), torch.zeros(1, 9, 4, 6, dtype=torch.float64)
    kernels[:, 5] = 1
    assert torch.equal(convolve_per_pixel(picture, kernels)[..., :-1], picture[..., 1:])


def test_gradients_are_right():
    picture, kernels = drawn(2, 2, 4, 3).requires_grad_(), drawn(2, 9, 4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(convolve_per_pixel, (picture, kernels))
    assert torch.autograd.gradcheck(lambda kernels: convolve_per_pixel(picture.detach(), kernels), (kernels,))
    assert torch.autograd.gradcheck(lambda picture: convolve_per_pixel(picture, kernels.detach()), (picture,))


def test_no_tensor_larger_than_the_kernels_is_saved_or_made():
    picture, kernels = torch.rand(1, 3, 16, 16), torch.rand(1, 121, 16, 16, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.append(tensor.numel()) or tensor, lambda x: x
    ):
        convolve_per_pixel(picture, kernels)
    assert sum(saved) == 121 * 16 * 16 + 3 * 26 * 26


def test_half_precision_is_summed_in_float32():
    picture, kernels = torch.rand(1, 3, 8, 8).bfloat16(), torch.rand(1, 25, 8, 8).bfloat16()
    output = convolve_per_pixel(picture, kernels)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, convolve_per_pixel(picture.double(), kernels.double()).float())


def test_every_product_is_counted():
    with counting() as counter:
        convolve_per_pixel(torch.rand(2, 3, 8, 4), torch.rand(2, 25, 8, 4))
    assert counter == {"per-pixel convolution": 2 * 3 * 8 * 4 * 25}


@pytest.mark.parametrize("shape", [(1, 16, 4, 4), (1, 8, 4, 4), (2, 9, 4, 4), (1, 9, 4, 5)])
def test_kernels_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match="do not fit a picture"):
        convolve_per_pixel(torch.rand(1, 3, 4, 4), torch.rand(shape))


def test_normalised_kernels_keep_the_brightness():
    kernels = normalise_kernels(torch.rand(1, 9, 4, 4))
    torch.testing.assert_close(kernels.sum(1), torch.ones(1, 4, 4))
    torch.testing.assert_close(
        convolve_per_pixel(torch.full((1, 3, 4, 4), 0.3), kernels), torch.full((1, 3, 4, 4), 0.3)
    )
    assert normalise_kernels(torch.zeros(1, 9, 1, 1)).isfinite().all()
