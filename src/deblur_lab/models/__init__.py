"""The nets: plain modules, pictures in and restored pictures out."""

from deblur_lab.models.layers import HasConverter, NAFBlock
from deblur_lab.models.m2aenet import Analysis, Explanation, M2AENet, StageAnalysis
from deblur_lab.models.m2as_block import M2ASBlock
from deblur_lab.models.nafnet import NAFNet
from deblur_lab.models.trajectories import (
    LearnableTrajectory,
    LinearTrajectory,
    QuadraticTrajectory,
    Trajectory,
)

__all__ = [
    "Analysis",
    "Explanation",
    "HasConverter",
    "LearnableTrajectory",
    "LinearTrajectory",
    "M2AENet",
    "M2ASBlock",
    "NAFBlock",
    "NAFNet",
    "QuadraticTrajectory",
    "StageAnalysis",
    "Trajectory",
]
