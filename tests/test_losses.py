import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity

from deblur_lab.errors import ConfigurationError
from deblur_lab.losses import (
    LocalBlurLoss,
    ReconstructionLoss,
    charbonnier_loss,
    edge_loss,
    enlarged_motion,
    frequency_loss,
    l1_loss,
    mask_cross_entropy,
    psnr_loss,
    reblur_loss,
    ssim_loss,
    total_variation,
)

SAMPLES, INSTANTS = 3, 4
PICTURE_LOSSES = [l1_loss, ssim_loss, frequency_loss, psnr_loss, charbonnier_loss, edge_loss]


def noise(seed, *shape, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).random(shape)).to(dtype)


def pictures(seed=0, height=16, width=18, dtype=torch.float64):
    return noise(seed, SAMPLES, 3, height, width, dtype=dtype), noise(
        seed + 1, SAMPLES, 3, height, width, dtype=dtype
    )


def displacements(seed=5, height=4, width=6, dtype=torch.float64):
    """Within 0.2 and 0.8 of a pixel of the grid, where bilinear splatting has a derivative."""
    return noise(seed, SAMPLES, INSTANTS, 2, height, width, dtype=dtype) * 0.6 + 0.2


def local_batch(dtype=torch.float64):
    """All that LocalBlurLoss takes: the middle sample's mask is unknown; two stages."""
    restored, sharp = pictures(dtype=dtype)
    blurry = noise(9, *sharp.shape, dtype=dtype)
    mask = (noise(10, SAMPLES, 1, 16, 18) > 0.5).to(dtype)
    known = torch.tensor([True, False, True])
    stages = [
        (noise(20, SAMPLES, 2, 4, 6, dtype=dtype), displacements(21, dtype=dtype)),
        (noise(22, SAMPLES, 2, 8, 9, dtype=dtype), displacements(23, 8, 9, dtype=dtype)),
    ]
    return restored, blurry, sharp, mask, known, stages


def local_loss(**weights):
    return LocalBlurLoss(**weights, reblur_instants=INSTANTS)


# Values


def test_l1_is_the_mean_absolute_difference():
    restored = torch.tensor([0.0, 0.5, 1.0, 0.25]).view(1, 1, 2, 2)
    sharp = torch.tensor([0.5, 0.5, 0.0, 0.0]).view(1, 1, 2, 2)
    assert l1_loss(restored, sharp).item() == (0.5 + 0 + 1 + 0.25) / 4


def test_psnr_loss_is_minus_the_mean_psnr_of_each_picture():
    sharp = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    restored = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)]).double()
    assert psnr_loss(restored, sharp).item() == pytest.approx((-20 - 40) / 2, abs=1e-3)


def test_psnr_loss_of_equal_pictures_is_finite():
    sharp = torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64)
    assert psnr_loss(sharp, sharp).item() == pytest.approx(-80)


def test_frequency_loss_is_l1_between_unnormalised_spectra():
    restored, sharp = (picture.numpy() for picture in pictures())
    difference = np.fft.rfft2(restored) - np.fft.rfft2(sharp)
    expected = np.mean([np.abs(difference.real), np.abs(difference.imag)])
    assert frequency_loss(*pictures()).item() == pytest.approx(expected, rel=1e-12)


def test_frequency_loss_of_a_constant_difference():
    """Only the first of 4x3 coefficients differs, by the sum over the 4x4 pixels."""
    sharp = torch.zeros(1, 1, 4, 4)
    assert frequency_loss(sharp + 0.5, sharp).item() == pytest.approx(0.5 * 16 / (4 * 3 * 2))


def test_charbonnier_loss_is_a_smooth_absolute_difference():
    restored, sharp = (picture.numpy() for picture in pictures())
    expected = np.mean(np.sqrt((restored - sharp) ** 2 + 0.001**2))
    assert charbonnier_loss(*pictures()).item() == pytest.approx(expected, rel=1e-12)
    assert charbonnier_loss(*pictures(), eps=1e-9).item() == pytest.approx(l1_loss(*pictures()).item())


def test_edge_loss_compares_what_a_level_of_the_pyramid_loses():
    """By matrices that blur, drop and spread the rows, and the columns, of each channel."""
    restored, sharp = (picture.numpy() for picture in pictures())

    def kept(size):
        blur = np.zeros((size, size))
        for row in range(size):
            for tap, weight in zip(range(-2, 3), (0.05, 0.25, 0.4, 0.25, 0.05), strict=True):
                blur[row, np.clip(row + tap, 0, size - 1)] += weight
        return blur @ np.diag([2.0, 0.0] * (size // 2)) @ blur

    rows, columns = kept(16), kept(18)
    laplacians = [picture - rows @ picture @ columns.T for picture in (restored, sharp)]
    expected = np.mean(np.sqrt((laplacians[0] - laplacians[1]) ** 2 + 0.001**2))
    assert edge_loss(*pictures()).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", [charbonnier_loss, edge_loss])
def test_charbonnier_losses_of_equal_pictures(loss):
    """The root has a gradient there, which is zero."""
    _, sharp = pictures()
    restored = sharp.clone().requires_grad_()
    value = loss(restored, sharp, eps=1e-3)
    value.backward()
    assert value.item() == pytest.approx(1e-3)
    assert restored.grad.abs().max() == 0


def test_ssim_loss_agrees_with_scikit_image():
    restored, sharp = pictures()
    expected = []
    for one, other in zip(restored.numpy(), sharp.numpy(), strict=True):
        _, similarity = structural_similarity(
            one,
            other,
            channel_axis=0,
            data_range=1,
            gaussian_weights=True,
            use_sample_covariance=False,
            full=True,
        )
        expected.append(1 - similarity[:, 5:-5, 5:-5].mean())
    assert ssim_loss(restored, sharp).item() == pytest.approx(np.mean(expected), abs=1e-12)


def test_ssim_loss_of_equal_and_of_inverted_pictures():
    _, sharp = pictures()
    assert ssim_loss(sharp, sharp).item() == pytest.approx(0, abs=1e-12)
    assert 1 < ssim_loss(1 - sharp, sharp).item() <= 2


def test_ssim_loss_names_sizes_that_are_too_small():
    with pytest.raises(ConfigurationError, match=r"11x11 .* 18x10"):
        ssim_loss(torch.zeros(1, 3, 10, 18), torch.zeros(1, 3, 10, 18))


@pytest.mark.parametrize("loss", PICTURE_LOSSES)
def test_pictures_of_different_shapes_are_refused(loss):
    with pytest.raises(ValueError, match="of one shape"):
        loss(torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 16, 16))


def test_total_variation_of_a_step():
    """A step of 2 px in x between two columns of 3x4 pixels: 3 of 9 pairs differ."""
    motion = torch.zeros(1, 1, 2, 3, 4)
    motion[..., 0, :, 2:] = 2
    assert total_variation(motion).item() == pytest.approx(3 * 2 / 9)


def test_total_variation_agrees_with_loops():
    motion = displacements().numpy()
    expected = 0.0
    for sample in motion:
        for instant in sample:
            for field in instant:
                across = [abs(row[i + 1] - row[i]) for row in field for i in range(len(row) - 1)]
                down = [abs(row[i + 1] - row[i]) for row in field.T for i in range(len(row) - 1)]
                expected += np.mean(across) + np.mean(down)
    assert total_variation(displacements()).item() == pytest.approx(expected / SAMPLES, rel=1e-12)


def test_total_variation_does_not_depend_on_the_size_but_adds_up_instants():
    slope = torch.arange(8.0).expand(1, 1, 2, 8, 8)
    assert total_variation(slope[..., :4, :4]).item() == pytest.approx(total_variation(slope).item())
    assert total_variation(slope.expand(1, 5, 2, 8, 8)).item() == pytest.approx(
        5 * total_variation(slope).item()
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
def test_total_variation_of_a_thin_map_is_finite(size):
    motion = torch.ones(1, 2, 2, *size)
    motion.flatten(-2)[..., 0] = 2
    long_side = max(size)
    assert total_variation(motion).item() == pytest.approx(0 if long_side == 1 else 2 * 2 / (long_side - 1))


def test_mask_is_blurred_where_half_of_the_area_is():
    """2x4 pixels to 1x2: the left half holds 2 of 4 blurred pixels, the right one 1 of 4."""
    mask = torch.tensor([[[[1.0, 0, 1, 0], [0, 1, 0, 0]]]])
    logits = torch.tensor([[[[2.0, -1.0]], [[0.0, 1.0]]]])  # difference 2, then -2
    known = torch.tensor([True])
    right = math.log(1 + math.exp(-2))
    assert mask_cross_entropy(logits, mask, known).item() == pytest.approx(right)
    assert mask_cross_entropy(-logits, mask, known).item() == pytest.approx(right + 2)


def test_mask_cross_entropy_agrees_with_torch():
    logits = noise(1, SAMPLES, 2, 4, 6) * 10 - 5
    mask = (noise(2, SAMPLES, 1, 16, 18) > 0.5).double()
    blurred = F.interpolate(mask, size=(4, 6), mode="area")[:, 0] >= 0.5
    expected = F.cross_entropy(logits, (~blurred).long())
    known = torch.ones(SAMPLES, dtype=torch.bool)
    assert mask_cross_entropy(logits, mask, known).item() == pytest.approx(expected.item(), rel=1e-12)


def test_unknown_masks_count_as_zero():
    logits, mask = noise(1, 2, 2, 4, 6).requires_grad_(), torch.ones(2, 1, 8, 12)
    alone = mask_cross_entropy(logits[:1], mask[:1], torch.tensor([True]))
    both = mask_cross_entropy(logits, mask, torch.tensor([True, False]))
    assert both.item() == pytest.approx(alone.item() / 2)
    both.backward()
    assert logits.grad[0].abs().min() > 0
    assert logits.grad[1].abs().max() == 0


def test_reblur_without_motion_compares_the_pictures_at_the_scale_of_the_motion():
    sharp, blurry = noise(0, 2, 3, 8, 12), noise(1, 2, 3, 8, 12)
    pooled = [p.numpy().reshape(2, 3, 4, 2, 6, 2).mean(axis=(3, 5)) for p in (sharp, blurry)]
    loss = reblur_loss(torch.zeros(2, 5, 2, 4, 6).double(), sharp, blurry)
    assert loss.item() == pytest.approx(np.mean((pooled[0] - pooled[1]) ** 2), rel=1e-6)


def test_reblur_moves_right_and_down_and_leaves_out_what_receives_nothing():
    sharp = noise(0, 1, 3, 5, 6)
    motion = torch.zeros(1, 3, 2, 5, 6).double()
    motion[:, :, 0], motion[:, :, 1] = 2, 1
    blurry = torch.full_like(sharp, 7)  # must not be looked at in the first row and the first two columns
    blurry[..., 1:, 2:] = sharp[..., :-1, :-2]
    assert reblur_loss(motion, sharp, blurry).item() == pytest.approx(0, abs=1e-10)
    blurry[..., 1:, 2:] += 0.1
    assert reblur_loss(motion, sharp, blurry).item() == pytest.approx(0.01, rel=1e-6)


def test_reblur_averages_over_the_exposure():
    sharp = noise(0, 1, 3, 5, 6)
    motion = torch.zeros(1, 2, 2, 5, 6).double()
    motion[:, 1, 0] = 1
    blurry = sharp.clone()
    blurry[..., 1:] = (sharp[..., 1:] + sharp[..., :-1]) / 2
    assert reblur_loss(motion, sharp, blurry).item() == pytest.approx(0, abs=1e-10)


def test_reblur_where_nothing_is_received_is_zero():
    motion = torch.full((1, 2, 2, 4, 4), 100.0, requires_grad=True)
    loss = reblur_loss(motion, torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4))
    loss.backward()
    assert loss.item() == 0
    assert motion.grad.isfinite().all()


def test_true_motion_is_cheaper_than_none_with_the_default_weights():
    """A textured disk moves by 24 px in a picture of 128, seen at an eighth of the size."""
    rows, columns = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")

    def frame(shift_px):
        inside = ((columns - 64 - shift_px) ** 2 + (rows - 64) ** 2 < 40**2).float()
        texture = 0.5 + 0.4 * torch.sin((columns - shift_px) / 7) * torch.cos(rows / 9)
        return (inside * texture + (1 - inside) * 0.2).expand(1, 3, 128, 128), inside.view(1, 1, 128, 128)

    sharp, inside = frame(0.0)
    blurry = torch.stack([frame(shift)[0] for shift in torch.linspace(-12, 12, 25).tolist()]).mean(0)
    inside = F.adaptive_avg_pool2d(inside, 16)
    motion = torch.zeros(1, 9, 2, 16, 16)
    motion[:, :, 0] = torch.linspace(-1.5, 1.5, 9).view(1, 9, 1, 1) * inside
    loss = LocalBlurLoss()

    def price(displacements):
        stages = [(None, displacements)]
        return loss.total(loss(sharp, blurry, sharp, inside, torch.tensor([False]), stages))

    assert price(motion) < 0.8 * price(torch.zeros_like(motion))
    assert price(motion) < price(-motion.flip(2))


# Properties of every loss


def each_loss(dtype):
    """(name, loss of a sequence of inputs, inputs): every loss on a batch."""
    restored, blurry, sharp, mask, known, stages = local_batch(dtype)
    (logits, motion), _ = stages
    return [
        *((loss.__name__, loss, (restored, sharp)) for loss in PICTURE_LOSSES),
        ("total_variation", total_variation, (motion,)),
        ("mask_cross_entropy", mask_cross_entropy, (logits, mask, known)),
        ("reblur_loss", reblur_loss, (motion, sharp, blurry)),
    ]


NAMES = [name for name, _, _ in each_loss(torch.float32)]


@pytest.mark.parametrize("index", range(len(NAMES)), ids=NAMES)
def test_a_batch_costs_the_mean_of_its_samples(index):
    _, loss, inputs = each_loss(torch.float64)[index]
    samples = [loss(*(tensor[i : i + 1] for tensor in inputs)).item() for i in range(SAMPLES)]
    assert len(set(samples)) == SAMPLES
    assert loss(*inputs).item() == pytest.approx(np.mean(samples), rel=1e-12)


@pytest.mark.parametrize("index", range(len(NAMES)), ids=NAMES)
def test_gradients_are_those_of_the_formula(index):
    _, loss, (first, *others) = each_loss(torch.float64)[index]
    torch.manual_seed(0)  # the fast mode compares along random directions
    assert torch.autograd.gradcheck(
        lambda x: loss(x, *others), first.clone().requires_grad_(), fast_mode=True
    )


@pytest.mark.parametrize("index", range(len(NAMES)), ids=NAMES)
def test_half_precision_inputs_are_computed_in_full(index):
    _, loss, inputs = each_loss(torch.bfloat16)[index]
    first = inputs[0].clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = loss(first, *inputs[1:])
    mixed.backward()
    assert mixed.dtype == torch.float32
    assert mixed.item() == loss(
        *(tensor.float() if tensor.dtype != torch.bool else tensor for tensor in inputs)
    )
    assert first.grad.isfinite().all()
    assert first.grad.abs().sum() > 0


# The two weighted sums


def test_reconstruction_parts_are_the_functions_and_the_total_their_weighted_sum():
    restored, sharp = pictures()
    loss = ReconstructionLoss(l1=2.0, ssim=3.0, fft=0.5, psnr=0.25, charbonnier=4.0, edge=5.0)
    parts = loss(restored, sharp)
    expected = {
        "l1": l1_loss,
        "ssim": ssim_loss,
        "fft": frequency_loss,
        "psnr": psnr_loss,
        "charbonnier": charbonnier_loss,
        "edge": edge_loss,
    }
    assert {name: part.item() for name, part in parts.items()} == {
        name: function(restored, sharp).item() for name, function in expected.items()
    }
    value = 2 * parts["l1"] + 3 * parts["ssim"] + 0.5 * parts["fft"] + 0.25 * parts["psnr"]
    value = value + 4 * parts["charbonnier"] + 5 * parts["edge"]
    assert loss.total(parts).item() == pytest.approx(value.item(), rel=1e-12)


def test_a_weight_of_zero_skips_the_computation():
    small = torch.rand(1, 3, 8, 8)  # too small for ssim
    assert list(ReconstructionLoss(l1=1.0)(small, small)) == ["l1"]
    batch = local_batch()
    assert list(local_loss(l1=1, ssim=0, fft=0, mask=0, reblur=0, tv=0)(*batch)) == ["l1"]
    assert list(local_loss(l1=0, ssim=0, fft=0, mask=0, reblur=0, tv=1)(*batch)) == ["tv"]


def test_local_parts_are_summed_over_the_stages():
    restored, blurry, sharp, mask, known, stages = local_batch()
    parts = local_loss()(restored, blurry, sharp, mask, known, stages)
    assert list(parts) == ["l1", "ssim", "fft", "mask", "reblur", "tv"]
    assert parts["l1"] == l1_loss(restored, sharp)
    assert parts["ssim"] == ssim_loss(restored, sharp)
    assert parts["fft"] == frequency_loss(restored, sharp)
    assert parts["mask"] == sum(mask_cross_entropy(logits, mask, known) for logits, _ in stages)
    assert parts["reblur"] == sum(reblur_loss(motion, sharp, blurry) for _, motion in stages)
    assert parts["tv"] == sum(total_variation(motion) for _, motion in stages)


def test_the_default_weights_are_the_papers():
    weights = LocalBlurLoss().weights
    assert {name: weights[name] for name in ("l1", "ssim", "fft", "mask", "reblur")} == {
        "l1": 1.0,
        "ssim": 1.0,
        "fft": 0.1,
        "mask": 0.01,
        "reblur": 1.0,
    }
    assert LocalBlurLoss().reblur_instants == 9


def test_what_the_network_does_not_predict_has_no_part():
    *pair, stages = local_batch()
    (logits, motion), _ = stages
    assert list(local_loss()(*pair, [])) == ["l1", "ssim", "fft"]
    assert list(local_loss()(*pair, [(logits, None)])) == ["l1", "ssim", "fft", "mask"]
    assert list(local_loss()(*pair, [(None, motion)])) == ["l1", "ssim", "fft", "reblur", "tv"]


def test_nothing_to_train_on_is_said():
    *pair, _ = local_batch()
    loss = local_loss(l1=0, ssim=0, fft=0, mask=1, reblur=0, tv=0)
    with pytest.raises(ConfigurationError, match=r"nothing to train on.*\(mask\)"):
        loss.total(loss(*pair, []))


def test_a_batch_without_any_mask_still_trains():
    restored, blurry, sharp, mask, known, stages = local_batch()
    stages = [(logits.requires_grad_(), motion.requires_grad_()) for logits, motion in stages]
    loss = local_loss()
    parts = loss(restored.requires_grad_(), blurry, sharp, mask, torch.zeros_like(known), stages)
    assert parts["mask"] == 0
    loss.total(parts).backward()
    for tensor in (restored, *(part for stage in stages for part in stage)):
        assert tensor.grad.isfinite().all()


def test_a_batch_of_the_whole_loss_costs_the_mean_of_its_samples():
    restored, blurry, sharp, mask, known, stages = local_batch()
    loss = local_loss()

    def total(part):
        pair = (tensor[part] for tensor in (restored, blurry, sharp, mask, known))
        return loss.total(loss(*pair, [(logits[part], motion[part]) for logits, motion in stages])).item()

    samples = [total(slice(i, i + 1)) for i in range(SAMPLES)]
    assert total(slice(None)) == pytest.approx(np.mean(samples), rel=1e-12)


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("loss", [ReconstructionLoss, LocalBlurLoss])
def test_weights_out_of_range_are_refused(loss, weight):
    with pytest.raises(ConfigurationError, match="fft"):
        loss(fft=weight)


def test_weights_that_are_all_zero_are_refused():
    with pytest.raises(ConfigurationError, match="l1, ssim, fft, psnr"):
        ReconstructionLoss()


def test_an_exposure_has_two_instants():
    with pytest.raises(ConfigurationError, match="reblur_instants=1"):
        LocalBlurLoss(reblur_instants=1)


# A variant of ours: reblurring at the picture's resolution


def test_motion_is_enlarged_in_place_and_in_length():
    """A displacement of one pixel there is one of 2 px to the right and 3 px down here, at the same place."""
    motion = torch.zeros(1, 2, 2, 4, 5)
    motion[0, 1, :, 2, 3] = 1
    grown = enlarged_motion(motion, torch.zeros(1, 3, 12, 10))
    assert grown.shape == (1, 2, 2, 12, 10)
    assert not grown[0, 0].any()
    torch.testing.assert_close(grown[0, 1].amax((1, 2)), 0.75 * torch.tensor([2.0, 3.0]))
    weight = grown[0, 1, 1]
    centre = (weight.sum(1) @ (torch.arange(12.0) + 0.5), weight.sum(0) @ (torch.arange(10.0) + 0.5))
    torch.testing.assert_close(torch.stack(centre) / weight.sum(), torch.tensor([7.5, 7.0]))
    uniform = torch.tensor([1.0, -2.0]).view(1, 1, 2, 1, 1).expand(1, 1, 2, 4, 5)
    wanted = torch.tensor([2.0, -6.0]).view(1, 1, 2, 1, 1).expand(1, 1, 2, 12, 10)
    torch.testing.assert_close(enlarged_motion(uniform, torch.zeros(1, 3, 12, 10)), wanted)


def test_reblurring_at_the_pictures_resolution():
    restored, blurry, sharp, mask, known, stages = local_batch()
    loss = LocalBlurLoss(tv=1.0, reblur_instants=INSTANTS, reblur_at="picture")
    parts = loss(restored, blurry, sharp, mask, known, stages)
    at_pictures = [reblur_loss(enlarged_motion(motion, sharp), sharp, blurry) for _, motion in stages]
    assert parts["reblur"] == sum(at_pictures)
    assert parts["tv"] == sum(total_variation(motion) for _, motion in stages)
    with pytest.raises(ConfigurationError, match="reblur_at=half: stage or picture is expected"):
        LocalBlurLoss(reblur_at="half")


def test_true_motion_reblurs_best_at_the_pictures_resolution():
    """What is smeared by 4 px: no motion and the wrong direction leave more error than the right one."""
    torch.manual_seed(0)
    sharp = torch.rand(1, 3, 24, 24)
    blurry = torch.stack([sharp.roll(step, dims=3) for step in (-2, -1, 0, 1, 2)]).mean(0)
    across = torch.linspace(-1, 1, 5).view(1, 5, 1, 1, 1).expand(1, 5, 1, 12, 12)
    none = torch.zeros_like(across)
    right, wrong = torch.cat([across, none], 2), torch.cat([none, across], 2)
    errors = [
        reblur_loss(enlarged_motion(motion, sharp), sharp, blurry).item()
        for motion in (right, right.flip(1), 0 * right, wrong)
    ]
    assert errors[0] == pytest.approx(errors[1])
    assert errors[0] < 0.2 * min(errors[2:])
