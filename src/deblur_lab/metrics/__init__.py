"""Scores of restored images, one by one and by a dataset's published protocol."""

from deblur_lab.metrics.functional import (
    psnr,
    ssim_gaussian_valid,
    ssim_matlab_volume,
    weighted_psnr,
    weighted_ssim,
)
from deblur_lab.metrics.protocols import (
    GoProProtocol,
    LocalProtocol,
    ScoringProtocol,
    Summary,
    summarise,
)

__all__ = [
    "GoProProtocol",
    "LocalProtocol",
    "ScoringProtocol",
    "Summary",
    "psnr",
    "ssim_gaussian_valid",
    "ssim_matlab_volume",
    "summarise",
    "weighted_psnr",
    "weighted_ssim",
]
