"""UFPNet's kernel estimator: from a blurry picture to a blur kernel at each pixel, and how sure it is.

UFPNet is of Fang et al. 2023, "Self-supervised non-uniform kernel estimation with flow-based motion prior for
blind image deblurring". The names of the parts are those of the published checkpoint.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError
from deblur_lab.ranges import Count

MULTIPLE = 4
"""Height and width of what the estimator sees are multiples of this."""


class KernelEstimator(nn.Module):
    """A small U-Net with two heads: one for the kernels, before the motion prior, and one for their doubt.

    At the defaults it has 5,619,858 parameters.

    Args:
        kernel_size_px: side K of the square kernels.
        width: channels at full resolution; twice and four times as many at half and a quarter.

    Shape:
        (B, 3, H, W), RGB in [0, 1], H and W multiples of 4, to float32 (B, K*K, H, W) and (B, 1, H, W).

    Raises:
        ConfigurationError: if a size is out of range.
    """

    def __init__(self, kernel_size_px: Count = 19, width: Count = 64) -> None:
        super().__init__()
        if kernel_size_px < 3 or kernel_size_px % 2 == 0:
            raise ConfigurationError(
                f"kernel_size_px is {kernel_size_px}: give an odd number, at least 3, so that a kernel has a "
                "middle"
            )
        if width < 1:
            raise ConfigurationError(f"estimator_width is {width}: give at least 1 channel")
        self.width = width
        entries = kernel_size_px**2
        self.Encoding_Block1 = _EncodingBlock(3, width)
        self.Encoding_Block2 = _EncodingBlock(width, 2 * width)
        self.Conv_mid = _Middle(2 * width, 4 * width)
        self.Decoding_Block1 = _DecodingBlock(4 * width, 2 * width)
        self.Decoding_Block2 = _DecodingBlock(2 * width, width)
        self.Conv_tail = nn.ModuleDict({"mean": _head(width, entries), "var": _head(width, entries)})

    def forward(self, blurry: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate the kernels and how uncertain they are.

        Returns:
            mean: (B, K*K, H, W) float32, each pixel's K*K entries not negative and with sum 1, row by row.
            sigma: (B, 1, H, W) float32 in [0, 1].
        """
        logits, sigma = self.logits(blurry)
        return logits.float().softmax(1), sigma

    def logits(self, blurry: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, but what the softmax is taken of, in the type that convolutions compute in."""
        features, full = self.Encoding_Block1(blurry)
        features, half = self.Encoding_Block2(features)
        features = self.Decoding_Block1(self.Conv_mid(features), half)
        features = self.Decoding_Block2(features, full)
        # The doubt first, and in place: it is as large as the kernels, and gone before they come.
        doubt = self.Conv_tail["var"](features).sigmoid_()
        sigma = doubt.mean(1, keepdim=True, dtype=torch.promote_types(doubt.dtype, torch.float32))
        del doubt
        return self.Conv_tail["mean"](features), sigma


class _EncodingBlock(nn.Module):
    """(B, C, H, W) to features at half the resolution, and those before halving."""

    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        self.Conv_head = nn.Conv2d(channels, wide, 3, padding=1)
        self.ResBlock1 = _ResidualBlock(wide)
        self.ResBlock2 = _ResidualBlock(wide)
        self.downsample = nn.Conv2d(wide, wide, 3, stride=2, padding=1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        skip = F.relu(self.ResBlock2(self.ResBlock1(self.Conv_head(features))))
        return self.downsample(skip), skip


class _DecodingBlock(nn.Module):
    """Features and those of twice the resolution, with half the channels, to features like the latter."""

    def __init__(self, channels: int, narrow: int) -> None:
        super().__init__()
        self.Conv_t = nn.ConvTranspose2d(channels, narrow, 3, stride=2, padding=1, output_padding=1)
        self.Conv_head = nn.Conv2d(2 * narrow, narrow, 3, padding=1)
        self.ResBlock1 = _ResidualBlock(narrow)
        self.ResBlock2 = _ResidualBlock(narrow)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        joined = torch.cat([self.Conv_t(features), skip], 1)
        return F.relu(self.ResBlock2(self.ResBlock1(self.Conv_head(joined))))


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        mixed: Tensor = features + self.body(features)
        return mixed


class _Middle(nn.Module):
    """Five convolutions at the lowest resolution."""

    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for entering in (channels, wide, wide, wide, wide):
            layers += [nn.Conv2d(entering, wide, 3, padding=1), nn.ReLU()]
        self.body = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        mixed: Tensor = self.body(features)
        return mixed


def _head(width: int, entries: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, entries, 3, padding=1)
    )
