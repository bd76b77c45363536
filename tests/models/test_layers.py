import pytest
import torch
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError
from deblur_lab.models.layers import (
    AveragePool,
    LayerNorm2d,
    NAFBlock,
    local_average,
    set_windows,
    tlc_windows_px,
)

from .made_up import fill, image


def normalised(features: Tensor, norm: LayerNorm2d) -> Tensor:
    """The formula, in float64."""
    features = features.double()
    centred = features - features.mean(1, keepdim=True)
    deviation = (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    weight, bias = (parameter.double()[:, None, None] for parameter in (norm.weight, norm.bias))
    return centred / deviation * weight + bias


@pytest.mark.parametrize("shape", [(2, 8, 5, 7), (1, 3, 1, 1), (3, 1, 4, 4)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_layer_norm_is_its_formula(shape, memory_format):
    norm = LayerNorm2d(shape[1])
    fill(norm)
    features = image(0, *shape).contiguous(memory_format=memory_format)
    torch.testing.assert_close(norm(features).double(), normalised(features, norm), atol=1e-5, rtol=1e-5)
    assert norm(features).is_contiguous(memory_format=torch.channels_last)


def test_layer_norm_gradients():
    norm = LayerNorm2d(6).double()
    features = image(1, 2, 6, 3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: norm(x), features)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layer_norm_takes_statistics_in_float32(dtype):
    # A mean of 64 leaves bfloat16 steps of 0.5: statistics taken in it would be off by as much.
    features = (64 + torch.randn(1, 64, 4, 4, generator=torch.Generator().manual_seed(0))).to(dtype)
    norm = LayerNorm2d(64)
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(features)
    torch.testing.assert_close(found.double(), normalised(features, norm), atol=0.02, rtol=0.01)


def brute_average(features: Tensor, window_px: int) -> Tensor:
    """The definition, pixel by pixel: the whole window nearest to one centred here."""
    height, width = features.shape[-2:]
    rows, columns = min(window_px, height), min(window_px, width)
    means = torch.empty_like(features)
    for y in range(height):
        for x in range(width):
            top = min(max(y - (rows - 1) // 2, 0), height - rows)
            left = min(max(x - (columns - 1) // 2, 0), width - columns)
            means[..., y, x] = features[..., top : top + rows, left : left + columns].mean((-2, -1))
    return means


@pytest.mark.parametrize(
    ("height", "width", "window_px"), [(9, 12, 5), (9, 12, 4), (9, 12, 1), (6, 20, 8), (20, 6, 7), (3, 4, 9)]
)
def test_local_average_is_its_definition(height, width, window_px):
    features = image(2, 2, 3, height, width).double()
    torch.testing.assert_close(local_average(features, window_px), brute_average(features, window_px))


def test_local_average_of_a_large_picture_is_exact_to_float32():
    # The sum over this picture is 3e7: what float32 keeps of it is multiples of 2, of a window's 1500.
    picture = 10 + image(3, 1, 1, 1500, 2000)
    exact = local_average(picture.double(), 12)
    assert (local_average(picture, 12) - exact).abs().max() < 5e-6
    table = torch.nn.functional.pad(picture.cumsum(2).cumsum(3), (1, 0, 1, 0))[0, 0]
    corner = (table[-1, -1] - table[-13, -1] - table[-1, -13] + table[-13, -13]) / 144
    assert (corner - exact[0, 0, -1, -1]).abs() > 1e-3, "the table is exact too: is this test needed?"


def test_local_average_has_gradients():
    features = image(4, 1, 2, 5, 6).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: local_average(x, 3), features)


def test_pool_is_global_without_a_window_or_in_a_small_picture():
    pool = AveragePool()
    features = image(5, 2, 4, 6, 8)
    whole = features.mean((2, 3), keepdim=True)
    torch.testing.assert_close(pool(features), whole)
    set_windows([nn.Sequential(pool)], 8)
    torch.testing.assert_close(pool(features), whole)
    set_windows([nn.Sequential(pool)], 7)
    assert pool(features).shape == features.shape


def test_pool_averages_bfloat16_in_float32():
    # A sum of ones that is kept in bfloat16 stops growing at 256.
    features = torch.ones(1, 1, 40, 40, dtype=torch.bfloat16)
    assert AveragePool()(features).item() == 1
    assert AveragePool()(features).dtype == torch.float32
    pool = AveragePool()
    pool.window_px = 30
    torch.testing.assert_close(pool(features), torch.ones(1, 1, 40, 40))


def test_tlc_windows_by_hand():
    assert tlc_windows_px(256, 4) == [384, 192, 96, 48, 24]
    assert tlc_windows_px(32, 4) == [48, 24, 12, 6, 3]
    assert tlc_windows_px(100, 4) == [168, 84, 42, 21, 10]  # padded to 112, 56, 28, 14, 7


@pytest.mark.parametrize("train_size_px", [0, -4])
def test_tlc_window_of_nothing_is_refused(train_size_px):
    with pytest.raises(ConfigurationError, match="train_size_px"):
        tlc_windows_px(train_size_px, 4)


def test_a_new_block_is_the_identity():
    features = image(6, 1, 4, 5, 6)
    assert torch.equal(NAFBlock(4)(features), features)
