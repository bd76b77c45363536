"""Nets that do something to a picture, small and untrained, and their checkpoints."""

from pathlib import Path

import torch
from torch import Tensor, nn

from deblur_lab.checkpoints import RECORD_KEY
from deblur_lab.models import AIBNet, M2AENet, NAFNet


class Fade(nn.Module):
    """Half of the picture over gray: known exactly, pixel by pixel."""

    def forward(self, blurry: Tensor) -> Tensor:
        return 0.5 * blurry + 0.25


def lively(net: NAFNet, seed: int = 0) -> NAFNet:
    """A net whose blocks and end, which start as the identity, are random: it changes pictures a lot."""
    torch.manual_seed(seed)
    for name, parameter in net.named_parameters():
        if name.endswith(("beta", "gamma")):
            nn.init.normal_(parameter, std=0.5)
        if ".sca.1.weight" in name:
            parameter.data *= 5  # what it averages over the picture matters
    nn.init.normal_(net.ending.weight, std=0.02)
    return net.eval()


def small_nafnet() -> NAFNet:
    """Four scales, an average over the picture in each of eight blocks."""
    torch.manual_seed(0)
    return lively(NAFNet(4, [1, 1, 1, 1], 1, [1, 1, 0, 1]))


def small_m2aenet() -> M2AENet:
    """Three scales, with masks and motion."""
    torch.manual_seed(0)
    net = M2AENet(4, [1, 1, 1], 1, [1, 0, 1], predictor_stages=[3])
    lively(net)
    return net


def small_aibnet(sub_decoders: int = 2) -> AIBNet:
    """Two scales over a NAFNet's encoder, sub-decoders of one block a scale that all change the picture."""
    torch.manual_seed(0)
    net = AIBNet(NAFNet(8, [1, 1], 1, [1, 1]), sub_decoders, blocks=1)
    for name, parameter in net.named_parameters():
        if name.endswith("ending.weight"):
            nn.init.normal_(parameter, std=0.02)
    return net.eval()


def checkpoint_of(net: nn.Module, path: Path, **settings: object) -> Path:
    """A file as a run writes it, of a net that is built with these settings."""
    node = {"_target_": f"deblur_lab.models.{type(net).__name__}", **settings}
    weights = {f"net.{key}": value for key, value in net.state_dict().items()}
    torch.save({RECORD_KEY: {"config": {"model": {"net": node}}}, "state_dict": weights}, path)
    return path
