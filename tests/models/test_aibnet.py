import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError
from deblur_lab.models import (
    SFEM,
    TKSA,
    TTSA,
    AIBNet,
    DifferentialAttention,
    DownwardFusion,
    FrequencySelection,
    HFSBlock,
    NAFNet,
    PredictedTopKAttention,
    SFDHBlock,
    SupervisedAttention,
    TopKAttention,
    UFPNet,
)
from deblur_lab.multiply_adds import counted

from .made_up import fill, image

BATCH_NORM = ("running_mean", "running_var", "num_batches_tracked")


def small(sub_decoders: int = 2, blocks: int = 1, levels: int = 2, **settings: object) -> AIBNet:
    """Over a NAFNet of width 8; weights in which every part matters, and activations stay in range."""
    torch.manual_seed(0)
    net = AIBNet(NAFNet(8, [1] * levels, 1, [1] * levels), sub_decoders, blocks, **settings)
    for name, parameter in net.named_parameters():
        if name.endswith((".beta", ".gamma")) and parameter.dim() == 4:
            nn.init.normal_(parameter, std=0.5)
        if ".ending." in name:
            nn.init.normal_(parameter, std=0.1)
    return net


def freeze(part: nn.Module) -> None:
    part.requires_grad_(False).eval()


def train_last(net: AIBNet) -> AIBNet:
    """Freeze all but the last sub-decoder, as progressive training does."""
    net.train()
    for part in (net.encoder, *net.sub_decoders[:-1]):
        freeze(part)
    return net


def saved_bytes(net: AIBNet, blurry: Tensor) -> int:
    """Of what is kept for the way back, without weights."""
    weights = {weight.untyped_storage().data_ptr() for weight in net.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        restored = net(blurry)
    assert restored.requires_grad == (len(kept) > 0)
    return sum(kept.values())


# What the paper prints


@pytest.fixture(scope="module")
def full_size() -> AIBNet:
    with torch.device("meta"):
        return AIBNet(UFPNet(), sub_decoders=4)


def parameters(part: nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


def test_parameters_are_those_of_tables_6_and_7(full_size):
    assert parameters(full_size.sub_decoders[0]) == 41_001_719
    assert parameters(full_size.sub_decoders[0]) == pytest.approx(41.0e6, rel=0.01)
    assert sum(parameters(decoder) for decoder in full_size.sub_decoders[1:]) == pytest.approx(
        122.01e6, rel=0.01
    )


def test_multiply_adds_are_those_of_tables_7_and_10(full_size):
    """At 256x256, of the sub-decoders alone; products of attentions are counted apart."""
    picture = torch.empty(1, 3, 256, 256, device="meta")
    skips = [torch.empty(1, 64 << level, 256 >> level, 256 >> level, device="meta") for level in range(4)]
    deepest = torch.empty(1, 1024, 16, 16, device="meta")
    decoder = full_size.sub_decoders[0]
    with torch.no_grad():
        _, found = counted(lambda: decoder.residual(decoder(deepest, skips, picture)))
    assert found["convolution"] == pytest.approx(113.9e9, rel=0.01)
    assert found["convolution"] == 113_872_440_832
    # Five products of C x C x P in a block's two attentions and one application: 3; in HFSBlock's: 2.
    assert found["attention product"] == 4 * 64**2 * 256**2 * (8 * 3 + 2)
    assert set(found) == {"convolution", "attention product"}


# What it computes


def test_a_new_net_returns_its_input():
    net = AIBNet(NAFNet(8, [1, 1], 1, [1, 1]), 2, 1)
    blurry = image(1, 2, 3, 13, 18)
    assert all(torch.equal(restored, blurry) for restored in net.restorations(blurry))


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 16), (17, 33)])
def test_any_size_is_that_of_the_padded_picture(size):
    net = small().eval()
    blurry = image(2, 2, 3, *size)
    padded = F.pad(blurry, (0, -size[1] % 4, 0, -size[0] % 4))
    restored = net(blurry)
    assert restored.shape == blurry.shape
    expected = net(padded)[..., : size[0], : size[1]]
    torch.testing.assert_close(restored, expected, atol=1e-4, rtol=1e-4)


def test_sfdh_block_is_equation_1():
    block = SFDHBlock(8, SFEM(8, 1))
    assert block.weight.eq(1).all()
    fill(block)
    nn.init.constant_(block.spatial.logits.beta, 2)
    features = image(3, 2, 8, 6, 5)

    def normed(given, norm):
        scaled = F.layer_norm(given.movedim(1, -1), (8,), norm.weight, norm.bias, 1e-6)
        return scaled.movedim(-1, 1)

    def gated(given):
        return given[:, :8] * given[:, 8:]

    mixed = gated(block.conv2(block.conv1(normed(features, block.norm1))))
    attended = block.conv3(mixed * block.sca[1](mixed.mean((2, 3), keepdim=True)))
    middle = features + attended + block.weight * block.spatial(normed(features, block.norm1))
    mixed = gated(block.conv5(block.conv4(normed(middle, block.norm2))))
    torch.testing.assert_close(block(features), middle + block.conv6(mixed))


def test_later_sub_decoders_take_the_features_of_those_before():
    net = small(3).eval()
    blurry = image(4, 1, 3, 12, 16)
    padded = net.encoder.pad(blurry)
    deepest, skips = net.encoder.encode(padded)
    deepest = net.encoder.middle_blks(deepest)
    restored = []
    for decoder in net.sub_decoders:
        found, features = [], deepest
        for up, blocks, frequency, skip in zip(
            decoder.ups, decoder.decoders, decoder.frequencies, reversed(skips), strict=True
        ):
            features = frequency(blocks[0](up(features) + skip))
            found.append(features)
        skips = found[::-1]
        restored.append(blurry + decoder.ending(features))
    for found, expected in zip(net.restorations(blurry), restored, strict=True):
        torch.testing.assert_close(found, expected)
    assert torch.equal(net(blurry), net.restorations(blurry)[-1])
    assert (restored[0] - restored[1]).abs().max() > 1e-3


def test_alpha_starts_by_depth():
    net = AIBNet(NAFNet(8, [1, 1], 1, [1, 1]), 2, 3, DifferentialAttention(heads=2), None)
    for decoder in net.sub_decoders:
        depths = [block.spatial.alpha.alpha_init for blocks in decoder.decoders for block in blocks]
        assert depths == sorted(set(depths))
        assert len(depths) == 6
        assert depths[0] == pytest.approx(0.2)
    fixed = AIBNet(NAFNet(8, [1], 1, [1]), 1, 2, DifferentialAttention(alpha_init=0.7))
    assert {block.spatial.alpha.alpha_init for block in fixed.sub_decoders[0].decoders[0]} == {0.7}


def test_state_dict_is_of_an_encoder_without_decoder_and_sub_decoders():
    net = small()
    assert {key.split(".")[0] for key in net.state_dict()} == {"encoder", "sub_decoders"}
    assert {key.split(".")[1] for key in net.state_dict() if key.startswith("encoder")} == {
        "intro", "encoders", "downs", "middle_blks",
    }  # fmt: skip
    one = small(1).state_dict()
    assert set(one) < set(net.state_dict()), "an S is the start of a B"


def test_a_ufpnet_as_encoder():
    torch.manual_seed(0)
    net = AIBNet(UFPNet(8, [1, 1], 1, [1, 1], kernel_size_px=5, estimator_width=8), 1, 1)
    nn.init.normal_(net.sub_decoders[0].ending.weight, std=0.1)
    for name, parameter in net.encoder.named_parameters():
        if name.endswith("beta"):  # at zero, kernels would change nothing
            nn.init.ones_(parameter)
    blurry = image(5, 2, 3, 12, 16)
    seeds = torch.tensor([1, 2])
    net.eval()
    assert torch.equal(net(blurry), net(blurry))
    assert net(blurry, seeds).shape == blurry.shape
    assert torch.equal(net(blurry, seeds), net(blurry)), "no noise in evaluation"
    net.encoder.train()  # alone: batch norms elsewhere would tell one batch from another as well
    noisy = net(blurry, seeds)
    assert torch.isfinite(noisy).all()
    assert torch.equal(noisy, net(blurry, seeds))
    assert not torch.equal(noisy, net(blurry, seeds + 1))
    assert not torch.equal(noisy, net(blurry))


def test_tlc_reaches_every_scale_of_every_sub_decoder():
    net = small().eval()
    blurry = image(6, 1, 3, 48, 64)
    without = net(blurry)
    net.set_tlc(16)
    windows = [block.sca[0].window_px for d in net.sub_decoders for blocks in d.decoders for block in blocks]
    assert windows == [12, 24, 12, 24]
    assert not torch.allclose(net(blurry), without, atol=1e-4)
    net.set_tlc(None)
    assert torch.equal(net(blurry), without)


def test_every_block_sees_channels_last():
    net = small().train()
    layouts = []
    for module in net.modules():
        if isinstance(module, SFDHBlock | HFSBlock | nn.Conv2d):
            module.register_forward_pre_hook(
                lambda _, inputs: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
            )
    net(image(7, 2, 3, 16, 24))
    assert len(layouts) > 40
    assert all(layouts)


def test_gradients_reach_every_parameter():
    net = small(2)
    sum(restored.square().mean() for restored in net.restorations(image(8, 2, 3, 12, 12))).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"sub_decoders": 0}, "sub_decoders is 0"), ({"blocks": -1}, "blocks is -1")],
)
def test_impossible_sizes_are_refused(settings, named):
    with pytest.raises(ConfigurationError, match=named):
        AIBNet(NAFNet(8, [1], 1, [1]), **settings)


@pytest.mark.parametrize("place", ["spatial", "frequency", "fusion"])
def test_what_makes_no_parts_is_refused(place):
    with pytest.raises(ConfigurationError, match=f"{place} is a SFDHBlock"):
        AIBNet(NAFNet(8, [1], 1, [1]), **{place: SFDHBlock(8, None)})


def test_a_width_that_the_decoupler_cannot_share_out_is_refused():
    with pytest.raises(ConfigurationError, match="8 groups, but 4 channels"):
        AIBNet(NAFNet(4, [1], 1, [1]))


# Ablations


@pytest.mark.parametrize(
    ("settings", "spatial", "frequency"),
    [
        ({"spatial": None}, type(None), HFSBlock),
        ({"frequency": None}, SFEM, None),
        ({"frequency": FrequencySelection(0)}, SFEM, HFSBlock),
        ({"frequency": FrequencySelection(5, masked_as="zero")}, SFEM, HFSBlock),
        ({"frequency": DifferentialAttention()}, SFEM, SFEM),
        ({"spatial": FrequencySelection()}, HFSBlock, HFSBlock),
        ({"frequency": TopKAttention()}, SFEM, TKSA),
        ({"frequency": PredictedTopKAttention()}, SFEM, TTSA),
        ({"fusion": SupervisedAttention()}, SFEM, HFSBlock),
        ({"fusion": DownwardFusion()}, SFEM, HFSBlock),
        ({"blocks": 0}, None, HFSBlock),
    ],
)
def test_parts_can_be_exchanged(settings, spatial, frequency):
    net = small(**settings)
    restored = net(image(9, 2, 3, 12, 12))
    restored.square().mean().backward()
    for number, decoder in enumerate(net.sub_decoders):
        assert {type(block.spatial) for blocks in decoder.decoders for block in blocks} == (
            set() if spatial is None else {spatial}
        )
        assert {type(part) for part in decoder.frequencies} == (set() if frequency is None else {frequency})
        assert (decoder.fusion is not None) == (number > 0 and "fusion" in settings)
    for name, parameter in net.sub_decoders[1].named_parameters():
        assert parameter.grad.abs().max() > 0, name
    assert len(net.inspect(image(9, 1, 3, 12, 12)).maps) == 2


# Looking inside


def test_inspection_tells_what_forward_computes():
    net = small(2, blocks=2).eval()
    blurry = image(10, 2, 3, 12, 16)
    found = net.inspect(blurry, every=True)
    for one, other in zip(found.restorations, net.restorations(blurry), strict=True):
        assert torch.equal(one, other)
    for decoder, scales in zip(net.sub_decoders, found.maps, strict=True):
        for level, maps in enumerate(scales):
            shape = (2, 8 << level, 12 >> level, 16 >> level)
            assert {tuple(maps[i].shape) for i in range(5)} == {shape}
            block, frequency = decoder.decoders[1 - level][-1], decoder.frequencies[1 - level]
            middle = maps.before + maps.sca + maps.sfem
            mixed = block.conv6(block.gate(block.conv5(block.conv4(block.norm2(middle)))))
            torch.testing.assert_close(maps.before_hfs, middle + mixed)
            assert torch.equal(maps.after_hfs, frequency(maps.before_hfs))
            assert maps.kept.attention.shape == maps.kept.entries.shape == (2, 4)
            assert (maps.kept.attention >= maps.kept.entries - 1e-6).all(), "the largest are kept"
            assert torch.equal(maps.kept.weights, frequency.selection.weights)
    restored = blurry + net.sub_decoders[-1].ending(found.maps[-1][0].after_hfs)
    torch.testing.assert_close(found.restorations[-1], restored)
    little = net.inspect(blurry).maps
    assert torch.equal(little[1][0].after_hfs, found.maps[1][0].after_hfs)
    assert torch.equal(little[0][1].kept.attention, found.maps[0][1].kept.attention)
    assert little[0][1][:5] == (None,) * 5


# Precision


def test_pictures_of_large_contrast_train_in_bfloat16():
    net = small(2, levels=3).train()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    blurry = 100 * (image(11, 2, 3, 64, 64) > 0.5).float()
    sharp = 100 * (image(12, 2, 3, 64, 64) > 0.5).float()
    losses = []
    for _ in range(4):
        with torch.autocast("cpu", torch.bfloat16):
            restored = net(blurry)
        loss = (restored - sharp).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(weight.grad.isfinite().all() for weight in net.parameters() if weight.grad is not None)
        optimizer.step()
        losses.append(loss.item())
    assert restored.dtype == torch.float32
    assert all(weight.isfinite().all() for weight in net.parameters())
    assert losses[-1] < losses[0]


def test_bfloat16_autocast_is_close_to_float32():
    """With products that are normalised: of others, softmax picks one, and rounding another."""
    parts = {
        "spatial": DifferentialAttention(normalize=True),
        "frequency": FrequencySelection(0, normalize=True),
    }
    net = small(1, **parts).eval()
    blurry = image(13, 1, 3, 32, 32)
    expected = net(blurry)
    with torch.autocast("cpu", torch.bfloat16):
        restored = net(blurry)
    assert restored.dtype == torch.float32
    assert (restored - expected).norm() < 0.05 * (expected - blurry).norm()


# Progressive training


def test_nothing_is_kept_of_frozen_sub_decoders():
    blurry = image(14, 2, 3, 16, 16)
    kept = [saved_bytes(train_last(small(count)), blurry) for count in (1, 2, 4)]
    assert kept[0] == kept[1] == kept[2] > 0
    assert saved_bytes(small(4).train(), blurry) > 3 * kept[0]
    frozen = small(2)
    freeze(frozen)
    assert saved_bytes(frozen, blurry) == 0


def test_frozen_parts_stay_bit_by_bit():
    net = train_last(small(3))
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    optimizer = torch.optim.Adam([weight for weight in net.parameters() if weight.requires_grad], 1e-2)
    (net(image(15, 2, 3, 16, 16)) - image(16, 2, 3, 16, 16)).abs().mean().backward()
    optimizer.step()
    for key, tensor in net.state_dict().items():
        moved = not torch.equal(tensor, before[key])
        assert moved == key.startswith("sub_decoders.2."), key
    assert any(key.endswith(BATCH_NORM) for key in before if key.startswith("sub_decoders.0."))


def test_gradients_pass_through_frozen_sub_decoders_to_an_encoder_that_is_trained():
    net = small(2)
    freeze(net.sub_decoders[0])
    blurry = image(17, 2, 3, 12, 12)
    net(blurry).square().mean().backward()
    found = net.encoder.intro.weight.grad.clone()
    net.zero_grad()
    net.sub_decoders[0].requires_grad_(True)
    net(blurry).square().mean().backward()
    assert torch.equal(net.encoder.intro.weight.grad, found)


# Checkpoints of blocks


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_blocks_that_are_computed_twice_give_the_same_gradients(autocast, last):
    found = []
    for checkpoint_blocks in (False, True):
        net = small(2, blocks=2, checkpoint_blocks=checkpoint_blocks).train()
        net = train_last(net) if last else net
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            restored = net(image(18, 2, 3, 16, 16))
        restored.square().mean().backward()
        found.append((net, restored))
    (plain, one), (twice, other) = found
    assert torch.equal(one, other)
    for (name, weight), (_, again) in zip(plain.named_parameters(), twice.named_parameters(), strict=True):
        assert (weight.grad is None) == (again.grad is None), name
        if weight.grad is not None:
            assert torch.equal(weight.grad, again.grad), name
    counts = set()
    for (name, buffer), (_, again) in zip(plain.named_buffers(), twice.named_buffers(), strict=True):
        assert torch.equal(buffer, again), name
        counts |= {again.item()} if name.endswith("tracked") else set()
    assert counts == ({0, 1} if last else {1})


def test_blocks_that_are_computed_twice_keep_less():
    net = small(2, blocks=4).train()
    blurry = image(19, 2, 3, 32, 32)
    plain = saved_bytes(net, blurry)
    net.checkpoint_blocks = True
    assert saved_bytes(net, blurry) < 0.35 * plain
    net.eval()
    assert saved_bytes(net, blurry) > 0.9 * plain


def test_a_copy_is_independent():
    """As the moving average of the weights is."""
    net = small(1)
    other = copy.deepcopy(net)
    nn.init.zeros_(other.sub_decoders[0].ending.weight)
    assert net.sub_decoders[0].ending.weight.abs().max() > 0


def test_each_block_is_one_graph():
    torch.manual_seed(0)
    plain = small(1, levels=1).train()
    compiled = copy.deepcopy(plain)
    compiled.checkpoint_blocks = True
    for module in compiled.modules():
        if getattr(module, "repeated", False):
            module.compile(dynamic=False, fullgraph=True, backend="eager")
    blurry = image(20, 2, 3, 8, 8)
    for net in (plain, compiled):
        net(blurry).square().mean().backward()
    for one, other in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert compiled.sub_decoders[0].frequencies[0].decoupler.bn.num_batches_tracked == 1
