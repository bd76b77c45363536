import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from deblur_lab.errors import ConfigurationError
from deblur_lab.models import NAFBlock, NAFNet, UFPNet, motion_flow

from .made_up import as_published, fill, image, made_up_ufpnet

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def net() -> UFPNet:
    return made_up_ufpnet(8, [1, 1, 1, 2], 1, [1, 1, 1, 1]).requires_grad_(False)


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "ufpnet_golden.npz") as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_keys_and_shapes_are_the_published_ones():
    with torch.device("meta"):
        net = UFPNet()
    published = json.loads((GOLDEN / "ufpnet_w64_keys.json").read_text())
    state = net.state_dict()
    assert {as_published(key): list(tensor.shape) for key, tensor in state.items()} == published
    assert len(state) == 852
    parts = {name: _count(part) for name, part in net.named_children()}
    assert _count(net) == sum(parts.values()) == 80_343_663
    assert parts["kernel_extra"] == 5_619_858
    assert parts["flow"] == 194_470
    encoder = ("intro", "encoders", "downs", "middle_blks", "kernel_down")
    assert sum(parts[name] for name in encoder) == pytest.approx(69.3e6, rel=1e-3)


def _count(part):
    return sum(parameter.numel() for parameter in part.parameters())


def test_kernels_and_output_are_the_published_ones(net, golden):
    blurry = image(1, 1, 3, 32, 48)
    kernels = net.kernels(blurry).permute(0, 2, 3, 1).reshape(1, -1, 19, 19)[:, ::97]
    torch.testing.assert_close(kernels, golden["kernel"], atol=1e-4, rtol=0)
    torch.testing.assert_close(net(blurry), golden["out"], atol=1e-4, rtol=0)


@pytest.fixture
def small() -> UFPNet:
    """Two scales, kernels of 25 entries."""
    return made_up_ufpnet(4, [1, 1], 1, [1, 1], kernel_size_px=5, estimator_width=4)


def test_evaluation_is_deterministic_and_without_noise(net, small):
    blurry = image(2, 1, 3, 16, 16)
    assert torch.equal(small(blurry), small(blurry))
    assert torch.equal(small(blurry, torch.tensor([3])), small(blurry))
    assert net.code_noise is False


def test_code_noise_in_evaluation_is_of_the_global_generator(small):
    blurry = image(3, 1, 3, 16, 16)
    without = small.kernels(blurry)
    small.code_noise = True
    torch.manual_seed(0)
    first, second = small.kernels(blurry), small.kernels(blurry)
    torch.manual_seed(0)
    assert torch.equal(small.kernels(blurry), first)
    assert (first - second).abs().max() > 0.01
    assert (first - without).abs().max() > 0.01


def test_noise_in_training_is_of_the_samples_seeds_alone(small):
    small.train()
    blurry, seeds = image(4, 2, 3, 16, 16), torch.tensor([5, 2**40 + 5])
    together = small.kernels(blurry, seeds)
    torch.manual_seed(1)
    for index in range(2):
        alone = small.kernels(blurry[index : index + 1], seeds[index : index + 1])
        torch.testing.assert_close(alone, together[index : index + 1], atol=1e-5, rtol=0)
    swapped = small.kernels(blurry, seeds.flip(0))
    assert (swapped - together).abs().max() > 0.01
    without = small.kernels(blurry)
    assert torch.equal(small.kernels(blurry), without)
    assert (without - together).abs().max() > 0.01
    with torch.no_grad():
        torch.testing.assert_close(small.kernels(blurry, seeds), together)


def test_noise_is_mixed_as_the_doubt_says(small, monkeypatch):
    blurry = image(5, 1, 3, 8, 8)
    code, sigma = small.kernel_code(blurry)
    torch.testing.assert_close(code.mean(1), torch.zeros(1, 8, 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(code.std(1), torch.ones(1, 8, 8), atol=1e-5, rtol=0)
    noise = image(6, 64, 25)
    monkeypatch.setattr(torch, "randn_like", lambda _: noise)
    small.code_noise = True
    mixed = code * (1 - sigma**2).sqrt() + noise.T.reshape(1, 25, 8, 8) * sigma
    expected = small.flow.decode(mixed.permute(0, 2, 3, 1).reshape(-1, 25)).view(1, 8, 8, 25)
    torch.testing.assert_close(small.kernels(blurry), expected.permute(0, 3, 1, 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("seeds", [None, torch.tensor([7, 8])])
def test_kernels_are_the_same_in_pieces_and_with_gradients(small, monkeypatch, seeds):
    blurry = image(7, 2, 3, 12, 16)
    small.train(seeds is not None)
    small.flow.eval()
    whole = small.kernels(blurry, seeds)
    assert whole.requires_grad
    monkeypatch.setitem(motion_flow.PIXELS_AT_ONCE, "cpu", 48)
    torch.testing.assert_close(small.kernels(blurry, seeds), whole, atol=1e-5, rtol=0)
    small.flow.requires_grad_(False)
    torch.testing.assert_close(small.kernels(blurry, seeds), whole, atol=1e-5, rtol=0)
    for without in (torch.no_grad(), torch.inference_mode()):
        with without:
            torch.testing.assert_close(small.kernels(blurry, seeds), whole, atol=1e-5, rtol=0)
    small.requires_grad_(False)
    torch.testing.assert_close(small.kernels(blurry, seeds), whole, atol=1e-5, rtol=0)


class Large(TorchDispatchMode):
    """Counts the tensors of at least so many numbers that get memory of their own."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.numbers = numbers
        self.kept: dict[int, torch.Tensor] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.numel() >= self.numbers:
            self.kept[result.untyped_storage().data_ptr()] = result  # and is never given to another
        return result


@pytest.mark.parametrize("autocast", [False, True])
def test_without_gradients_kernels_take_the_place_of_what_they_come_from(small, monkeypatch, autocast):
    monkeypatch.setitem(motion_flow.PIXELS_AT_ONCE, "cpu", 64)
    padded = small.pad(image(8, 1, 3, 32, 32))
    with (
        torch.no_grad(),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        Large(32 * 32 * 25) as large,
    ):
        kernels = small._kernels(padded, None)
    assert len(large.kept) <= 2, "the doubt and the logits"
    assert kernels.is_contiguous(memory_format=torch.channels_last)
    assert kernels.dtype == (torch.bfloat16 if autocast else torch.float32)


def test_estimator_and_flow_run_once_a_picture(small):
    calls = []
    small.kernel_extra.Conv_mid.register_forward_hook(lambda *_: calls.append("estimator"))
    with torch.no_grad():
        folded = small.flow.folded()
        small(image(9, 1, 3, 16, 16))
    assert calls == ["estimator"]
    with torch.no_grad():
        assert small.flow.folded() is folded


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 16), (17, 33)])
@pytest.mark.parametrize("tlc", [None, 8])
def test_any_size_is_that_of_the_padded_picture(net, size, tlc):
    blurry = image(10, 2, 3, *size)
    padded = net.pad(blurry)
    assert padded.shape[-2:] == tuple(side + -side % 16 for side in size)
    net.set_tlc(tlc)
    restored, restored_padded = net(blurry), net(padded)
    net.set_tlc(None)
    assert restored.shape == blurry.shape
    torch.testing.assert_close(restored, restored_padded[..., : size[0], : size[1]], atol=1e-5, rtol=1e-5)
    assert net.kernels(blurry).shape == (2, 361, *size)
    assert [part.shape[-2:] for part in net.kernel_code(blurry)] == [size, size]


def test_padding_reflects_or_where_that_is_impossible_repeats(small):
    blurry = image(11, 1, 3, 6, 9)
    padded = small.pad(blurry)
    assert torch.equal(padded, F.pad(blurry, (0, 3, 0, 2), mode="reflect"))
    blurry = image(12, 1, 3, 1, 5)
    expected = F.pad(F.pad(blurry, (0, 3, 0, 0), mode="reflect"), (0, 0, 0, 3), mode="replicate")
    assert torch.equal(small.pad(blurry), expected)


def test_nets_of_a_single_scale_pad_to_what_the_estimator_needs():
    net = made_up_ufpnet(4, [1], 1, [1], kernel_size_px=3, estimator_width=2)
    assert net.pad(image(13, 1, 3, 5, 6)).shape == (1, 3, 8, 8)
    assert net(image(13, 1, 3, 5, 6)).shape == (1, 3, 5, 6)


def test_tlc_changes_pictures_beyond_its_window_alone(net):
    large, little = image(14, 1, 3, 48, 64), image(15, 1, 3, 16, 32)
    without = net(large), net(little)
    net.set_tlc(32)
    converted = net(large), net(little)
    net.set_tlc(None)
    assert (without[0] - converted[0]).abs().max() > 1e-3
    torch.testing.assert_close(converted[1], without[1])


def test_every_block_sees_channels_last(net):
    layouts = []
    hooks = [
        module.register_forward_pre_hook(
            lambda _, inputs: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
        )
        for module in net.modules()
        if isinstance(module, NAFBlock | torch.nn.Conv2d | torch.nn.ConvTranspose2d)
    ]
    net(image(16, 1, 3, 32, 48))
    for hook in hooks:
        hook.remove()
    assert len(layouts) > 100
    assert all(layouts)


def test_clamped_in_evaluation_alone(small):
    with torch.no_grad():
        small.ending.bias += 5
    blurry = image(17, 1, 3, 8, 8)
    assert small(blurry).max() == 1
    assert small.train()(blurry).min() > 1


def test_a_new_net_returns_its_input():
    torch.manual_seed(0)
    net = UFPNet(4, [1, 2], 1, [1, 1], kernel_size_px=5, estimator_width=4)
    blurry = image(18, 2, 3, 8, 12)
    torch.testing.assert_close(net(blurry), blurry)
    torch.testing.assert_close(net.eval()(blurry), blurry)


def test_gradients_reach_every_parameter_that_wants_them():
    net = made_up_ufpnet(4, [1, 2, 1, 1], 1, [1, 1, 1, 1], kernel_size_px=5, estimator_width=4).train()
    net(image(19, 2, 3, 16, 16)).square().mean().backward()
    for name, parameter in net.named_parameters():
        if name.startswith("kernel_down.3"):
            assert not parameter.requires_grad, "which nothing reads"
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_with_a_frozen_prior_the_rest_learns(small):
    small.train()
    for part in (small.kernel_extra, small.flow):
        part.eval().requires_grad_(False)
    before = {key: value.clone() for key, value in small.state_dict().items()}
    small(image(20, 2, 3, 16, 16)).square().mean().backward()
    assert small.encoders[0][0].kernel_attention.conv_kernel[0].weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in small.kernel_extra.parameters())
    assert all(torch.equal(value, before[key]) for key, value in small.state_dict().items())


def test_a_pixel_without_a_preference_has_a_code_of_zeros(small):
    with torch.no_grad():
        for parameter in small.kernel_extra.Conv_tail["mean"][-1].parameters():
            parameter.zero_()
    blurry = image(21, 1, 3, 8, 8)
    assert small.kernel_code(blurry)[0].abs().max() == 0
    small.kernels(blurry).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in small.kernel_extra.parameters())


def test_bfloat16_autocast_is_close_to_float32(net):
    blurry = image(22, 1, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        restored, kernels = net(blurry), net.kernels(blurry)
        code, sigma = net.kernel_code(blurry)
    assert restored.dtype == kernels.dtype == code.dtype == sigma.dtype == torch.float32
    expected = net(blurry)
    assert (restored - expected).norm() < 0.1 * (expected - blurry).norm()


@pytest.mark.parametrize("kind", [NAFNet, UFPNet])
def test_an_encoder_needs_no_decoder(kind):
    torch.manual_seed(0)
    net = kind(4, [1, 2], 1, [1, 1]).eval()
    fill(net)
    padded = net.pad(image(23, 1, 3, 30, 44))
    net.set_tlc(8)
    features, skips = net.encode(padded)
    assert features.shape == (1, 16, 8, 11)
    assert [skip.shape for skip in skips] == [(1, 4, 32, 44), (1, 8, 16, 22)]
    net.set_tlc(None)
    net.drop_decoder()
    assert not [key for key in net.state_dict() if key.startswith(("ups", "decoders", "ending"))]
    assert net.width == 4
    net.set_tlc(8)
    again, skips_again = net.encode(padded)
    for found, expected in zip([again, *skips_again], [features, *skips], strict=True):
        assert torch.equal(found, expected)
    assert net.middle_blks(again).shape == features.shape


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"encoder_blocks": [2, 2], "decoder_blocks": [1, 1]}, r"encoder_blocks is \[2, 2\]"),
        ({"kernel_size_px": 4}, "kernel_size_px is 4"),
        ({"estimator_width": 0}, "estimator_width is 0"),
        ({"width": 0}, "width is 0"),
    ],
)
def test_impossible_settings_are_refused(settings, named):
    with pytest.raises(ConfigurationError, match=named):
        UFPNet(**{"width": 4, "encoder_blocks": [1], "decoder_blocks": [1], **settings})
