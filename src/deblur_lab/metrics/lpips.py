"""LPIPS, a learned distance of pictures, through torchmetrics: there where its weights already are."""

import math
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_BACKBONE = "alexnet-owt-7be5be79.pth"  # torchvision's file of AlexNet's weights, trained on ImageNet
_SMALLEST_PX = 31  # below it AlexNet's last layers have no pixel left


def lpips_missing() -> str | None:
    """Why LPIPS cannot be computed here, and what to do; None if it can. Nothing is downloaded."""
    for package in ("torchmetrics", "torchvision"):
        if find_spec(package) is None:
            return f"{package} is not installed: pip install {package}"
    path = backbone_path()
    if not path.is_file():
        address = f"https://download.pytorch.org/models/{_BACKBONE}"
        return f"AlexNet's weights are not there: put {address} into {path.parent}"
    return None


def lpips_available() -> bool:
    """Whether LPIPS can be computed on this machine, without downloading anything."""
    return lpips_missing() is None


def backbone_path() -> Path:
    """Where torchvision looks for AlexNet's weights: the folder of `torch.hub`, ``TORCH_HOME`` moves it."""
    return Path(torch.hub.get_dir()) / "checkpoints" / _BACKBONE


def lpips(restored: Tensor, sharp: Tensor) -> float:
    """Learned perceptual distance (Zhang et al. 2018, "The unreasonable effectiveness of deep features").

    Version 0.1 on AlexNet, computed in float32.

    Args:
        restored: (3, H, W) in [0, 1].
        sharp: of the same shape.

    Returns:
        0 or more; lower is better. NaN where it is not available (`lpips_missing` says why), and of pictures
        of a side below 31 pixels.
    """
    if not lpips_available() or min(sharp.shape[-2:]) < _SMALLEST_PX:
        return math.nan
    net = _net()
    with torch.inference_mode():
        distance = net(*(2 * image.float().cpu().unsqueeze(0) - 1 for image in (restored, sharp)))
    return float(distance.squeeze())


@cache
def _net() -> Any:  # noqa: ANN401 - torchmetrics has no types for it
    from torchmetrics.functional.image.lpips import _LPIPS

    return _LPIPS(pretrained=True, net="alex", eval_mode=True)
