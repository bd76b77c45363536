"""LightningModules: what is trained, and how."""

from deblur_lab.tasks.base import (
    EvaluationTask,
    RestorationTask,
)
from deblur_lab.tasks.given import GivenPictures
from deblur_lab.tasks.kernel_estimation import KernelEstimation
from deblur_lab.tasks.kernel_guided import KernelGuidedDeblurring
from deblur_lab.tasks.local import LocalDeblurring
from deblur_lab.tasks.motion_prior import FlowPrior
from deblur_lab.tasks.multi_stage import MultiStageDeblurring
from deblur_lab.tasks.progressive import EncoderStart, ProgressiveDeblurring
from deblur_lab.tasks.schedules import warmup_cosine
from deblur_lab.tasks.training import TrainingTask

__all__ = [
    "EncoderStart",
    "EvaluationTask",
    "FlowPrior",
    "GivenPictures",
    "KernelEstimation",
    "KernelGuidedDeblurring",
    "LocalDeblurring",
    "MultiStageDeblurring",
    "ProgressiveDeblurring",
    "RestorationTask",
    "TrainingTask",
    "warmup_cosine",
]
