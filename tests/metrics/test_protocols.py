import math
import random

import numpy as np
import pytest
import torch

from deblur_lab.errors import DivergedError
from deblur_lab.images import quantise
from deblur_lab.metrics import (
    GoProProtocol,
    LocalProtocol,
    Summary,
    psnr,
    ssim_gaussian_valid,
    ssim_matlab_volume,
    summarise,
    weighted_psnr,
    weighted_ssim,
)

PROTOCOLS = [LocalProtocol(), GoProProtocol()]


def picture(seed, height=20, width=24):
    return torch.from_numpy(np.random.default_rng(seed).random((3, height, width)))


def levels(image):
    return torch.from_numpy(np.rint(np.clip(image.numpy(), 0, 1) * 255) / 255)


MASK = (picture(3)[:1] > 0.5).float()


def test_local_protocol_scores_8_bit_images():
    restored, sharp = picture(0) * 1.2 - 0.1, picture(1)
    eight_bit = levels(restored), levels(sharp)
    assert LocalProtocol().score(restored, sharp, MASK) == {
        "psnr_db": pytest.approx(psnr(*eight_bit).item()),
        "ssim": pytest.approx(ssim_gaussian_valid(*eight_bit).item()),
        "weighted_psnr_db": pytest.approx(weighted_psnr(*eight_bit, MASK).item()),
        "weighted_ssim": pytest.approx(weighted_ssim(*eight_bit, MASK).item()),
    }


def test_gopro_protocol_scores_8_bit_images_and_no_mask():
    restored, sharp = picture(0) * 1.2 - 0.1, picture(1)
    eight_bit = levels(restored), levels(sharp)
    expected = {
        "psnr_db": pytest.approx(psnr(*eight_bit).item()),
        "ssim": pytest.approx(ssim_matlab_volume(*eight_bit).item()),
    }
    assert GoProProtocol().score(restored, sharp, MASK) == expected
    assert GoProProtocol().score(restored, sharp) == expected


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_a_batch_of_one_scores_as_its_image(protocol):
    restored, sharp = picture(0), picture(1)
    assert protocol.score(restored[None], sharp[None], MASK[None]) == protocol.score(restored, sharp, MASK)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_equal_images_score_best_and_finitely(protocol):
    sharp = quantise(picture(1))
    scores = protocol.score(sharp + 0.1 / 255, sharp, torch.ones(1, 20, 24))
    assert scores["psnr_db"] == 100
    assert scores["ssim"] == pytest.approx(1)
    assert all(math.isfinite(score) for score in scores.values())


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_scores_rise_where_they_are_said_to(protocol):
    sharp = picture(1)
    near, far = (protocol.score(sharp + x * (picture(2) - 0.5), sharp, MASK) for x in (0.05, 0.2))
    assert list(near) == list(protocol.higher_is_better)
    for name, higher in protocol.higher_is_better.items():
        assert (near[name] > far[name]) is higher


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_descriptions_say_what_decides_on_the_numbers(protocol):
    for word in ("PSNR", "SSIM", "8-bit"):
        assert word in protocol.description
    assert "\n" not in protocol.description


@pytest.mark.parametrize("mask", [None, torch.zeros(1, 20, 24)], ids=["none", "empty"])
def test_without_a_mask_there_is_no_weighted_score(mask):
    scores = LocalProtocol().score(picture(0), picture(1), mask)
    assert math.isnan(scores["weighted_psnr_db"])
    assert math.isnan(scores["weighted_ssim"])
    assert math.isfinite(scores["psnr_db"])
    assert math.isfinite(scores["ssim"])


def test_an_image_too_small_for_the_window_has_no_ssim():
    scores = LocalProtocol().score(picture(0, 8, 30), picture(1, 8, 30), torch.ones(1, 8, 30))
    assert {name for name, score in scores.items() if math.isnan(score)} == {"ssim", "weighted_ssim"}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_network_is_not_left_out_as_if_it_had_no_score(value):
    restored = picture(0)
    restored[1, 2, 3] = value
    with pytest.raises(DivergedError, match="not finite"):
        LocalProtocol().score(restored, picture(1), MASK)


def test_half_precision_is_rounded_to_levels_without_loss():
    """Level 201 of 255 is 0.788; bfloat16 keeps 8 bits, in which 201/255 and 200/255 are the same."""
    restored = torch.full((3, 12, 12), 0.5, dtype=torch.bfloat16)
    sharp = torch.full((3, 12, 12), 201 / 255)
    expected = 20 * math.log10(255 / (201 - 128))
    assert GoProProtocol().score(restored, sharp)["psnr_db"] == pytest.approx(expected, abs=1e-6)


def test_scoring_keeps_no_graph():
    restored = picture(0).requires_grad_()
    assert GoProProtocol().score(restored, picture(1)) == GoProProtocol().score(restored.detach(), picture(1))


# Means


def test_means_leave_out_what_does_not_exist_and_count_it():
    rows = [
        {"psnr_db": 30.0, "weighted_psnr_db": math.nan, "weighted_ssim": math.nan},
        {"psnr_db": 20.0, "weighted_psnr_db": 25.0, "weighted_ssim": math.nan},
        {"psnr_db": 34.0, "weighted_psnr_db": 22.0, "weighted_ssim": math.nan},
    ]
    summary = summarise(rows)
    assert summary.means["psnr_db"] == 28
    assert summary.means["weighted_psnr_db"] == 23.5
    assert math.isnan(summary.means["weighted_ssim"])
    assert summary.left_out == {"psnr_db": 0, "weighted_psnr_db": 1, "weighted_ssim": 3}
    assert summary.images == 3


def test_means_do_not_depend_on_the_order():
    generator = random.Random(0)
    rows = [{"psnr_db": generator.uniform(1e-3, 1e3) * 10 ** generator.randrange(9)} for _ in range(500)]
    means = set()
    for _ in range(20):
        generator.shuffle(rows)
        means.add(summarise(rows).means["psnr_db"])
    assert len(means) == 1


def test_no_rows_have_no_means():
    assert summarise([]) == Summary(means={}, left_out={}, images=0)
