"""Scores of restored images, one by one and by a dataset's published protocol; of blur masks and motion."""

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
from deblur_lab.metrics.functional import (
    psnr,
    ssim_gaussian_valid,
    ssim_matlab_volume,
    weighted_psnr,
    weighted_ssim,
)
from deblur_lab.metrics.motion import MotionScores, MotionTally, motion_scores, tally_motion
from deblur_lab.metrics.protocols import (
    GoProProtocol,
    LocalProtocol,
    ScoringProtocol,
    Summary,
    summarise,
)

__all__ = [
    "THRESHOLDS",
    "BlurTally",
    "CalibrationBin",
    "GoProProtocol",
    "LocalProtocol",
    "MaskScores",
    "MotionScores",
    "MotionTally",
    "ScoringProtocol",
    "Summary",
    "calibration",
    "calibration_error",
    "mask_scores",
    "motion_scores",
    "pool_blur",
    "psnr",
    "ssim_gaussian_valid",
    "ssim_matlab_volume",
    "summarise",
    "tally_blur",
    "tally_motion",
    "weighted_psnr",
    "weighted_ssim",
]
