"""Scores of restored images against sharp ones, as the field's evaluation scripts compute them.

Images are (..., C, H, W) in [0, 1], with any leading axes; each has a score of its own, computed in float64.
Published numbers are those of images at 8-bit levels: `deblur_lab.images.quantise` brings them there.
Nothing is guessed from the data: values outside [0, 1] are scored as they are.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from deblur_lab.ops.ssim import RADIUS_PX, WINDOW_PX, gaussian_taps, gaussian_valid, ssim_map

_STRIP_PX = 32


def psnr(restored: Tensor, sharp: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over all pixels and channels: 10 log10(1 / MSE).

    Args:
        restored: (..., C, H, W).
        sharp: of the same shape.

    Returns:
        (...) in dB; higher is better. Equal images have an infinite one, as in the field's scripts.

    Raises:
        ValueError: the shapes differ.
    """
    restored, sharp = _images(restored, sharp)
    return -10 * torch.log10(mean((restored - sharp).square()))


def weighted_psnr(restored: Tensor, sharp: Tensor, mask: Tensor) -> Tensor:
    """PSNR of the blurred pixels (Li et al. 2023, "Real-world deep local motion deblurring").

    The squared error times the mask is summed and divided by the mask's sum times the number of channels.

    Args:
        restored: (..., C, H, W).
        sharp: of the same shape.
        mask: (..., 1, H, W), 1 = blurred; what lies between is a weight.

    Returns:
        (...) in dB; higher is better. Equal images have an infinite one, images with an empty mask NaN.

    Raises:
        ValueError: the shapes do not fit.
    """
    restored, sharp = _images(restored, sharp)
    mask = _mask(mask, sharp)
    return -10 * torch.log10(weighted_mean((restored - sharp).square(), mask))


def ssim_gaussian_valid(restored: Tensor, sharp: Tensor) -> Tensor:
    """Structural similarity as the local-blur papers score it.

    Wang et al. 2004, eq. 13: Gaussian windows of 11x11 pixels with sigma 1.5, only those within the image;
    C1 = 0.01^2, C2 = 0.03^2, the covariance not corrected for the sample; the mean over windows and channels.

    Args:
        restored: (..., C, H, W).
        sharp: of the same shape.

    Returns:
        (...) up to 1; higher is better. Images smaller than a window have none: NaN.

    Raises:
        ValueError: the shapes differ.
    """
    restored, sharp = _images(restored, sharp)
    if not _holds_a_window(sharp):
        return _no_score(sharp)
    return mean(in_strips(ssim_map, restored, sharp, margin_px=RADIUS_PX))


def weighted_ssim(restored: Tensor, sharp: Tensor, mask: Tensor) -> Tensor:
    """Structural similarity of the blurred pixels (Li et al. 2023): `ssim_gaussian_valid`, weighted.

    The similarity of each window is weighted by the mask at its centre; the mask loses the 5 pixels at each
    side where no window is centred.

    Args:
        restored: (..., C, H, W).
        sharp: of the same shape.
        mask: (..., 1, H, W), 1 = blurred; what lies between is a weight.

    Returns:
        (...) up to 1; higher is better. NaN if the cropped mask is empty or the image smaller than a window.

    Raises:
        ValueError: the shapes do not fit.
    """
    restored, sharp = _images(restored, sharp)
    mask = _mask(mask, sharp)
    if not _holds_a_window(sharp):
        return _no_score(sharp)
    cropped = mask[..., RADIUS_PX:-RADIUS_PX, RADIUS_PX:-RADIUS_PX]
    return weighted_mean(in_strips(ssim_map, restored, sharp, margin_px=RADIUS_PX), cropped)


def ssim_matlab_volume(restored: Tensor, sharp: Tensor) -> Tensor:
    """Structural similarity of the GoPro and HIDE tables: MATLAB's `ssim` of an RGB array, taken as a volume.

    The Gaussian window is 11x11x11, over height, width *and channel*, and the borders are replicated: it is
    higher than `ssim_gaussian_valid` by several hundredths, and never to be compared with it. The published
    script computes in float32, which moves it by up to about 1e-4.

    Args:
        restored: (..., C, H, W), of any height and width.
        sharp: of the same shape.

    Returns:
        (...) up to 1; higher is better.

    Raises:
        ValueError: the shapes differ.
    """
    restored, sharp = _images(restored, sharp)
    return mean(volume_map(restored, sharp))


def volume_map(restored: Tensor, sharp: Tensor) -> Tensor:
    """The map whose mean is `ssim_matlab_volume`: of the images' shape."""
    restored, sharp = (_replicated(image) for image in (restored, sharp))
    return in_strips(
        partial(ssim_map, smooth=_smooth_volume),
        restored,
        sharp,
        margin_px=RADIUS_PX,
        by_channel=False,
    )


def _replicated(image: Tensor) -> Tensor:
    """(..., C, H, W) with 5 more pixels at each side, as those at the border."""
    planes = image.flatten(0, -4) if image.ndim > 3 else image
    padded = F.pad(planes, (RADIUS_PX,) * 4, mode="replicate")
    return padded.reshape(*image.shape[:-2], *padded.shape[-2:])


def _smooth_volume(image: Tensor) -> Tensor:
    """Smooth (..., C, H + 10, W + 10) with the 11x11x11 window, channels replicated: (..., C, H, W)."""
    # With few channels, most of the window over them falls on replicas: it is a small matrix.
    channels = image.shape[-3]
    mix = image.new_zeros(channels, channels)
    for channel in range(channels):
        for offset, tap in enumerate(gaussian_taps(), start=-RADIUS_PX):
            mix[channel, min(max(channel + offset, 0), channels - 1)] += tap
    return gaussian_valid(torch.einsum("dc,...chw->...dhw", mix, image))


def in_strips(
    of_map: Callable[[Tensor, Tensor], Tensor],
    restored: Tensor,
    sharp: Tensor,
    *,
    margin_px: int,
    by_channel: bool = True,
) -> Tensor:
    """A map of two images, strip by strip: these stay in the processor's cache, which is four times as fast.

    Args:
        of_map: of images (..., C, H, W) makes one of (..., C, H - 2 margin_px, W - 2 margin_px), each value
            of which depends on the pixels within the margin of it alone.
        restored: (..., C, H, W).
        sharp: of the same shape.
        margin_px: of the map.
        by_channel: whether its channels are independent of each other.

    Returns:
        The same as of the whole images, to the last digit.
    """
    height = sharp.shape[-2] - 2 * margin_px
    strips = []
    for top in range(0, height, _STRIP_PX):
        rows = slice(top, min(top + _STRIP_PX, height) + 2 * margin_px)
        one, other = restored[..., rows, :], sharp[..., rows, :]
        if by_channel:
            channels = [slice(number, number + 1) for number in range(sharp.shape[-3])]
            maps = [of_map(one[..., c, :, :], other[..., c, :, :]) for c in channels]
            strips.append(torch.cat(maps, dim=-3))
        else:
            strips.append(of_map(one, other))
    return torch.cat(strips, dim=-2)


def mean(values: Tensor) -> Tensor:
    """The mean of (..., C, H, W) over its last three axes, to the last digit whatever the threads."""
    return _sum(values) / math.prod(values.shape[-3:])


def weighted_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of (..., C, h, w) by (..., 1, h, w), NaN (0/0) where the mask is empty."""
    return _sum(values * mask) / (_sum(mask) * values.shape[-3])


def _sum(values: Tensor) -> Tensor:
    # Axis by axis: PyTorch shares one sum of everything out to its threads, and how many there are would
    # decide on the last digits. Of several sums, a thread adds up each whole.
    return values.sum(-1).sum(-1).sum(-1)


def _holds_a_window(image: Tensor) -> bool:
    return min(image.shape[-2:]) >= WINDOW_PX


def _no_score(image: Tensor) -> Tensor:
    return image.new_full(image.shape[:-3], torch.nan)


def _images(restored: Tensor, sharp: Tensor) -> tuple[Tensor, Tensor]:
    if restored.shape != sharp.shape or sharp.ndim < 3:
        raise ValueError(
            f"the restored image must have the sharp one's shape, (..., C, H, W), but they have "
            f"{tuple(restored.shape)} and {tuple(sharp.shape)}"
        )
    return restored.double(), sharp.double()


def _mask(mask: Tensor, sharp: Tensor) -> Tensor:
    expected = (*sharp.shape[:-3], 1, *sharp.shape[-2:])
    if mask.shape != expected:
        raise ValueError(f"the mask must have the shape {expected}, but has {tuple(mask.shape)}")
    return mask.double()
