"""What AIBNet's table 6 puts between one sub-decoder and the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError
from deblur_lab.models.layers import LayerNorm2d


class Fusion(Protocol):
    """What AIBNet asks of a fusion: a module of its own for each sub-decoder but the first."""

    def make(self, width: int, levels: int) -> nn.Module:
        """Make the fusion before one sub-decoder.

        Args:
            width: channels at full resolution, doubled at each of the coarser scales.
            levels: scales.

        Returns:
            A module called with the previous sub-decoder's features, `levels` of (B, C, h, w), the full
            resolution first, and the padded picture, (B, 3, H, W); it returns as many, of the same shapes.
        """


class SAM(nn.Module):
    """Supervised attention (MPRNet, Zamir et al. 2021, section 3.3), at each scale.

    An image is made from the features and added to the blurred one; a sigmoid of a convolution of that image
    gates another convolution of the features; the features are added.

    Assumes:
        - One at each scale, as sub-decoders hand on features at each; the blurred image is averaged down.
        - The images are not judged by a loss of their own: each sub-decoder's own image is.
        - Table 6 has 6.12 M parameters for it. Three of these have 1.07 M with 1x1 convolutions, as MPRNet's,
          and 9.56 M with 3x3 ones, and no arrangement of them that we tried has as many as the paper.

    Args:
        width: channels at full resolution.
        levels: scales.
        kernel_size_px: of the convolutions, odd.

    Shape:
        As `Fusion.make` says.
    """

    def __init__(self, width: int, levels: int, kernel_size_px: int) -> None:
        super().__init__()
        self.features, self.images, self.gates = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        margin = kernel_size_px // 2
        for level in range(levels):
            channels = width * 2**level
            self.features.append(nn.Conv2d(channels, channels, kernel_size_px, padding=margin))
            self.images.append(nn.Conv2d(channels, 3, kernel_size_px, padding=margin))
            self.gates.append(nn.Conv2d(3, channels, kernel_size_px, padding=margin))

    def forward(self, features: Sequence[Tensor], padded: Tensor) -> list[Tensor]:
        """Attend to the features by the image that is made from them."""
        fused = []
        convolutions = zip(self.features, self.images, self.gates, strict=True)
        for level, (scale, (of_features, image, gate)) in enumerate(zip(features, convolutions, strict=True)):
            picture = F.avg_pool2d(padded, 2**level) if level else padded
            attention = torch.sigmoid(gate(image(scale) + picture))
            fused.append(scale + of_features(scale) * attention)
        return fused


class Fuse(nn.Module):
    """Downward fusion (AdaRevD, Mao et al. 2024).

    At each scale but the finest, the features of the next finer one come down by a 2x2 convolution of
    stride 2 and a layer norm, and are added.

    Assumes:
        - Table 6 has 1.32 M parameters for it; three of these have 2.07 M, two 1.38 M. The paper does not say
          how it differs.

    Args:
        width: channels at full resolution.
        levels: scales.

    Shape:
        As `Fusion.make` says.
    """

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.downs = nn.ModuleList()
        for level in range(levels - 1):
            channels = width * 2**level
            down = nn.Conv2d(channels, 2 * channels, 2, stride=2)
            self.downs.append(nn.Sequential(down, LayerNorm2d(2 * channels)))

    def forward(self, features: Sequence[Tensor], padded: Tensor) -> list[Tensor]:
        """Add the finer scale to each."""
        coarser = [
            scale + down(finer)
            for down, finer, scale in zip(self.downs, features[:-1], features[1:], strict=True)
        ]
        return [features[0], *coarser]


@dataclass(frozen=True)
class SupervisedAttention:
    """Makes MPRNet's SAM (table 6, b), for `AIBNet.fusion`.

    Args:
        kernel_size_px: of its convolutions; MPRNet's is 1.

    Raises:
        ConfigurationError: if the size is neither 1 nor 3.
    """

    kernel_size_px: Literal[1, 3] = 1

    def __post_init__(self) -> None:
        if self.kernel_size_px not in (1, 3):
            raise ConfigurationError(f"kernel_size_px is {self.kernel_size_px}: give 1 or 3")

    def make(self, width: int, levels: int) -> nn.Module:
        """Make the fusion before one sub-decoder."""
        return SAM(width, levels, self.kernel_size_px)


@dataclass(frozen=True)
class DownwardFusion:
    """Makes AdaRevD's Fuse (table 6, c), for `AIBNet.fusion`."""

    def make(self, width: int, levels: int) -> nn.Module:
        """Make the fusion before one sub-decoder."""
        return Fuse(width, levels)
