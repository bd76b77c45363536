"""One level of a Laplacian pyramid (Burt & Adelson 1983)."""

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS = (0.05, 0.25, 0.4, 0.25, 0.05)
"""Of the blur along either side; their sum is 1."""


def pyramid_laplacian(picture: Tensor) -> Tensor:
    """Return the picture less what one level of the pyramid keeps of it.

    That is: the picture blurred, every second row and column dropped, zeros put in their places, and blurred
    again at four times the weight. Edges are replicated. It is linear.

    Args:
        picture: (B, C, H, W), float32 or float64.

    Returns:
        Of the same shape and type; computed in that type, autocast or not.
    """
    with torch.autocast(picture.device.type, enabled=False):
        kept = torch.zeros_like(picture)
        kept[..., ::2, ::2] = 4 * _blurred(picture)[..., ::2, ::2]
        return picture - _blurred(kept)


def _blurred(picture: Tensor) -> Tensor:
    channels, margin = picture.shape[1], len(TAPS) // 2
    taps = picture.new_tensor(TAPS)
    padded = F.pad(picture, (margin, margin, margin, margin), mode="replicate")
    across = F.conv2d(padded, taps.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)
    return F.conv2d(across, taps.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)
