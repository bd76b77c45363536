"""Scores of restored images, one by one and by a dataset's published protocol; of blur masks and motion."""

from deblur_lab.metrics.alignment import Aligned, Alignment, EccAlignment
from deblur_lab.metrics.blur import (
    THRESHOLDS,
    BlurTally,
    CalibrationBin,
    MaskScores,
    calibration,
    calibration_error,
    mask_scores,
    pool_blur,
    tally_blur,
)
from deblur_lab.metrics.catalogue import DEFINITIONS
from deblur_lab.metrics.definitions import Definition
from deblur_lab.metrics.functional import (
    psnr,
    ssim_gaussian_valid,
    ssim_matlab_volume,
    weighted_psnr,
    weighted_ssim,
)
from deblur_lab.metrics.lpips import lpips_available, lpips_missing
from deblur_lab.metrics.motion import MotionScores, MotionTally, motion_scores, tally_motion
from deblur_lab.metrics.protocols import (
    Examined,
    GoProProtocol,
    HideProtocol,
    LocalProtocol,
    RealBlurProtocol,
    ScoringProtocol,
    Summary,
    summarise,
    summarise_definitions,
)

__all__ = [
    "DEFINITIONS",
    "THRESHOLDS",
    "Aligned",
    "Alignment",
    "BlurTally",
    "CalibrationBin",
    "Definition",
    "EccAlignment",
    "Examined",
    "GoProProtocol",
    "HideProtocol",
    "LocalProtocol",
    "MaskScores",
    "MotionScores",
    "MotionTally",
    "RealBlurProtocol",
    "ScoringProtocol",
    "Summary",
    "calibration",
    "calibration_error",
    "lpips_available",
    "lpips_missing",
    "mask_scores",
    "motion_scores",
    "pool_blur",
    "psnr",
    "ssim_gaussian_valid",
    "ssim_matlab_volume",
    "summarise",
    "summarise_definitions",
    "tally_blur",
    "tally_motion",
    "weighted_psnr",
    "weighted_ssim",
]
