import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deblur_lab.errors import ConfigurationError
from deblur_lab.models import NAFBlock, NAFNet

from .made_up import fill, image

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def net() -> NAFNet:
    net = NAFNet(8, [1, 1, 1, 2], 1, [1, 1, 1, 1]).eval()
    fill(net)
    return net.requires_grad_(False)


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "nafnet_golden.npz") as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_keys_and_shapes_are_the_published_ones():
    with torch.device("meta"):
        state = NAFNet().state_dict()
    published = json.loads((GOLDEN / "nafnet_w32_keys.json").read_text())
    assert {key: list(tensor.shape) for key, tensor in state.items()} == published
    assert sum(tensor.numel() for tensor in state.values()) == 17_111_907


def test_output_is_the_published_one(net, golden):
    torch.testing.assert_close(net(image(1, 1, 3, 50, 70)), golden["plain"], atol=1e-4, rtol=0)


def test_output_with_tlc_is_the_published_one(net, golden):
    blurry = image(2, 1, 3, 96, 160)
    without = net(blurry)
    net.set_tlc(32)
    converted = net(blurry)
    net.set_tlc(None)
    torch.testing.assert_close(converted, golden["tlc"], atol=1e-4, rtol=0)
    assert (without - converted).abs().max() > 0.1
    assert torch.equal(net(blurry), without), "None turns the converter off again"


def test_tlc_changes_nothing_in_pictures_within_its_window(net):
    blurry = image(3, 1, 3, 40, 48)
    without = net(blurry)
    net.set_tlc(32)
    converted = net(blurry)
    net.set_tlc(None)
    torch.testing.assert_close(converted, without)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 16), (17, 33)])
@pytest.mark.parametrize("tlc", [None, 8])
def test_any_size_is_that_of_the_zero_padded_picture(net, size, tlc):
    blurry = image(4, 2, 3, *size)
    padded = F.pad(blurry, (0, -size[1] % 16, 0, -size[0] % 16))
    net.set_tlc(tlc)
    restored, restored_padded = net(blurry), net(padded)
    net.set_tlc(None)
    assert restored.shape == blurry.shape
    torch.testing.assert_close(restored, restored_padded[..., : size[0], : size[1]], atol=1e-5, rtol=1e-5)


def test_every_block_sees_channels_last(net):
    layouts = []
    hooks = [
        module.register_forward_pre_hook(
            lambda _, inputs: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
        )
        for module in net.modules()
        if isinstance(module, NAFBlock | torch.nn.Conv2d)
    ]
    net(image(5, 1, 3, 32, 48))
    for hook in hooks:
        hook.remove()
    assert len(layouts) > 60
    assert all(layouts)


def test_gradients_reach_every_parameter():
    net = NAFNet(4, [1, 1], 1, [1, 1])
    fill(net)
    net(image(6, 2, 3, 12, 12)).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_bfloat16_autocast_is_close_to_float32(net):
    blurry = image(7, 1, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        restored = net(blurry)
    assert restored.dtype == torch.float32
    expected = net(blurry)
    assert (restored - expected).norm() < 0.05 * (expected - blurry).norm()


def test_stages_without_blocks():
    assert NAFNet(4, [0, 1], 0, [1, 0])(image(8, 1, 3, 9, 9)).shape == (1, 3, 9, 9)


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ((0, [1], 1, [1]), "width"),
        ((8, [1, 1], 1, [1]), "decoder_blocks"),
        ((8, [], 1, []), "encoder_blocks"),
        ((8, [1, -1], 1, [1, 1]), "-1"),
    ],
)
def test_impossible_sizes_are_refused(sizes, named):
    with pytest.raises(ConfigurationError, match=named):
        NAFNet(*sizes)
