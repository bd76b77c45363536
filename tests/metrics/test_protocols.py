import math
import random
import re
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from skimage import data

from deblur_lab.config import build, configuration_root
from deblur_lab.errors import ConfigurationError, DivergedError
from deblur_lab.images import quantise
from deblur_lab.metrics import (
    DEFINITIONS,
    EccAlignment,
    GoProProtocol,
    HideProtocol,
    LocalProtocol,
    RealBlurProtocol,
    ScoringProtocol,
    Summary,
    psnr,
    ssim_gaussian_valid,
    ssim_matlab_volume,
    summarise,
    summarise_definitions,
    weighted_psnr,
    weighted_ssim,
)

PROTOCOLS = [LocalProtocol(), GoProProtocol(), HideProtocol(), RealBlurProtocol()]


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


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_every_part_of_a_protocol_is_described_in_a_line(protocol):
    parts = protocol.describe()
    assert {"name", "description", "psnr", "ssim", "alignment", "quantisation", "tlc"} <= parts.keys()
    assert parts["name"] == protocol.name
    assert parts["description"] == protocol.description
    for text in parts.values():
        assert text
        assert "\n" not in text
    assert parts["tlc"].startswith("on" if protocol.tlc else "off")
    assert ("ECC" in parts["alignment"]) is (protocol.name == "realblur")
    assert "8 bits" in parts["quantisation"]


@pytest.mark.parametrize("key", [key for key, one in DEFINITIONS.items() if one.composable])
def test_with_an_alignment_each_part_says_which_pixels_count(key):
    family = DEFINITIONS[key].family
    part = key if key in ("weighted_psnr", "weighted_ssim", "lpips") else family
    chosen = {part: key} if part == family != "lpips" else {"also": [key]}
    plain, aligned = (
        ScoringProtocol("mine", **chosen, alignment=alignment).describe()
        for alignment in (None, EccAlignment())
    )
    assert plain[part] == DEFINITIONS[key].description
    assert "warp" not in plain[part] + plain["description"]
    for text in (aligned[part], aligned["description"]):
        assert "aligned" in text
        assert re.search(r"(where|at whose centre) the warp is (not )?defined", text), text
        assert "all pixels" not in text


def test_hide_is_scored_as_gopro():
    restored, sharp = picture(0), picture(1)
    assert HideProtocol().score(restored, sharp) == GoProProtocol().score(restored, sharp)
    assert {k: v for k, v in HideProtocol().describe().items() if k != "name"} == {
        k: v for k, v in GoProProtocol().describe().items() if k != "name"
    }


# RealBlur


def photo(height=64, width=80):
    """A photograph, (3, H, W) in [0, 1]."""
    image = cv2.resize(data.astronaut(), (width, height), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(image.transpose(2, 0, 1) / 255.0)


def shifted(image, right_px):
    """The same, moved to the right."""
    return torch.cat([image[..., :1].expand(-1, -1, right_px), image[..., :-right_px]], dim=-1)


def test_realblur_scores_aligned_images():
    sharp = photo()
    examined = RealBlurProtocol().examine(shifted(sharp, 2), sharp)
    plain = ScoringProtocol("plain").score(shifted(sharp, 2), sharp)
    assert examined.aligned is True
    assert examined.scores["psnr_db"] > plain["psnr_db"] + 5
    assert examined.scores["ssim"] > plain["ssim"] + 0.1


def test_what_cannot_be_aligned_is_scored_as_it_is_and_told():
    black, sharp = torch.zeros(3, 64, 80), photo()
    examined = RealBlurProtocol().examine(black, sharp)
    assert examined.aligned is False
    assert examined.scores == ScoringProtocol("plain").score(black, sharp)


def test_what_is_not_aligned_says_nothing_of_alignment():
    assert GoProProtocol().examine(photo(), photo()).aligned is None


def test_scoring_in_threads_gives_the_same_to_the_last_digit():
    pairs = [(shifted(photo(60 + 3 * n, 70 + n), 1 + n % 3), photo(60 + 3 * n, 70 + n)) for n in range(7)]
    protocol = RealBlurProtocol()
    alone = [protocol.examine(*pair, all_definitions=True) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pair: protocol.examine(*pair, all_definitions=True), pairs))
    assert repr(together) == repr(alone)


# Protocols of one's own


def test_a_protocol_is_made_of_parts():
    restored, sharp = photo() * 0.9, photo()
    protocol = ScoringProtocol(
        "mine", psnr="psnr_y", ssim="ssim_gray", also=["weighted_psnr", "ssim_skimage"], tlc=True
    )
    examined = protocol.examine(restored, sharp, torch.ones(1, 64, 80), all_definitions=True)
    assert examined.scores == {
        "psnr_db": examined.definitions["psnr_y"],
        "ssim": examined.definitions["ssim_gray"],
        "weighted_psnr_db": examined.definitions["weighted_psnr"],
        "ssim_skimage": examined.definitions["ssim_skimage"],
    }
    assert list(protocol.higher_is_better) == list(examined.scores)
    parts = protocol.describe()
    assert parts["psnr"] == DEFINITIONS["psnr_y"].description
    assert parts["ssim_skimage"] == DEFINITIONS["ssim_skimage"].description


def test_a_protocol_is_composed_in_a_yaml(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        """
        _target_: deblur_lab.metrics.ScoringProtocol
        name: mine
        psnr: psnr_y
        ssim: ssim_y
        also: [weighted_psnr]
        alignment:
          _target_: deblur_lab.metrics.EccAlignment
          iterations: 50
        quantised: false
        tlc: true
        """
    )
    protocol = build(OmegaConf.load(path), key="protocol")
    assert protocol.describe()["alignment"] == EccAlignment(iterations=50).description
    assert protocol.describe()["quantisation"].startswith("none")
    assert set(protocol.score(photo(), photo())) == {"psnr_db", "ssim", "weighted_psnr_db"}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"psnr": "psnr_yy"}, "psnr=psnr_yy is no such definition: did you mean psnr_y?"),
        ({"psnr": "ssim_y"}, "psnr=ssim_y is no such definition"),
        ({"ssim": "psnr"}, "ssim=psnr is no such definition"),
        ({"psnr": "psnr_aligned"}, "alignment and quantised are parts of a protocol"),
        ({"psnr": "psnr_float"}, "alignment and quantised are parts of a protocol"),
        ({"psnr": "psnr_pooled"}, "it takes means over images"),
        ({"also": ["weighted_psnr", "nothing"]}, "also[1]=nothing is no such definition"),
        ({"also": ["weighted_psnr", "weighted_psnr"]}, "also[1]=weighted_psnr is scored already"),
    ],
)
def test_a_part_that_there_is_not_is_refused(part, message):
    node = {"_target_": "deblur_lab.metrics.ScoringProtocol", "name": "mine", **part}
    with pytest.raises(ConfigurationError) as caught:
        build(node, key="protocol")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_quantisation_is_the_protocols_own():
    sharp = quantise(photo())
    restored = sharp + 0.3 / 255
    assert ScoringProtocol("rounded").score(restored, sharp)["psnr_db"] == 100
    floats = ScoringProtocol("floats", quantised=False).score(restored.clamp(0, 1), sharp)
    assert floats["psnr_db"] == pytest.approx(20 * math.log10(255 / 0.3), abs=0.01)


@pytest.mark.parametrize("path", sorted((configuration_root() / "conf" / "protocol").glob("*.yaml")), ids=str)
def test_every_choice_of_protocol_is_one_by_its_name(path):
    node = OmegaConf.to_container(OmegaConf.load(path))
    if path.stem == "own":
        assert node == {}
    else:
        assert build(node, key="protocol").name == path.stem


@pytest.mark.parametrize(
    ("restored", "sharp", "mask"),
    [
        (torch.zeros(3, 20, 24), torch.zeros(3, 20, 23), None),
        (torch.zeros(1, 20, 24), torch.zeros(1, 20, 24), None),
        (torch.zeros(2, 3, 20, 24), torch.zeros(2, 3, 20, 24), None),
        (torch.zeros(3, 20, 24), torch.zeros(3, 20, 24), torch.zeros(1, 24, 20)),
    ],
)
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_images_of_other_shapes_are_refused(protocol, restored, sharp, mask):
    with pytest.raises(ValueError, match="must have"):
        protocol.score(restored, sharp, mask)


# What there is and what there is not


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


def test_definitions_are_pooled_each_in_its_way():
    rows = [dict.fromkeys(DEFINITIONS, value) for value in (20.0, 30.0)]
    rows.append(dict.fromkeys(DEFINITIONS, math.nan))
    pooled = summarise_definitions(rows, [100, 300, 50])
    assert pooled.pop("psnr_pooled") == pytest.approx(-10 * math.log10((1e-2 + 3 * 1e-3) / 4))
    assert set(pooled.values()) == {25.0}
    assert summarise_definitions([]) == {}


def test_no_rows_have_no_means():
    assert summarise([]) == Summary(means={}, left_out={}, images=0)
