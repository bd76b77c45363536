import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError
from deblur_lab.models import (
    Analysis,
    LearnableTrajectory,
    LinearTrajectory,
    M2AENet,
    M2ASBlock,
    NAFBlock,
    NAFNet,
    StageAnalysis,
)
from deblur_lab.models.blur_predictors import MaskPredictor, MotionAnalyzer
from deblur_lab.models.layers import AveragePool
from deblur_lab.models.m2as_block import MotionAwareConv
from deblur_lab.ops.deformable import kernel_grid, plan_motion

from .made_up import SMALL, fill, image, made_up

SIZES = (8, [1, 1, 1, 2], 1, [1, 1, 1, 1])


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.fixture(scope="module")
def net() -> M2AENet:
    return made_up(*SIZES).requires_grad_(False)


# Parameters and keys


def test_parameters_are_those_of_the_paper():
    with torch.device("meta"):
        net = M2AENet()
        assert count(net) == 17_437_865
        assert count(MaskPredictor(256)) == 173_378
        assert count(MotionAnalyzer(256, 4)) == 9_220
        assert sum(count(part) for part in net.modules() if isinstance(part, MotionAwareConv)) == 143_360
        assert count(M2AENet(mask_aware=False)) == 17_437_865 - 173_378
        assert count(M2AENet(motion_aware=False)) == 17_437_865 - 9_220 - 143_360
        assert count(M2AENet(mask_aware=False, motion_aware=False)) == 17_111_907
        assert count(M2AENet(predictor_stages=[])) == 17_111_907


def test_shared_parts_have_the_names_of_nafnet():
    with torch.device("meta"):
        ours, theirs = M2AENet(*SIZES).state_dict(), NAFNet(*SIZES).state_dict()
    assert {key: ours[key].shape for key in theirs} == {key: value.shape for key, value in theirs.items()}
    added = {key.split(".")[0] for key in ours if key not in theirs and ".dconv." not in key}
    assert added == {"mask_predictors", "analyzers"}


@pytest.mark.parametrize("settings", [{"mask_aware": False, "motion_aware": False}, {"predictor_stages": []}])
def test_without_both_it_is_nafnet(settings):
    net, nafnet = made_up(*SIZES, **settings), NAFNet(*SIZES).eval()
    nafnet.load_state_dict(net.state_dict())
    blurry = image(0, 1, 3, 20, 24)
    analysis = net.analyze(blurry)
    assert torch.equal(analysis.restored, nafnet(blurry))
    assert analysis.stages == ()
    assert torch.equal(net.blur_probability(analysis, (20, 24)), torch.ones(1, 1, 20, 24))
    assert torch.equal(net.motion(analysis, (20, 24), 5), torch.zeros(1, 5, 2, 20, 24))


def test_weights_of_nafnet_start_it_near_nafnet():
    nafnet = NAFNet(*SIZES).eval()
    fill(nafnet)
    torch.manual_seed(0)
    net = M2AENet(*SIZES, mask_aware=False).eval()
    loaded = net.load_state_dict(nafnet.state_dict(), strict=False)
    assert not loaded.unexpected_keys
    assert all(".dconv." in key or key.startswith("analyzers.") for key in loaded.missing_keys)
    blurry = image(1, 1, 3, 32, 32)
    residual = nafnet(blurry) - blurry
    assert (net(blurry) - nafnet(blurry)).norm() < 0.1 * residual.norm()
    for part in net.modules():
        if isinstance(part, MotionAwareConv):
            part.weight.data *= torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    torch.testing.assert_close(net(blurry), nafnet(blurry), atol=1e-4, rtol=0)


def test_a_new_net_predicts_small_motion_but_not_none():
    torch.manual_seed(0)
    stage = M2AENet(*SIZES).eval().analyze(image(2, 1, 3, 64, 64)).stages[0]
    assert 0.001 < stage.offsets.abs().mean() < 0.5


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"predictor_stages": [0]}, "predictor_stages"),
        ({"predictor_stages": [2, 5]}, "predictor_stages"),
        ({"threshold": 1.5}, "threshold"),
        ({"width": 0}, "width"),
        ({"mask_positions": []}, "mask_positions"),
        ({"mask_positions": [1, 4]}, "mask_positions"),
        ({"mask_positions": [1, 1]}, "mask_positions"),
        ({"pruning": "fast"}, "pruning"),
    ],
)
def test_impossible_settings_are_refused(settings, named):
    with pytest.raises(ConfigurationError, match=named):
        M2AENet(**settings)


# The block


def block_with_masks(mask: Tensor) -> tuple[M2ASBlock, Tensor, Tensor]:
    """Run a block; returns it, its input, and what entered its first gate (f2 of equation 5)."""
    block = M2ASBlock(6, motion_aware=False)
    fill(block)
    features = image(3, len(mask), 6, *mask.shape[-2:])
    entered: list[Tensor] = []
    block.gate.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    block(features, mask)
    return block, features, entered[0]


def test_mask_chooses_between_convolution_and_repetition():
    mask = (image(4, 2, 1, 7, 9) > 0.5).float()
    block, features, gated = block_with_masks(mask)
    normed = block.norm1(features)
    repeated = torch.cat([normed, normed], dim=1)
    convolved = block.conv2(block.conv1(normed))
    blurred = mask.bool().expand_as(gated)
    assert torch.equal(gated[~blurred], repeated[~blurred])
    torch.testing.assert_close(gated[blurred], convolved[blurred])


def test_mask_gradient_is_that_of_equation_5():
    block = M2ASBlock(6, motion_aware=False)
    fill(block)
    features = image(5, 1, 6, 4, 5)
    mask = (image(6, 1, 1, 4, 5) > 0.5).float().requires_grad_()
    block(features, mask).square().sum().backward()
    found, mask.grad = mask.grad, None
    normed = block.norm1(features)
    mixed = block.conv2(block.conv1(normed)) * mask + normed.repeat(1, 2, 1, 1) * (1 - mask)
    middle = features + block.conv3(block.sca(block.gate(mixed))) * block.beta
    restored = middle + block.conv5(block.gate(block.conv4(block.norm2(middle)))) * block.gamma
    restored.square().sum().backward()
    torch.testing.assert_close(found, mask.grad)


def test_second_half_is_torchvisions_deformable_convolution():
    block = M2ASBlock(4)
    fill(block)
    features = image(7, 2, 4, 8, 9)
    displacements = 6 * image(8, 2, 9, 2, 8, 9) - 3
    found = block(features, None, plan_motion(displacements + kernel_grid()[:, :, None, None]))
    mixed = block.conv2(block.conv1(block.norm1(features)))
    middle = features + block.conv3(block.sca(block.gate(mixed))) * block.beta
    offsets = displacements.flip(2).flatten(1, 2)  # torchvision's are y then x, without the grid
    moved = torchvision.ops.deform_conv2d(
        block.conv4(block.norm2(middle)), offsets, block.dconv.weight, block.dconv.bias, padding=1
    )
    torch.testing.assert_close(found, middle + block.conv5(block.gate(moved)) * block.gamma)


def test_kernel_points_follow_the_trajectory_in_time(small):
    """Instant by instant from the start to the end, and the regular grid row by row."""
    offsets = torch.tensor([-4.0, 8.0, 4.0, -8.0]).view(1, 4, 1, 1).expand(1, 4, 32, 32)
    plan = small._plan(StageAnalysis(2, None, None, offsets))
    features = image(9, 1, 3, 32, 32)
    for point in range(9):
        conv = MotionAwareConv(3)
        conv.weight.data = F.one_hot(torch.tensor(point), 9).float().expand(3, 1, 9).view(3, 1, 3, 3)
        x, y = point - 4 + point % 3 - 1, 8 - 2 * point + point // 3 - 1
        looked_at = features[..., 10 + y : 22 + y, 10 + x : 22 + x]
        torch.testing.assert_close(conv(features, plan)[..., 10:22, 10:22], looked_at)


def test_blocks_compile_whole():
    features = image(10, 1, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    plan = plan_motion(kernel_grid()[:, :, None, None].expand(1, 9, 2, 8, 8))
    plan.transposed()
    mask = torch.ones(1, 1, 8, 8)
    for block, inputs in [(NAFBlock(4), (features,)), (M2ASBlock(4), (features, mask, plan))]:
        assert block.repeated
        fill(block)
        compiled = torch.compile(block, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(*inputs), block(*inputs))


# Masks


def test_a_given_mask_takes_the_place_of_the_predicted_one(small):
    """A pixel of a stage, of 2x2 here, is blurred where more than half of it is."""
    mask = torch.zeros(1, 1, 7, 7)
    mask[..., :2, :3] = 1  # of its pixels at the stage, one whole and one half
    mask[..., 4:6, 2:4] = torch.tensor([[1, 1], [1, 0]])
    (stage,) = small.analyze(image(67, 1, 3, 7, 7), mask=mask).stages
    wanted = torch.zeros(1, 1, 4, 4)
    wanted[..., 0, 0] = wanted[..., 2, 1] = 1
    assert torch.equal(stage.mask, wanted)
    for shape in ((2, 1, 7, 7), (1, 1, 8, 7), (1, 3, 7, 7)):
        with pytest.raises(ValueError, match=r"must have the shape \(1, 1, 7, 7\), but has"):
            small.analyze(image(67, 1, 3, 7, 7), mask=torch.zeros(shape))
    without = made_up(*SMALL, predictor_stages=[2], mask_aware=False)
    assert without.analyze(image(67, 1, 3, 7, 7), mask=mask).stages[0].mask is None


def test_eval_masks_are_probabilities_against_the_threshold(net):
    stage = net.analyze(image(11, 2, 3, 48, 64)).stages[0]
    probability = stage.mask_logits.exp()[:, :1] / stage.mask_logits.exp().sum(1, keepdim=True)
    assert torch.equal(stage.mask, (probability > 0.5).float())
    assert 0 < stage.mask.mean() < 1
    high = made_up(*SIZES, threshold=probability.max().item() + 1e-6)
    assert high.analyze(image(11, 2, 3, 48, 64)).stages[0].mask.sum() == 0


def test_training_masks_are_binary_and_straight_through(small):
    stage = small.train().analyze(image(12, 2, 3, 32, 32)).stages[0]
    assert set(stage.mask.unique().tolist()) == {0.0, 1.0}
    (gradient,) = torch.autograd.grad(stage.mask.sum(), stage.mask_logits)
    assert (gradient[:, 0] > 0).all()
    torch.testing.assert_close(gradient[:, 0], -gradient[:, 1])
    assert gradient.max() <= 0.25  # a sigmoid's slope


def test_training_masks_are_drawn_with_the_predicted_probability(small):
    last = small.mask_predictors["2"].decide[-1]
    nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([math.log(3), 0.0])
    torch.manual_seed(0)
    mask = small.train().analyze(image(13, 2, 3, 96, 96)).stages[0].mask
    assert mask.numel() == 4608
    assert abs(mask.mean().item() - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 4608)


def test_noise_of_a_sample_depends_on_its_seed_alone(small):
    small.train()
    blurry = image(14, 3, 3, 32, 32)
    seeds = torch.tensor([5, 6, 7])
    torch.manual_seed(0)
    together = small.analyze(blurry, seeds)
    torch.manual_seed(1)
    shuffled = small.analyze(blurry[[2, 0]], seeds[[2, 0]])
    assert torch.equal(together.stages[0].mask[[2, 0]], shuffled.stages[0].mask)
    torch.testing.assert_close(together.restored[[2, 0]], shuffled.restored, atol=1e-4, rtol=1e-4)


def test_noise_differs_between_seeds_and_uses_all_64_bits(small):
    small.train()
    blurry = image(15, 1, 3, 32, 32).expand(6, -1, -1, -1)
    seeds = torch.tensor([5, 6, 5 + 2**32, 2**62, -5, 5])
    masks = small.analyze(blurry, seeds).stages[0].mask
    for first in range(6):
        for second in range(first):
            same = torch.equal(masks[first], masks[second])
            assert same == (seeds[first] == seeds[second]), (first, second)


def test_stages_draw_different_noise_from_one_seed():
    net = made_up(*SMALL, predictor_stages=[1, 2]).train()
    for predictor in net.mask_predictors.values():
        nn.init.zeros_(predictor.decide[-1].weight)
        nn.init.zeros_(predictor.decide[-1].bias)
    first, second = net.analyze(image(16, 1, 3, 32, 32), torch.tensor([3])).stages
    corner = first.mask[..., :16, :16]
    assert not torch.equal(corner, second.mask)
    assert 0.35 < (corner == second.mask).float().mean() < 0.65


def test_without_seeds_noise_is_the_global_generators(small):
    small.train()
    blurry = image(17, 1, 3, 32, 32)
    masks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        masks.append(small.analyze(blurry).stages[0].mask)
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_eval_is_deterministic_and_ignores_seeds(net):
    blurry = image(18, 2, 3, 40, 40)
    first = net.analyze(blurry, torch.tensor([1, 2]))
    assert torch.equal(first.restored, net.analyze(blurry, torch.tensor([3, 4])).restored)
    assert torch.equal(first.restored, net(blurry))


# The net


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mask_aware": False},
        {"motion_aware": False},
        {"predictor_stages": [1, 2]},
        {"trajectory": LinearTrajectory()},
        {"trajectory": LearnableTrajectory()},
    ],
)
def test_gradients_reach_every_parameter(settings):
    net = made_up(*SMALL, **{"predictor_stages": [2], **settings}).train()
    net.analyze(image(19, 2, 3, 24, 24), torch.tensor([1, 2])).restored.square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_a_new_net_returns_its_input():
    blurry = image(22, 2, 3, 21, 18)
    assert torch.equal(M2AENet(*SMALL, predictor_stages=[2])(blurry), blurry)


def test_what_a_net_explains_is_what_it_analysed():
    net = made_up(*SMALL, predictor_stages=[2]).eval()
    blurry = image(23, 1, 3, 21, 18)
    analysis = net.analyze(blurry)
    said = net.explain(blurry, instants=5)
    assert torch.equal(said.restored, analysis.restored)
    assert torch.equal(said.probability, net.blur_probability(analysis, (21, 18)))
    assert torch.equal(said.motion, net.motion(analysis, (21, 18), 5))
    mask = analysis.stages[0].mask
    assert torch.equal(said.selected_share, mask.mean((1, 2, 3)))
    assert torch.equal(
        said.dilated_share, (F.conv2d(mask, torch.ones(1, 1, 3, 3), padding=1) > 0).float().mean((1, 2, 3))
    )
    plain = made_up(*SMALL, predictor_stages=[2], mask_aware=False, motion_aware=False).eval()
    assert plain.explain(blurry)[1:] == (None,) * 4


def test_shares_are_those_of_all_stages_together():
    net = made_up(*SMALL, predictor_stages=[1, 2])
    masks = [stage.mask for stage in net.analyze(image(24, 2, 3, 16, 24)).stages]
    selected, pixels = sum(mask.sum((1, 2, 3)) for mask in masks), sum(mask[0].numel() for mask in masks)
    torch.testing.assert_close(net.explain(image(24, 2, 3, 16, 24)).selected_share, selected / pixels)


def test_a_new_net_learns_to_move():
    """Gradients reach the analyzer at the deformable kernel's initial values, not only at made-up ones."""
    torch.manual_seed(0)
    net = M2AENet(*SMALL, predictor_stages=[2])
    for block in net.modules():
        if isinstance(block, NAFBlock):
            nn.init.ones_(block.beta)
            nn.init.ones_(block.gamma)
    nn.init.normal_(net.ending.weight, std=0.1)
    net(image(20, 2, 3, 24, 24)).square().mean().backward()
    assert net.analyzers["2"].conv.weight.grad.abs().max() > 0


def test_first_steps_of_training_lower_the_loss_and_stay_finite():
    torch.manual_seed(0)
    net = M2AENet(*SMALL, predictor_stages=[2])
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    sharp = F.interpolate(image(21, 4, 3, 8, 8), scale_factor=4, mode="bilinear")
    blurry = F.avg_pool2d(F.pad(sharp, (3, 3, 0, 0), mode="replicate"), (1, 7), 1)
    losses = []
    for step in range(40):
        loss = F.l1_loss(net.analyze(blurry, torch.arange(4) + 4 * step).restored, sharp)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 48), (33, 50)])
@pytest.mark.parametrize("tlc", [None, 16])
def test_any_size(net, size, tlc):
    blurry = image(22, 2, 3, *size)
    net.set_tlc(tlc)
    analysis = net.analyze(blurry)
    net.set_tlc(None)
    assert analysis.restored.shape == blurry.shape
    assert analysis.restored.isfinite().all()
    assert net.motion(analysis, size).shape == (2, 9, 2, *size)
    assert net.blur_probability(analysis, size).shape == (2, 1, *size)


def test_a_batch_is_restored_as_its_pictures_are(net):
    blurry = image(23, 3, 3, 40, 56)
    together = net.analyze(blurry)
    for index in range(3):
        alone = net.analyze(blurry[index : index + 1])
        assert torch.equal(together.stages[0].mask[index], alone.stages[0].mask[0])
        torch.testing.assert_close(together.restored[index], alone.restored[0], atol=1e-4, rtol=1e-4)


def test_only_the_listed_stages_have_predictors():
    net = made_up(*SIZES, predictor_stages=[4, 2])
    blocks = [[type(block) for block in stage.children()] for stage in net.encoders]
    assert blocks == [[NAFBlock], [M2ASBlock], [NAFBlock], [M2ASBlock, M2ASBlock]]
    stages = net.analyze(image(24, 1, 3, 32, 48)).stages
    assert [stage.scale_px for stage in stages] == [2, 8]
    assert [stage.mask.shape for stage in stages] == [(1, 1, 16, 24), (1, 1, 4, 6)]
    assert [stage.offsets.shape for stage in stages] == [(1, 4, 16, 24), (1, 4, 4, 6)]


def test_tlc_reaches_every_average_of_the_net():
    net = M2AENet(*SIZES)
    net.set_tlc(32)
    windows = {
        name.split(".sca")[0]: part.window_px
        for name, part in net.named_modules()
        if isinstance(part, AveragePool)
    }
    assert windows["encoders.0.0"] == windows["decoders.3.0"] == 48
    assert windows["encoders.3.0"] == windows["encoders.3.1"] == windows["decoders.0.0"] == 6
    assert windows["mask_predictors.4.pool"] == 6
    assert windows["middle_blks.0"] == 3
    net.set_tlc(None)
    assert {part.window_px for part in net.modules() if isinstance(part, AveragePool)} == {None}


def test_tlc_changes_large_pictures_only(net):
    large, patch = image(25, 1, 3, 96, 96), image(25, 1, 3, 32, 32)
    plain = net(large), net(patch)
    net.set_tlc(32)
    converted = net(large), net(patch)
    net.set_tlc(None)
    assert (plain[0] - converted[0]).abs().max() > 0.01
    torch.testing.assert_close(plain[1], converted[1])


@pytest.mark.parametrize("training", [False, True])
def test_bfloat16_autocast(training):
    net = made_up(*SIZES).train(training)
    blurry = image(26, 2, 3, 32, 32)
    seeds = torch.tensor([1, 2])
    with torch.autocast("cpu", torch.bfloat16):
        analysis = net.analyze(blurry, seeds)
        motion, probability = net.motion(analysis, (32, 32)), net.blur_probability(analysis, (32, 32))
    stage = analysis.stages[0]
    for tensor in (analysis.restored, stage.mask_logits, stage.mask, stage.offsets, motion, probability):
        assert tensor.dtype == torch.float32
        assert tensor.isfinite().all()
    exact = net.analyze(blurry, seeds)
    torch.testing.assert_close(stage.offsets, exact.stages[0].offsets, atol=0.05, rtol=0.05)
    if training:
        analysis.restored.square().mean().backward()
        assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


# What it found, at full resolution


def found(scale_px: int, offsets: Tensor | None = None, logits: Tensor | None = None) -> StageAnalysis:
    return StageAnalysis(scale_px, logits, None, offsets)


def test_motion_is_in_pixels_of_the_full_resolution(net):
    offsets = torch.tensor([-1.0, 0.5, 1.0, -0.5]).view(1, 4, 1, 1).expand(1, 4, 2, 3)
    motion = net.motion(Analysis(torch.zeros(1, 3, 13, 20), (found(8, offsets),)), (13, 20), 3)
    expected = torch.tensor([[-8.0, 4.0], [0.0, 0.0], [8.0, -4.0]]).view(1, 3, 2, 1, 1)
    torch.testing.assert_close(motion, expected.expand(1, 3, 2, 13, 20))


def test_motion_is_enlarged_around_pixel_centres(net):
    """Content that lies at column c of a stage lies at columns 8c to 8c + 7 of the picture."""
    column = torch.arange(4.0).expand(1, 1, 4, 4)
    offsets = torch.cat([torch.zeros(1, 2, 4, 4), column, torch.zeros(1, 1, 4, 4)], dim=1)
    motion = net.motion(Analysis(torch.zeros(1, 3, 32, 30), (found(8, offsets),)), (32, 30), 2)
    inside = torch.arange(4, 28)
    expected = 8 * ((inside + 0.5) / 8 - 0.5)
    torch.testing.assert_close(motion[0, -1, 0, 5, 4:28], expected)


def test_stages_are_averaged(net):
    ones = torch.ones(1, 4, 4, 4)
    fine, coarse = found(2, ones), found(4, ones[..., :2, :2])
    motion = net.motion(Analysis(torch.zeros(1, 3, 8, 8), (fine, coarse)), (8, 8), 2)
    torch.testing.assert_close(motion, torch.full((1, 2, 2, 8, 8), 3.0))
    certain = torch.tensor([[[[20.0]], [[-20.0]]]])
    unsure = torch.zeros(1, 2, 1, 1)
    stages = (found(8, logits=certain), found(8, logits=unsure))
    probability = net.blur_probability(Analysis(torch.zeros(1, 3, 8, 8), stages), (8, 8))
    torch.testing.assert_close(probability, torch.full((1, 1, 8, 8), 0.75))
