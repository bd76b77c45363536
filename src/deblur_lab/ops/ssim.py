"""Structural similarity, pixel by pixel: what the loss and the metrics of that name are both made of."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW_PX = 11
RADIUS_PX = WINDOW_PX // 2
SIGMA_PX = 1.5
LUMINANCE_CONSTANT = 0.01**2  # C1 and C2 of the paper, for values in [0, 1]
CONTRAST_CONSTANT = 0.03**2


def gaussian_taps() -> list[float]:
    """Return the 11 weights of the Gaussian window (sigma 1.5 pixels), which sum to one."""
    taps = [math.exp(-((i - RADIUS_PX) ** 2) / (2 * SIGMA_PX**2)) for i in range(WINDOW_PX)]
    total = math.fsum(taps)
    return [tap / total for tap in taps]


class _GaussianValid(torch.autograd.Function):
    """Eleven shifted additions along each axis.

    A convolution would do, but on CUDA it may run in TF32, whose ten bits do not survive the subtraction
    E[x^2] - E[x]^2; on a CPU it is three times slower. The gradient of a symmetric filter is the same filter
    on the padded gradient: autograd's own, eleven slices, takes nine times as long.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:  # noqa: ANN401  # torch types the context so
        taps = gaussian_taps()
        for axis in (-2, -1):
            length = image.shape[axis] - 2 * RADIUS_PX
            smooth = image.narrow(axis, 0, length) * taps[0]
            for start in range(1, WINDOW_PX):
                smooth.add_(image.narrow(axis, start, length), alpha=taps[start])
            image = smooth
        return image

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        return gaussian_valid(F.pad(gradient, (2 * RADIUS_PX,) * 4))


def gaussian_valid(image: Tensor) -> Tensor:
    """Smooth with the 11x11 Gaussian window, only where it lies within the image.

    Args:
        image: (..., H, W), floating, H and W at least 11.

    Returns:
        (..., H - 10, W - 10), of the same type.

    Raises:
        ValueError: the image is smaller than the window.
    """
    if min(image.shape[-2:]) < WINDOW_PX:
        height, width = image.shape[-2:]
        raise ValueError(
            f"structural similarity looks through windows of {WINDOW_PX}x{WINDOW_PX} pixels: "
            f"an image of {width}x{height} has none"
        )
    smooth: Tensor = _GaussianValid.apply(image)
    return smooth


def ssim_map(
    restored: Tensor,
    sharp: Tensor,
    smooth: Callable[[Tensor], Tensor] = gaussian_valid,
    *,
    sample_factor: float = 1.0,
    data_range: float = 1.0,
) -> Tensor:
    """Structural similarity at each window, by Wang et al. 2004 ("Image quality assessment"), equation 13.

    Args:
        restored: (..., C, H, W), values in [0, 1], float32 or float64.
        sharp: of the same shape and type.
        smooth: the weighted mean over a window; takes and returns (4, ..., C, H, W), may trim the borders.
        sample_factor: what (co)variances are multiplied by: n / (n - 1) for those of a sample of n.
        data_range: the range of values that the constants C1 and C2 are taken for.

    Returns:
        Similarities up to 1, in the shape that `smooth` leaves: (..., C, H - 10, W - 10) by default.

    Raises:
        ValueError: the images are smaller than the window of `gaussian_valid`.
    """
    # The variances are only ever needed as their sum, so four means do the work of five.
    moments = torch.stack((restored, sharp, restored * restored + sharp * sharp, restored * sharp))
    mean_restored, mean_sharp, mean_squares, mean_product = smooth(moments)
    product = mean_restored * mean_sharp
    squares = mean_restored * mean_restored + mean_sharp * mean_sharp
    luminance_constant = LUMINANCE_CONSTANT * data_range**2
    # Both sides of the fraction are divided by the factor, which leaves the common case as it is.
    contrast_constant = CONTRAST_CONSTANT * data_range**2 / sample_factor
    luminance = (2 * product + luminance_constant) / (squares + luminance_constant)
    structure = (2 * (mean_product - product) + contrast_constant) / (
        mean_squares - squares + contrast_constant
    )
    similarity: Tensor = luminance * structure
    return similarity
