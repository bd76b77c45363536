"""The definitions of PSNR and SSIM that the field's tables and programs use, side by side.

Two programs that are given the same pictures print PSNRs decibels apart and SSIMs several hundredths apart,
as each means something else by these names. ``docs/protocols.md`` has all of them on one pair.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor

from deblur_lab.metrics import functional, variants
from deblur_lab.metrics.definitions import PSNR_LIMIT_DB, Comparison, Definition, psnr_of_pooled_error
from deblur_lab.metrics.functional import mean, weighted_mean
from deblur_lab.metrics.lpips import lpips, lpips_missing
from deblur_lab.ops.ssim import RADIUS_PX, WINDOW_PX, ssim_map

_Measure = Callable[[Comparison], Tensor | float]


def _psnr(of: Callable[[Tensor], Tensor] = lambda image: image, *, whole: bool = False) -> _Measure:
    """PSNR of what `of` makes of the pictures, where they are aligned, or of all pixels if `whole`."""

    def measure(pair: Comparison) -> Tensor:
        restored, sharp = of(pair.restored), of(pair.sharp)
        if pair.valid is None or whole:
            return _limited(functional.psnr(restored, sharp))
        return _limited(functional.weighted_psnr(restored, sharp, pair.valid))

    return measure


def _ssim(
    of_map: variants.Map, of: Callable[[Tensor], Tensor] = lambda image: image, *, smallest_px: int = 1
) -> _Measure:
    """The mean of a map of what `of` makes of the pictures, where they are aligned."""

    def measure(pair: Comparison) -> Tensor | float:
        if min(pair.sharp.shape[-2:]) < smallest_px:
            return math.nan
        similarity = of_map(of(pair.restored), of(pair.sharp))
        if pair.valid is None:
            return mean(similarity)
        # A window counts if the warp is defined at its centre.
        margin = (pair.sharp.shape[-1] - similarity.shape[-1]) // 2
        height, width = similarity.shape[-2:]
        return weighted_mean(
            similarity, pair.valid[..., margin : margin + height, margin : margin + width].double()
        )

    return measure


def _weighted(of: Callable[[Tensor, Tensor, Tensor], Tensor]) -> _Measure:
    """A score that is weighted by the blur mask."""

    def measure(pair: Comparison) -> Tensor | float:
        if pair.mask is None:
            return math.nan
        weights = pair.mask if pair.valid is None else pair.mask * pair.valid
        return of(pair.restored, pair.sharp, weights)

    return measure


def _limited(decibels: Tensor) -> Tensor:
    return decibels.clamp(max=PSNR_LIMIT_DB)


def _gaussian_map(restored: Tensor, sharp: Tensor) -> Tensor:
    return functional.in_strips(ssim_map, restored, sharp, margin_px=RADIUS_PX)


def _uniform_of_range_2(restored: Tensor, sharp: Tensor) -> Tensor:
    return variants.ssim_uniform_sample(restored, sharp, data_range=2.0)


_ALL = (
    Definition(
        "psnr",
        "psnr",
        "PSNR",
        "PSNR of 8-bit RGB: 10 log10 of 1 over the mean squared error over all pixels and channels",
        "tables of GoPro, HIDE and ReLoBlur",
        _psnr(),
        digits=2,
        over_warp="PSNR of 8-bit RGB, aligned: 10 log10 of 1 over the mean squared error over the pixels "
        "where the warp is defined and all channels",
    ),
    Definition(
        "psnr_float",
        "psnr",
        "PSNR of floats",
        "PSNR of RGB as the network gives it, clamped to [0, 1] but not rounded to 8 bits",
        "MIMO-UNet's script",
        _psnr(),
        digits=2,
        quantised=False,
    ),
    Definition(
        "psnr_y",
        "psnr",
        "PSNR of Y",
        "PSNR of luma, Y of YCbCr (BT.601, 16 to 235, not rounded), of 8-bit RGB",
        "BasicSR by choice, for super-resolution",
        _psnr(variants.luma),
        digits=2,
    ),
    Definition(
        "psnr_pooled",
        "psnr",
        "PSNR of pooled error",
        "PSNR of the squared error averaged over all pixels of all images, of 8-bit RGB; of one image, PSNR",
        "torchmetrics by default",
        _psnr(),
        digits=2,
        pool=psnr_of_pooled_error,
    ),
    Definition(
        "psnr_aligned",
        "psnr",
        "PSNR, aligned",
        "PSNR of 8-bit RGB, aligned by ECC, over the pixels where the warp is defined",
        "tables of RealBlur-J and -R",
        _psnr(),
        digits=2,
        aligned=True,
    ),
    Definition(
        "psnr_aligned_all",
        "psnr",
        "PSNR, aligned, all pixels",
        "PSNR of 8-bit RGB, aligned by ECC, over all pixels, those without a defined warp counting as right",
        "LBAG's script",
        _psnr(whole=True),
        digits=2,
        aligned=True,
    ),
    Definition(
        "weighted_psnr",
        "psnr",
        "weighted PSNR",
        "PSNR of 8-bit RGB over the blurred pixels: squared error times mask, over the mask's sum times 3",
        "tables of ReLoBlur",
        _weighted(lambda *images: _limited(functional.weighted_psnr(*images))),
        digits=2,
        masked=True,
    ),
    Definition(
        "ssim_gaussian_valid",
        "ssim",
        "SSIM",
        "SSIM of 8-bit RGB: 11x11 Gaussian windows (sigma 1.5) within the picture, mean over channels",
        "tables of ReLoBlur; DeepDeblur in PyTorch",
        _ssim(_gaussian_map, smallest_px=WINDOW_PX),
    ),
    Definition(
        "ssim_matlab_volume",
        "ssim",
        "SSIM of the RGB volume",
        "SSIM as MATLAB's ssim of an 8-bit RGB array: 11x11x11 Gaussian windows over height, width and "
        "channel, borders replicated",
        "tables of GoPro and HIDE: MATLAB, NAFNet",
        _ssim(functional.volume_map),
    ),
    Definition(
        "ssim_y",
        "ssim",
        "SSIM of Y",
        "SSIM of luma, Y of YCbCr (BT.601, 16 to 235, not rounded), of 8-bit RGB: 11x11 Gaussian windows "
        "within the picture",
        "BasicSR by choice, for super-resolution",
        _ssim(_gaussian_map, variants.luma, smallest_px=WINDOW_PX),
    ),
    Definition(
        "ssim_gray",
        "ssim",
        "SSIM of gray",
        "SSIM as MATLAB's ssim of rgb2gray of 8-bit RGB: 11x11 Gaussian windows, borders replicated",
        "MATLAB scripts on gray; no table here",
        _ssim(variants.ssim_replicated, variants.gray),
    ),
    Definition(
        "ssim_skimage",
        "ssim",
        "SSIM, uniform windows",
        "SSIM of 8-bit RGB: 7x7 uniform windows within the picture, covariance of a sample",
        "scikit-image by default",
        _ssim(variants.ssim_uniform_sample, smallest_px=variants.UNIFORM_PX),
    ),
    Definition(
        "ssim_skimage_range_2",
        "ssim",
        "SSIM, uniform, range 2",
        "SSIM of 8-bit RGB: 7x7 uniform windows within the picture, covariance of a sample, constants for "
        "a range of 2, as older scikit-image takes for floats if none is given",
        "older scikit-image on floats",
        _ssim(_uniform_of_range_2, smallest_px=variants.UNIFORM_PX),
    ),
    Definition(
        "ssim_skimage_gaussian",
        "ssim",
        "SSIM, sample covariance",
        "SSIM of 8-bit RGB: 11x11 Gaussian windows within the picture, covariance of a sample",
        "scikit-image, gaussian_weights alone",
        _ssim(variants.ssim_gaussian_sample, smallest_px=WINDOW_PX),
    ),
    Definition(
        "ssim_zero_padded",
        "ssim",
        "SSIM, zeros around",
        "SSIM of 8-bit RGB: 11x11 Gaussian windows, zeros around the picture, mean over channels",
        "pytorch_ssim; DeblurGAN-v2",
        _ssim(variants.ssim_zero_padded),
    ),
    Definition(
        "ssim_torchmetrics",
        "ssim",
        "SSIM, range of the data",
        "SSIM of 8-bit RGB: 11x11 Gaussian windows, borders reflected, constants for the range that the "
        "pictures' values have",
        "torchmetrics by default",
        _ssim(variants.ssim_torchmetrics, smallest_px=RADIUS_PX + 1),
    ),
    Definition(
        "ssim_aligned",
        "ssim",
        "SSIM, aligned",
        "SSIM of 8-bit RGB, aligned by ECC: 11x11 Gaussian windows within the picture, those at whose "
        "centre the warp is defined",
        "tables of RealBlur-J and -R",
        _ssim(_gaussian_map, smallest_px=WINDOW_PX),
        aligned=True,
    ),
    Definition(
        "weighted_ssim",
        "ssim",
        "weighted SSIM",
        "SSIM of 8-bit RGB, 11x11 Gaussian windows within the picture, weighted by the mask at their centres",
        "tables of ReLoBlur",
        _weighted(functional.weighted_ssim),
        masked=True,
    ),
    Definition(
        "lpips",
        "lpips",
        "LPIPS (AlexNet)",
        "learned perceptual distance, version 0.1 on AlexNet, of 8-bit RGB; lower is better",
        "papers on how pictures look",
        lambda pair: lpips(pair.restored.clamp(0, 1), pair.sharp.clamp(0, 1)),
        higher_is_better=False,
        missing=lpips_missing,
    ),
)

DEFINITIONS: Mapping[str, Definition] = MappingProxyType({one.key: one for one in _ALL})
"""Every definition, by its key."""
