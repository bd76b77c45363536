"""Every definition against an implementation that is not ours, on the golden pair."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.color import rgb_to_ycbcr
from scipy.ndimage import correlate1d
from skimage.color import rgb2ycbcr
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image import PeakSignalNoiseRatio

from deblur_lab.images import read_mask, read_rgb, to_tensor
from deblur_lab.metrics import DEFINITIONS, GoProProtocol, LocalProtocol, RealBlurProtocol, lpips_missing
from deblur_lab.metrics.definitions import mean_over_images, psnr_of_pooled_error

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
# What the field's scripts print: by the picture that they are given, and our definition.
OF_THE_FIELD = {
    "psnr": ("restored", "psnr"),
    "psnr_basicsr": ("restored", "psnr"),
    "weighted_psnr": ("restored", "weighted_psnr"),
    "ssim_gaussian_valid": ("restored", "ssim_gaussian_valid"),
    "weighted_ssim": ("restored", "weighted_ssim"),
    "ssim_matlab_volume": ("restored", "ssim_matlab_volume"),
    "aligned_psnr_lbag": ("restored_shifted", "psnr_aligned_all"),
    "aligned_psnr_realblur": ("restored_shifted", "psnr_aligned"),
    "aligned_ssim_realblur": ("restored_shifted", "ssim_aligned"),
    "unaligned_psnr_shifted": ("restored_shifted", "psnr"),
}


def golden(name):
    return read_rgb(GOLDEN / f"{name}.png")


@pytest.fixture(scope="module")
def examined():
    """Of each picture every definition."""
    sharp, mask = to_tensor(golden("sharp")), torch.from_numpy(read_mask(GOLDEN / "mask.png"))[None].float()
    return {
        name: GoProProtocol().examine(to_tensor(golden(name)), sharp, mask, all_definitions=True)
        for name in ("restored", "restored_shifted")
    }


# Against the field's scripts


@pytest.mark.parametrize("name", EXPECTED)
def test_scores_are_those_of_the_published_scripts(examined, name):
    picture, key = OF_THE_FIELD[name]
    tolerance = 0.01 if "aligned_psnr" in name else 1e-3
    assert examined[picture].definitions[key] == pytest.approx(EXPECTED[name], abs=tolerance)


def test_protocols_print_the_fields_numbers():
    sharp, mask = to_tensor(golden("sharp")), torch.from_numpy(read_mask(GOLDEN / "mask.png"))[None].float()
    restored, shifted = (to_tensor(golden(name)) for name in ("restored", "restored_shifted"))
    assert GoProProtocol().score(restored, sharp) == {
        "psnr_db": pytest.approx(EXPECTED["psnr"], abs=1e-3),
        "ssim": pytest.approx(EXPECTED["ssim_matlab_volume"], abs=1e-3),
    }
    assert LocalProtocol().score(restored, sharp, mask) == {
        "psnr_db": pytest.approx(EXPECTED["psnr"], abs=1e-3),
        "ssim": pytest.approx(EXPECTED["ssim_gaussian_valid"], abs=1e-3),
        "weighted_psnr_db": pytest.approx(EXPECTED["weighted_psnr"], abs=1e-3),
        "weighted_ssim": pytest.approx(EXPECTED["weighted_ssim"], abs=1e-3),
    }
    assert RealBlurProtocol().score(shifted, sharp) == {
        "psnr_db": pytest.approx(EXPECTED["aligned_psnr_realblur"], abs=0.01),
        "ssim": pytest.approx(EXPECTED["aligned_ssim_realblur"], abs=1e-3),
    }


# Against other implementations


def windows(of_line, image, **border):
    """The weighted means over the windows around the pixels of (H, W)."""
    for axis in (0, 1):
        image = correlate1d(image, of_line, axis=axis, **border)
    return image


def similarity(one, other, mean):
    """Wang et al. 2004, eq. 13, of (H, W) in [0, 1]."""
    mean_one, mean_other = mean(one), mean(other)
    variance = mean(one**2) - mean_one**2 + mean(other**2) - mean_other**2
    covariance = mean(one * other) - mean_one * mean_other
    return (
        (2 * mean_one * mean_other + 1e-4)
        * (2 * covariance + 9e-4)
        / ((mean_one**2 + mean_other**2 + 1e-4) * (variance + 9e-4))
    )


GAUSSIAN = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
GAUSSIAN /= GAUSSIAN.sum()


def luma(image):
    return rgb2ycbcr(image)[..., 0] / 255


def gray(image):
    """MATLAB's rgb2gray, from the matrix of NTSC that its manual names."""
    weights = np.linalg.inv([[1.0, 0.956, 0.621], [1.0, -0.272, -0.647], [1.0, -1.106, 1.703]])[0]
    return np.floor(image.astype(np.float64) @ weights + 0.5) / 255


def of_skimage(restored, sharp, **settings):
    return structural_similarity(restored, sharp, channel_axis=2, data_range=255, **settings)


def of_torchmetrics(restored, sharp):
    one, other = (torch.from_numpy(i.transpose(2, 0, 1) / 255.0)[None] for i in (restored, sharp))
    return structural_similarity_index_measure(one, other).item()


def padded_with_zeros(restored, sharp):
    channels = [
        similarity(one, other, lambda image: windows(GAUSSIAN, image, mode="constant"))
        for one, other in zip(restored.transpose(2, 0, 1) / 255, sharp.transpose(2, 0, 1) / 255, strict=True)
    ]
    return np.mean(channels)


def replicated_gray(restored, sharp):
    return similarity(
        gray(restored), gray(sharp), lambda image: windows(GAUSSIAN, image, mode="nearest")
    ).mean()


ORACLES = {
    "psnr": lambda a, b: peak_signal_noise_ratio(b, a),
    "psnr_pooled": lambda a, b: peak_signal_noise_ratio(b, a),
    "psnr_y": lambda a, b: peak_signal_noise_ratio(luma(b), luma(a), data_range=1),
    "ssim_gaussian_valid": lambda a, b: of_skimage(a, b, gaussian_weights=True, use_sample_covariance=False),
    "ssim_y": lambda a, b: structural_similarity(
        luma(a), luma(b), data_range=1, gaussian_weights=True, use_sample_covariance=False
    ),
    "ssim_gray": replicated_gray,
    "ssim_skimage": of_skimage,
    "ssim_skimage_range_2": lambda a, b: structural_similarity(
        a / 255, b / 255, channel_axis=2, data_range=2
    ),
    "ssim_skimage_gaussian": lambda a, b: of_skimage(a, b, gaussian_weights=True),
    "ssim_zero_padded": padded_with_zeros,
    "ssim_torchmetrics": of_torchmetrics,
}


@pytest.mark.parametrize("key", ORACLES)
def test_scores_are_those_of_others(examined, key):
    expected = ORACLES[key](golden("restored"), golden("sharp"))
    assert examined["restored"].definitions[key] == pytest.approx(expected, abs=1e-6)


def test_every_definition_has_an_oracle():
    """The float one is tested below; LPIPS where its weights are."""
    tested = {key for _, key in OF_THE_FIELD.values()} | ORACLES.keys()
    assert DEFINITIONS.keys() - tested == {"psnr_float", "lpips"}


def test_luma_is_that_of_another_library_too():
    """kornia's is in full range: 16 to 235 of it."""
    image = to_tensor(golden("sharp"))
    full = rgb_to_ycbcr(image)[0].numpy()
    assert np.abs(luma(golden("sharp")) - (16 + 219 * full) / 255).max() < 1e-3


def test_luma_that_is_rounded_as_matlabs_scores_a_little_less():
    """By as much as docs/protocols.md says: MATLAB rounds Y of an 8-bit picture."""
    restored, sharp = (np.floor(luma(golden(name)) * 255 + 0.5) for name in ("restored", "sharp"))
    rounded = 10 * np.log10(255**2 / np.mean((restored - sharp) ** 2))
    exact = peak_signal_noise_ratio(luma(golden("sharp")), luma(golden("restored")), data_range=1)
    assert 0.005 < exact - rounded < 0.015


def test_psnr_of_floats_is_not_rounded():
    sharp = to_tensor(golden("sharp"))
    restored = to_tensor(golden("restored")) + 0.004 * torch.sin(torch.arange(sharp.numel())).view_as(sharp)
    definitions = GoProProtocol().examine(restored, sharp, all_definitions=True).definitions
    clamped = restored.clamp(0, 1).double().numpy()
    expected = 10 * math.log10(1 / mean_squared_error(clamped, sharp.double().numpy()))
    assert definitions["psnr_float"] == pytest.approx(expected, abs=1e-6)
    assert abs(definitions["psnr_float"] - definitions["psnr"]) > 1e-4


def test_pooled_psnr_is_torchmetrics_default_over_images_of_different_sizes():
    rng = np.random.default_rng(0)
    metric = PeakSignalNoiseRatio(data_range=1.0).double()
    values, pixels = [], []
    for height, width, noise in ((20, 30, 0.3), (12, 15, 0.02), (31, 9, 0.1)):
        sharp = torch.from_numpy(rng.random((3, height, width)))
        restored = (sharp + noise * torch.from_numpy(rng.standard_normal(sharp.shape))).clamp(0, 1)
        metric.update(*((image * 255).round() / 255 for image in (restored, sharp)))
        examined = GoProProtocol().examine(restored, sharp, all_definitions=True)
        values.append(examined.definitions["psnr_pooled"])
        pixels.append(examined.pixels)
    pooled = DEFINITIONS["psnr_pooled"].pool(values, pixels)
    assert pooled == pytest.approx(metric.compute().item(), abs=1e-6)
    assert pooled < mean_over_images(values) - 1


def test_nothing_is_pooled_of_nothing():
    for pool in (mean_over_images, psnr_of_pooled_error):
        assert math.isnan(pool([], None))
        assert math.isnan(pool([math.nan], [5]))
        assert pool([math.nan, 30.0], [5, 7]) == pytest.approx(30)


# The catalogue itself


def test_definitions_are_told_in_lines():
    for key, one in DEFINITIONS.items():
        assert one.key == key
        assert one.family in key
        for text in (one.title, one.description, one.used_by):
            assert text
            assert "\n" not in text
    titles = [one.title for one in DEFINITIONS.values()]
    assert len(set(titles)) == len(titles)
    assert max(map(len, titles)) <= 28


def test_every_definition_is_computed(examined):
    for one in examined.values():
        assert list(one.definitions) == list(DEFINITIONS)
        missing = {key for key, value in one.definitions.items() if math.isnan(value)}
        assert missing == ({"lpips"} if lpips_missing() else set())
        assert one.aligned is True
        assert one.pixels == 160 * 224


def test_without_masks_there_is_no_weighted_definition():
    restored, sharp = (to_tensor(golden(name)) for name in ("restored", "sharp"))
    definitions = LocalProtocol().examine(restored, sharp, all_definitions=True).definitions
    missing = {key for key, value in definitions.items() if math.isnan(value)}
    assert missing - {"lpips"} == {key for key, one in DEFINITIONS.items() if one.masked}


def test_small_images_have_what_can_be_had():
    rng = np.random.default_rng(1)
    for side in (1, 5, 6, 7, 10):
        restored, sharp = torch.from_numpy(rng.random((2, 3, side, 40)))
        definitions = GoProProtocol().examine(restored, sharp, all_definitions=True).definitions
        has = {key for key, value in definitions.items() if not math.isnan(value)}
        assert has >= {"psnr", "psnr_y", "psnr_pooled", "psnr_float", "ssim_matlab_volume", "ssim_gray"}
        assert ("ssim_torchmetrics" in has) is (side >= 6)
        assert ("ssim_skimage" in has) is (side >= 7)
        assert "ssim_gaussian_valid" not in has


def test_where_the_alignment_fails_aligned_definitions_are_those_of_the_images_as_they_are():
    sharp = to_tensor(golden("sharp"))
    examined = GoProProtocol().examine(torch.zeros_like(sharp), sharp, all_definitions=True)
    assert examined.aligned is False
    assert examined.definitions["psnr_aligned"] == examined.definitions["psnr"]
    assert examined.definitions["ssim_aligned"] == examined.definitions["ssim_gaussian_valid"]


def test_the_documented_table_is_what_is_computed(examined):
    page = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text(encoding="utf-8")
    rows = {
        cells[0].strip("`"): cells[1:]
        for line in page.splitlines()
        if line.startswith("| `")
        for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
        if cells[0].strip("`") in DEFINITIONS
    }
    assert rows.keys() == DEFINITIONS.keys()
    for key, (plain, shifted, how, who) in rows.items():
        one = DEFINITIONS[key]
        assert (how, who) == (one.description, one.used_by)
        if key == "lpips":
            assert plain == shifted == "\N{EN DASH}"
            continue
        for shown, picture in ((plain, "restored"), (shifted, "restored_shifted")):
            # Half of the last digit, and what another version of OpenCV may move an alignment by.
            tolerance = 0.5 * 10**-one.digits + (0.01 if one.aligned else 1e-9)
            assert float(shown) == pytest.approx(examined[picture].definitions[key], abs=tolerance)
