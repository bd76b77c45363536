import math

import pytest
import torch
from torch import Tensor

from deblur_lab.ops.splatting import average_splat, forward_splat, reblur


def loop_splat(image: Tensor, displacement: Tensor) -> tuple[Tensor, Tensor]:
    """One pixel at a time, with the hat function max(0, 1 - |distance|) over the whole frame around it."""
    batch, channels, height, width = image.shape
    summed, weight = torch.zeros_like(image), torch.zeros_like(image[:, :1])
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                dx, dy = displacement[b, :, y, x].tolist()
                for to_y in range(height):
                    for to_x in range(width):
                        share = max(0.0, 1 - abs(x + dx - to_x)) * max(0.0, 1 - abs(y + dy - to_y))
                        weight[b, 0, to_y, to_x] += share
                        for c in range(channels):
                            summed[b, c, to_y, to_x] += share * image[b, c, y, x]
    return summed, weight


def random_case(batch=2, channels=2, height=4, width=5, reach=2.0, seed=0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, channels, height, width, generator=generator, dtype=torch.float64)
    displacement = torch.rand(batch, 2, height, width, generator=generator, dtype=torch.float64)
    return image, (displacement * 2 - 1) * reach


@pytest.mark.parametrize("reach", [0.4, 2.0, 30.0])
def test_agrees_with_a_loop_over_pixels(reach):
    image, displacement = random_case(reach=reach)
    torch.testing.assert_close(forward_splat(image, displacement), loop_splat(image, displacement))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (6, 1)])
def test_agrees_with_a_loop_on_thin_images(height, width):
    image, displacement = random_case(height=height, width=width)
    torch.testing.assert_close(forward_splat(image, displacement), loop_splat(image, displacement))


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (2, 0), (0, 3), (-1, -2), (7, 0)])
def test_an_integer_displacement_is_an_exact_shift(dx, dy):
    image, displacement = random_case(height=6, width=7)
    displacement[:, 0], displacement[:, 1] = dx, dy
    shifted = torch.zeros_like(image)
    covered = torch.zeros_like(image[:, :1])
    for y in range(6):
        for x in range(7):
            if 0 <= y + dy < 6 and 0 <= x + dx < 7:
                shifted[:, :, y + dy, x + dx] = image[:, :, y, x]
                covered[:, :, y + dy, x + dx] = 1
    for splat in (forward_splat, average_splat):
        result, weight = splat(image, displacement)
        assert torch.equal(result, shifted)
        assert torch.equal(weight, covered)


def test_x_is_to_the_right_and_y_down():
    image = torch.zeros(1, 1, 3, 4)
    image[0, 0, 0, 0] = 1
    displacement = torch.tensor([2.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 3, 4)
    assert forward_splat(image, displacement)[0].nonzero().tolist() == [[0, 0, 1, 2]]


def test_keeps_the_sum_when_nothing_leaves_the_frame():
    image, displacement = random_case(height=16, width=16, reach=3.0)
    image[:, :, :4], image[:, :, -4:], image[..., :4], image[..., -4:] = 0, 0, 0, 0
    summed, _ = forward_splat(image, displacement)
    torch.testing.assert_close(summed.sum((2, 3)), image.sum((2, 3)))
    inward = torch.zeros(1, 2, 16, 16, dtype=torch.float64) + 0.3
    inward[:, 0, :, -1], inward[:, 1, -1, :] = -0.3, -0.3
    _, weight = forward_splat(image[:1], inward)
    assert weight.sum().item() == pytest.approx(256)


def test_gradients():
    image, displacement = random_case(batch=1, height=3, width=4)
    inputs = (image.requires_grad_(), displacement.requires_grad_())
    assert torch.autograd.gradcheck(forward_splat, inputs)
    assert torch.autograd.gradcheck(lambda *both: average_splat(*both)[0], inputs)


def test_gradients_of_reblur():
    image, displacement = random_case(batch=2, height=3, width=4)
    displacements = torch.stack((displacement, displacement * -0.7, displacement * 0.3), 1)
    inputs = (image.requires_grad_(), displacements.requires_grad_())
    assert torch.autograd.gradcheck(lambda *both: reblur(*both)[0], inputs)


def test_gradients_stay_finite_where_nothing_arrives():
    image, displacement = random_case(height=8, width=8, reach=20.0)
    image.requires_grad_(), displacement.requires_grad_()
    average, valid = average_splat(image, displacement)
    assert 0 < valid.mean() < 1
    average.square().sum().backward()
    assert image.grad.isfinite().all()
    assert displacement.grad.isfinite().all()


def test_average_of_a_constant_image_is_that_constant_where_something_arrives():
    _, displacement = random_case(height=12, width=12, reach=4.0)
    average, valid = average_splat(torch.full((2, 3, 12, 12), 0.7, dtype=torch.float64), displacement)
    assert 0 < valid.mean() < 1
    torch.testing.assert_close(average, 0.7 * valid.expand(-1, 3, -1, -1))


def test_average_drops_traces():
    image = torch.ones(1, 1, 1, 2, dtype=torch.float64)
    displacement = torch.zeros(1, 2, 1, 2, dtype=torch.float64)
    displacement[0, 0, 0] = torch.tensor([0.01, 9.0])
    assert average_splat(image, displacement)[1].flatten().tolist() == [1, 1]
    assert average_splat(image, displacement, eps=0.02)[1].flatten().tolist() == [1, 0]


def test_reblur_is_the_mean_of_the_frames_that_have_something():
    image, _ = random_case(height=4, width=6)
    displacements = torch.zeros(2, 3, 2, 4, 6, dtype=torch.float64)
    displacements[:, 0, 0], displacements[:, 2, 0] = -1, 1
    blurry, valid = reblur(image, displacements)
    left, right = image[..., 1:], image[..., :-1]
    expected = image.clone()
    expected[..., 1:-1] = (left[..., 1:] + image[..., 1:-1] + right[..., :-1]) / 3
    expected[..., 0] = (left[..., 0] + image[..., 0]) / 2
    expected[..., -1] = (right[..., -1] + image[..., -1]) / 2
    torch.testing.assert_close(blurry, expected)
    assert torch.equal(valid, torch.ones_like(valid))


def test_reblur_leaves_out_what_no_frame_reaches():
    image, _ = random_case(height=4, width=6)
    displacements = torch.zeros(2, 2, 2, 4, 6, dtype=torch.float64)
    displacements[:, 0, 0], displacements[:, 1, 0] = 2, 3
    blurry, valid = reblur(image, displacements)
    assert valid[0, 0, 0].tolist() == [0, 0, 1, 1, 1, 1]
    assert torch.equal(blurry[..., :2], torch.zeros_like(blurry[..., :2]))
    torch.testing.assert_close(blurry[..., 2], image[..., 0])
    torch.testing.assert_close(blurry[..., 3], (image[..., 0] + image[..., 1]) / 2)


def test_reblur_of_a_still_scene_is_the_scene():
    image, _ = random_case()
    torch.testing.assert_close(reblur(image, torch.zeros(2, 3, 2, 4, 5, dtype=torch.float64))[0], image)


def test_repeats_to_the_bit_whatever_the_threads():
    image, displacement = random_case(batch=4, channels=3, height=64, width=64, reach=10.0)
    image, displacement = image.float().requires_grad_(), displacement.float().requires_grad_()
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            summed, weight = forward_splat(image, displacement)
            gradients = torch.autograd.grad(summed.square().sum(), (image, displacement))
            results.append((summed, weight, *gradients))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_half_precision_images_are_summed_in_float32():
    image = torch.full((1, 1, 1, 1000), 1.0, dtype=torch.bfloat16)
    displacement = torch.zeros(1, 2, 1, 1000)
    displacement[0, 0, 0] = -torch.arange(1000.0)
    summed, weight = forward_splat(image, displacement)
    assert summed.dtype == torch.bfloat16
    assert weight[0, 0, 0, 0] == 1000
    assert summed[0, 0, 0, 0] == torch.tensor(1000.0).bfloat16()
    average, valid = average_splat(image, displacement)
    assert average.dtype == valid.dtype == torch.bfloat16
    assert average[0, 0, 0, 0] == 1


def test_what_is_not_finite_shows():
    image, displacement = random_case()
    displacement[0, 0, 1, 1] = math.nan
    summed, _ = forward_splat(image, displacement)
    assert summed[0].isnan().any()
    assert summed[1].isfinite().all()


def test_huge_displacements_leave_the_frame():
    image = torch.rand(1, 3, 4, 4)
    for far in (1e6, -1e6, 1e30, -1e30):
        summed, weight = forward_splat(image, torch.full((1, 2, 4, 4), far))
        assert not summed.any()
        assert not weight.any()


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 4\) and \(1, 2, 4, 5\)"):
        forward_splat(torch.rand(1, 3, 4, 4), torch.rand(1, 2, 4, 5))
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 4\) and \(2, 2, 4, 4\)"):
        average_splat(torch.rand(1, 3, 4, 4), torch.rand(2, 2, 4, 4))
    with pytest.raises(ValueError, match="B, N, 2, H, W"):
        reblur(torch.rand(1, 3, 4, 4), torch.rand(1, 2, 4, 4))
