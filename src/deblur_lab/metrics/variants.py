"""Other definitions of PSNR and SSIM that the field's scripts use, for comparing with their numbers.

Images are (..., C, H, W) in [0, 1], computed with in float64. The functions of structural similarity return
its map, whose mean (over all of it, or where an alignment is defined) is the score.
"""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from deblur_lab.metrics.functional import in_strips
from deblur_lab.ops.ssim import RADIUS_PX, ssim_map

UNIFORM_PX = 7
_GAUSSIAN_PX = (2 * RADIUS_PX + 1) ** 2
_Y_OF_RGB = (65.481, 128.553, 24.966)  # ITU-R BT.601, for R, G and B in [0, 1]; to which 16 is added
_GRAY_OF_RGB = (0.298936021293775, 0.587043074451121, 0.114020904255103)  # MATLAB's rgb2gray


def luma(image: Tensor) -> Tensor:
    """Y of YCbCr (ITU-R BT.601, video range), not rounded, as BasicSR's `bgr2ycbcr` of floats gives it.

    MATLAB's `rgb2ycbcr` gives the same of floats; of an 8-bit picture, as deraining scripts call it, it
    rounds to 8 bits.

    Args:
        image: (..., 3, H, W).

    Returns:
        (..., 1, H, W) in [16/255, 235/255].
    """
    return (_mixed(image, _Y_OF_RGB) + 16) / 255


def gray(image: Tensor) -> Tensor:
    """MATLAB's `rgb2gray` of an 8-bit picture: rounded to 8 bits.

    Args:
        image: (..., 3, H, W).

    Returns:
        (..., 1, H, W).
    """
    return (_mixed(image, _GRAY_OF_RGB) * 255).round() / 255


def ssim_replicated(restored: Tensor, sharp: Tensor) -> Tensor:
    """11x11 Gaussian windows, borders replicated: MATLAB's `ssim` of one channel; (..., C, H, W)."""
    return _padded_map(restored, sharp, "replicate")


def ssim_zero_padded(restored: Tensor, sharp: Tensor) -> Tensor:
    """11x11 Gaussian windows, zeros around the picture, as `pytorch_ssim`; (..., C, H, W)."""
    return _padded_map(restored, sharp, "constant")


def ssim_torchmetrics(restored: Tensor, sharp: Tensor) -> Tensor:
    """11x11 Gaussian windows, borders reflected, the range of values taken from the pictures; (..., C, H, W).

    torchmetrics' `structural_similarity_index_measure` (1.9) with its defaults, one picture at a time.
    Pictures of a side below 6 cannot be reflected so far.
    """
    data_range = max(float(image.max() - image.min()) for image in (restored, sharp))
    return _padded_map(restored, sharp, "reflect", data_range=data_range)


def ssim_gaussian_sample(restored: Tensor, sharp: Tensor) -> Tensor:
    """11x11 Gaussian windows within the picture, covariance of a sample; (..., C, H - 10, W - 10).

    scikit-image's `structural_similarity` with `gaussian_weights=True` and its other defaults.
    """
    of_map = partial(ssim_map, sample_factor=_GAUSSIAN_PX / (_GAUSSIAN_PX - 1))
    return in_strips(of_map, restored, sharp, margin_px=RADIUS_PX)


def ssim_uniform_sample(restored: Tensor, sharp: Tensor, data_range: float = 1.0) -> Tensor:
    """7x7 uniform windows within the picture, covariance of a sample; (..., C, H - 6, W - 6).

    scikit-image's `structural_similarity` with its defaults. Pictures of a side below 7 have none.
    """
    pixels = UNIFORM_PX**2
    of_map = partial(
        ssim_map, smooth=_uniform_valid, sample_factor=pixels / (pixels - 1), data_range=data_range
    )
    return in_strips(of_map, restored, sharp, margin_px=UNIFORM_PX // 2)


def _padded_map(restored: Tensor, sharp: Tensor, mode: str, data_range: float = 1.0) -> Tensor:
    padded = (_padded(image, mode) for image in (restored, sharp))
    return in_strips(partial(ssim_map, data_range=data_range), *padded, margin_px=RADIUS_PX)


def _uniform_valid(image: Tensor) -> Tensor:
    for axis in (-2, -1):
        length = image.shape[axis] - UNIFORM_PX + 1
        total = image.narrow(axis, 0, length).clone()
        for start in range(1, UNIFORM_PX):
            total += image.narrow(axis, start, length)
        image = total / UNIFORM_PX
    return image


def _padded(image: Tensor, mode: str) -> Tensor:
    planes = image.flatten(0, -4) if image.ndim > 3 else image
    padded = F.pad(planes, (RADIUS_PX,) * 4, mode=mode)
    return padded.reshape(*image.shape[:-2], *padded.shape[-2:])


def _mixed(image: Tensor, weights: tuple[float, float, float]) -> Tensor:
    red, green, blue = image.double().unbind(-3)
    return (weights[0] * red + weights[1] * green + weights[2] * blue).unsqueeze(-3)


Map = Callable[[Tensor, Tensor], Tensor]
"""A map of structural similarity, of a restored and a sharp picture."""
