import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import deform_conv2d

from deblur_lab.ops import deformable
from deblur_lab.ops.deformable import MotionPlan, deformable_depthwise, kernel_grid, plan_motion


def torchvision_depthwise(
    features: Tensor, displacements: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """torchvision adds the grid itself, with padding 1, and takes y before x."""
    offsets = displacements - kernel_grid().to(displacements).view(1, 9, 2, 1, 1)
    return deform_conv2d(features, offsets.flip(2).flatten(1, 2), weight, bias, padding=1)


def loop_depthwise(features: Tensor, displacements: Tensor, weight: Tensor) -> Tensor:
    """One pixel and kernel point at a time, with the hat function over the whole frame."""
    batch, _, height, width = features.shape
    xs, ys = torch.arange(width, dtype=torch.float64), torch.arange(height, dtype=torch.float64)
    output = torch.zeros_like(features)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                for k in range(9):
                    dx, dy = displacements[b, k, :, y, x].tolist()
                    share_y = (1 - (ys - y - dy).abs()).clamp(min=0)
                    share_x = (1 - (xs - x - dx).abs()).clamp(min=0)
                    looked_up = (features[b] * torch.outer(share_y, share_x)).sum((1, 2))
                    output[b, :, y, x] += looked_up * weight[:, 0, k // 3, k % 3]
    return output


def make_case(
    batch: int = 2,
    channels: int = 5,
    height: int = 6,
    width: int = 7,
    reach: float = 3.0,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    features = draw(batch, channels, height, width).to(dtype).contiguous(memory_format=torch.channels_last)
    grid = kernel_grid().double().view(1, 9, 2, 1, 1)
    # Odd multiples of 1/128: exact in float32 whatever is added to them, and never on the border of a
    # bilinear cell, where torchvision's rounding may pick the derivative of the other side.
    moved = (reach * draw(batch, 9, 2, height, width) * 64).round() / 64 + (1 / 128 if reach else 0)
    displacements = (grid + moved).to(dtype)
    inputs = (features, displacements, draw(channels, 1, 3, 3).to(dtype), draw(channels).to(dtype))
    for tensor in inputs:
        tensor.requires_grad_()
    return inputs


def ours(features: Tensor, displacements: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return deformable_depthwise(features, plan_motion(displacements), weight, bias)


def assert_agrees(inputs: tuple[Tensor, Tensor, Tensor, Tensor], tolerance: float) -> None:
    result, expected = ours(*inputs), torchvision_depthwise(*inputs)
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(result.shape, generator=generator, dtype=torch.float64).to(result)
    mine = (result, *torch.autograd.grad(result, inputs, direction))
    theirs = (expected, *torch.autograd.grad(expected, inputs, direction))
    for name, a, b in zip(
        ("output", "features", "displacements", "weight", "bias"), mine, theirs, strict=True
    ):
        error = (a - b).abs().max().item() / max(b.abs().max().item(), 1.0)
        assert error < tolerance, name


@pytest.mark.parametrize("reach", [0.3, 3.0, 100.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_agrees_with_torchvision_and_all_its_gradients(reach, dtype, tolerance):
    assert_agrees(make_case(reach=reach, dtype=dtype), tolerance)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (2, 3)])
def test_agrees_on_thin_images(height, width):
    assert_agrees(make_case(height=height, width=width, reach=1.5), 1e-12)


@pytest.mark.parametrize("shift", [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
def test_agrees_on_the_border_to_the_pixel(shift):
    # With no random part, the outer kernel points fall exactly on the lines -1 and H, where torchvision's
    # frame ends, and every look-up sits on the border of a bilinear cell.
    features, displacements, weight, bias = make_case(reach=0.0)
    displacements = (displacements.detach() + shift).requires_grad_()
    assert_agrees((features, displacements, weight, bias), 1e-12)


@pytest.mark.parametrize("numbers", [1, 9 * 5 * 8, 9 * 5 * 83])
def test_chunks_change_nothing(monkeypatch, numbers):
    # One pixel a chunk, eight (a short last chunk), and all but one.
    monkeypatch.setattr(deformable, "CHUNK_CPU", numbers)
    assert_agrees(make_case(), 1e-12)


def test_agrees_at_the_size_of_a_network_in_float32():
    assert_agrees(make_case(batch=1, channels=48, height=64, width=64, dtype=torch.float32), 1e-5)


def test_agrees_with_a_loop_over_pixels():
    features, displacements, weight, _ = (tensor.detach() for tensor in make_case(height=4, width=5))
    result = ours(features, displacements, weight, None)
    torch.testing.assert_close(result, loop_depthwise(features, displacements, weight))


def test_the_regular_grid_is_an_ordinary_convolution():
    features, displacements, weight, bias = (tensor.detach() for tensor in make_case(reach=0.0))
    expected = F.conv2d(features, weight, bias, padding=1, groups=5)
    torch.testing.assert_close(ours(features, displacements, weight, bias), expected)


def test_kernel_grid_is_row_by_row_x_then_y():
    assert kernel_grid().tolist() == [[x, y] for y in (-1, 0, 1) for x in (-1, 0, 1)]


def test_gradcheck():
    inputs = make_case(batch=2, channels=2, height=3, width=2, reach=1.0)
    assert torch.autograd.gradcheck(ours, inputs)
    assert torch.autograd.gradcheck(lambda *three: ours(*three, None), inputs[:3])


def test_gradients_come_only_where_asked():
    inputs = make_case()
    full = torch.autograd.grad(ours(*inputs).square().sum(), inputs)
    for position in range(4):
        alone = [tensor.detach() for tensor in inputs]
        alone[position].requires_grad_()
        (gradient,) = torch.autograd.grad(ours(*alone).square().sum(), [alone[position]])
        torch.testing.assert_close(gradient, full[position])


def test_blocks_share_a_plan_and_their_gradients_add_up():
    features, displacements, weight, bias = make_case()
    plan = plan_motion(displacements)
    twice = deformable_depthwise(deformable_depthwise(features, plan, weight, bias).sin(), plan, weight, bias)
    twice.sum().backward()
    mine = displacements.grad
    displacements.grad = None
    once = torchvision_depthwise(features, displacements, weight, bias).sin()
    torchvision_depthwise(once, displacements, weight, bias).sum().backward()
    torch.testing.assert_close(mine, displacements.grad)


def test_the_transposed_plan_is_made_once_and_only_for_gradients(monkeypatch):
    made = []
    original = MotionPlan._transpose
    monkeypatch.setattr(MotionPlan, "_transpose", lambda plan: made.append(plan) or original(plan))
    features, displacements, weight, bias = make_case()
    plan = plan_motion(displacements)
    with torch.no_grad():
        deformable_depthwise(features, plan, weight, bias)
    assert not made
    for _ in range(2):
        deformable_depthwise(features, plan, weight, bias).sum().backward(retain_graph=True)
    assert made == [plan]


def test_the_transposed_plan_holds_the_same_entries():
    _, displacements, _, _ = make_case()
    plan = plan_motion(displacements)
    transposed = plan.transposed()
    looks, point = torch.arange(plan.pixels).view(-1, 1, 1), torch.arange(9).view(1, -1, 1)
    key = plan.index.view(-1, 9, 4).long() * 9 + point
    forward = torch.stack(torch.broadcast_tensors(key, looks, plan.weights.view(-1, 9, 4)), -1)
    row = torch.arange(plan.pixels * 9).repeat_interleave(transposed.bounds.diff())
    backward = torch.stack((row, transposed.source, transposed.weights), -1)
    assert sorted(forward.view(-1, 3).tolist()) == sorted(backward.tolist())


def test_memory_formats():
    features, displacements, weight, bias = make_case()
    rows_first = features.detach().contiguous().requires_grad_()
    expected = ours(features, displacements, weight, bias)
    result = ours(rows_first, displacements, weight, bias)
    assert torch.equal(result, expected)
    assert result.is_contiguous(memory_format=torch.channels_last)
    result.contiguous().square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(rows_first.grad, features.grad)


def test_one_channel():
    assert_agrees(make_case(channels=1), 1e-12)


def test_autocast_keeps_the_type_and_sums_in_float32():
    features, displacements, weight, bias = make_case(channels=16, dtype=torch.float32)
    half = features.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = ours(half, displacements, weight, bias)
        result.float().square().sum().backward()
    assert result.dtype == half.grad.dtype == torch.bfloat16
    assert displacements.grad.dtype == weight.grad.dtype == bias.grad.dtype == torch.float32
    expected = ours(half.detach().float(), displacements, weight, bias)
    # Rounded once, at the end.
    assert torch.equal(result, expected.bfloat16())


def test_displacements_in_half_precision_are_computed_in_float32():
    features, displacements, weight, bias = make_case(dtype=torch.float32)
    half = displacements.detach().bfloat16()
    assert plan_motion(half).weights.dtype == torch.float32
    assert torch.equal(ours(features, half, weight, bias), ours(features, half.float(), weight, bias))


def test_double_features_with_a_float32_plan_are_computed_in_double():
    features, displacements, weight, bias = make_case()
    mixed = ours(features, displacements.detach().float().requires_grad_(), weight, bias)
    exact = ours(features, displacements.detach().float().double(), weight, bias)
    assert mixed.dtype == torch.float64
    torch.testing.assert_close(mixed, exact, rtol=0, atol=1e-5)
    mixed.sum().backward()


def test_repeats_to_the_bit_whatever_the_threads():
    inputs = make_case(batch=2, channels=32, height=24, width=24, dtype=torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            result = ours(*inputs)
            results.append((result, *torch.autograd.grad(result.square().sum(), inputs)))
    finally:
        torch.set_num_threads(threads)
    for mine, again in zip(results[1], results[2], strict=True):
        assert torch.equal(mine, again)
    assert torch.equal(results[0][0], results[1][0])


def test_huge_displacements_look_outside():
    features, _, weight, bias = make_case(dtype=torch.float32)
    for far in (1e6, -1e6, 1e30, -1e30):
        displacements = torch.full((2, 9, 2, 6, 7), far, requires_grad=True)
        result = ours(features, displacements, weight, bias)
        torch.testing.assert_close(result, bias.view(1, -1, 1, 1).expand_as(result))
        (gradient,) = torch.autograd.grad(result.sum(), displacements)
        assert not gradient.any()


def test_what_is_not_finite_shows():
    features, displacements, weight, bias = make_case()
    displacements = displacements.detach().clone()
    displacements[0, 4, 0, 2, 3] = math.nan
    result = ours(features, displacements, weight, bias)
    assert result[0, :, 2, 3].isnan().all()
    assert result.isnan().sum() == features.shape[1]


def test_precision_does_not_fall_with_the_size_of_the_image():
    # At 20,000 pixels a float32 coordinate has steps of 0.002.
    features = torch.arange(20_000.0).view(1, 1, 1, -1) % 7
    displacements = torch.zeros(1, 9, 2, 1, 20_000)
    displacements[:, 4, 0] = 0.1
    weight = torch.zeros(1, 1, 3, 3)
    weight[..., 1, 1] = 1
    result = ours(features, displacements, weight, None)
    expected = features[..., :-1].double() + 0.1 * features.double().diff()
    torch.testing.assert_close(result[..., :-1].double(), expected, rtol=0, atol=1e-6)


def test_other_kernels():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, 3, 5, 6, generator=generator, dtype=torch.float64)
    displacements = torch.randn(1, 25, 2, 5, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, 1, 5, 5, generator=generator, dtype=torch.float64)
    steps = torch.arange(-2, 3, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).view(1, 25, 2, 1, 1)
    expected = deform_conv2d(features, displacements.flip(2).flatten(1, 2), weight, padding=2)
    torch.testing.assert_close(ours(features, grid + displacements, weight, None), expected)


def test_shapes_that_do_not_fit():
    features, displacements, weight, bias = make_case()
    with pytest.raises(ValueError, match="B, K, 2, H, W"):
        plan_motion(displacements.flatten(1, 2))
    plan = plan_motion(displacements)
    with pytest.raises(ValueError, match="plan for 2 images of 6x7 pixels"):
        deformable_depthwise(features[..., :-1], plan, weight, bias)
    with pytest.raises(ValueError, match="5 channels and 9 kernel points"):
        deformable_depthwise(features, plan, weight[:4], bias)
    with pytest.raises(ValueError, match="5 channels and 9 kernel points"):
        deformable_depthwise(features, plan, weight[..., :2], bias)


def test_more_weights_than_an_index_can_count():
    too_many = torch.zeros(1).expand(1, 9, 2, 10_000, 10_000)
    with pytest.raises(ValueError, match="tile the image"):
        plan_motion(too_many)
