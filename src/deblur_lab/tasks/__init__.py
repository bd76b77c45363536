"""LightningModules: what is trained, and how."""

from deblur_lab.tasks.base import (
    EvaluationTask,
    Explaining,
    Restoration,
    RestorationTask,
    mask_threshold,
    require_masks,
    restore,
)
from deblur_lab.tasks.local import LocalDeblurring
from deblur_lab.tasks.schedules import warmup_cosine

__all__ = [
    "EvaluationTask",
    "Explaining",
    "LocalDeblurring",
    "Restoration",
    "RestorationTask",
    "mask_threshold",
    "require_masks",
    "restore",
    "warmup_cosine",
]
