"""What M2AENet finds out about a picture's blur: which pixels are blurred, and how they moved.

Sections and equations are those of Shang et al. 2025, "Motion-aware adaptive pixel pruning for efficient
local motion deblurring".
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from deblur_lab.models.layers import AveragePool


class MaskPredictor(nn.Module):
    """Predict for each pixel whether it is blurred (section 3.1, equation 1).

    Each pixel's features pass a small perceptron; half of the result is kept, the other half averaged over
    the picture; a second perceptron decides from both. At 256 channels it has 173,378 parameters.

    Assumes:
        - The layers and their widths, which the paper refers to LMD-ViT for: linear, GELU, layer norm,
          linear; then C - C/2 - C/4 - 2 with GELU between. The paper's parameter count agrees.
        - The first half of the channels is the local one.
        - Under the test-time local converter this average is local too, as all others of the net.

    Shape:
        (B, C, H, W) to float32 (B, 2, H, W), logits; channel 0 is blurred, channel 1 sharp.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Linear(channels, channels), nn.GELU(), nn.LayerNorm(channels), nn.Linear(channels, channels)
        )
        self.pool = AveragePool()
        half, quarter = max(channels // 2, 1), max(channels // 4, 1)
        self.decide = nn.Sequential(
            nn.Linear(channels, half), nn.GELU(), nn.Linear(half, quarter), nn.GELU(), nn.Linear(quarter, 2)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits, in float32 under autocast too."""
        with _without_autocast(features.device):
            pixels = features.to(next(self.parameters()).dtype).permute(0, 2, 3, 1)
            local, rest = self.embed(pixels).tensor_split(2, dim=-1)
            average = self.pool(rest.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).to(rest.dtype)
            logits: Tensor = self.decide(torch.cat([local, average.expand_as(rest)], dim=-1))
        return logits.permute(0, 3, 1, 2).float()


class MotionAnalyzer(nn.Module):
    """Predict the numbers that make each pixel's trajectory, by one 3x3 convolution (section 3.2).

    At 256 channels and the quadratic trajectory's four numbers it has 9,220 parameters.

    Assumes:
        - The convolution starts as PyTorch's do, uniformly random: displacements of a few hundredths of a
          pixel. It must not start at zero: an exposure played backwards leaves the same blur, so the reblur
          loss is the same for a motion and its reverse, and zero motion, midway between the two, is a
          stationary point that training would not leave.

    Shape:
        (B, C, H, W) to float32 (B, offset_channels, H, W), in pixels.
    """

    def __init__(self, channels: int, offset_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, offset_channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the numbers, computed in float32 under autocast too: bfloat16 has no hundredths of 10 px."""
        with _without_autocast(features.device):
            offsets: Tensor = self.conv(features.to(self.conv.weight.dtype))
        return offsets.float()


def _without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Turn autocast off; where there is none, as on the device "meta", PyTorch would refuse to."""
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()
