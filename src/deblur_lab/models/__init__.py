"""The nets: plain modules, pictures in and restored pictures out."""

from deblur_lab.models.aibnet import AIBNet, Inspection
from deblur_lab.models.fusion import DownwardFusion, Fusion, SupervisedAttention
from deblur_lab.models.hfs_block import FrequencySelection, HFSBlock, KeptAttention
from deblur_lab.models.kernel_estimator import KernelEstimator
from deblur_lab.models.layers import HasConverter, NAFBlock
from deblur_lab.models.m2aenet import Analysis, Explanation, M2AENet, StageAnalysis
from deblur_lab.models.m2as_block import M2ASBlock
from deblur_lab.models.motion_flow import MotionFlow
from deblur_lab.models.nafnet import NAFNet
from deblur_lab.models.peers import FFTformer, KBNetL, KBNetS, MPRNet, Peer, Restormer, Uformer
from deblur_lab.models.sfem import SFEM, DifferentialAttention
from deblur_lab.models.sub_decoder import BlockMaps, Part, SFDHBlock, SubDecoder
from deblur_lab.models.top_k_attention import TKSA, TTSA, PredictedTopKAttention, TopKAttention
from deblur_lab.models.trajectories import (
    LearnableTrajectory,
    LinearTrajectory,
    QuadraticTrajectory,
    Trajectory,
)
from deblur_lab.models.ufpnet import UFPNet

__all__ = [
    "SFEM",
    "TKSA",
    "TTSA",
    "AIBNet",
    "Analysis",
    "BlockMaps",
    "DifferentialAttention",
    "DownwardFusion",
    "Explanation",
    "FFTformer",
    "FrequencySelection",
    "Fusion",
    "HFSBlock",
    "HasConverter",
    "Inspection",
    "KBNetL",
    "KBNetS",
    "KeptAttention",
    "KernelEstimator",
    "LearnableTrajectory",
    "LinearTrajectory",
    "M2AENet",
    "M2ASBlock",
    "MPRNet",
    "MotionFlow",
    "NAFBlock",
    "NAFNet",
    "Part",
    "Peer",
    "PredictedTopKAttention",
    "QuadraticTrajectory",
    "Restormer",
    "SFDHBlock",
    "StageAnalysis",
    "SubDecoder",
    "SupervisedAttention",
    "TopKAttention",
    "Trajectory",
    "UFPNet",
    "Uformer",
]
