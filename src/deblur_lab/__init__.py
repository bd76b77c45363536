"""Motion deblurring: M2AENet and NAFNet, trained, scored and applied.

>>> import deblur_lab
>>> net = deblur_lab.load_model("runs/demo/checkpoints/last.ckpt")  # doctest: +SKIP
>>> restored = net(blurry)  # (B, 3, H, W), RGB in [0, 1], any height and width  # doctest: +SKIP
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["__version__", "load_model"]
__version__ = "0.1.0"


def load_model(path: str | os.PathLike[str]) -> "nn.Module":
    """The network of a checkpoint, in eval mode on the CPU: images in, restored images out.

    Args:
        path: of a checkpoint that `deblur_lab.train` wrote; its architecture and size are found in it.

    Returns:
        A module that maps (B, 3, H, W) RGB in [0, 1], of any height and width, to restored images of the
        same shape, not clamped.

    Raises:
        CheckpointError: the file cannot be read, is not ours, or its weights do not fit.
    """
    from pathlib import Path

    from deblur_lab.checkpoints import load_net

    return load_net(Path(path))[0]
