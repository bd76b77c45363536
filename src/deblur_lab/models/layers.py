"""The layers that NAFNet and its relatives are made of; every one keeps channels_last tensors as they are.

NAFNet is of Chen et al. 2022, "Simple baselines for image restoration", section 3.
"""

from collections.abc import Iterable
from typing import ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of each pixel, as in NAFNet.

    The kernel of `F.layer_norm` takes its statistics in float32 whatever the input's type, autocast or not.
    It reads a channels_last tensor as it lies in memory; any other layout costs a copy.

    Shape:
        (B, C, H, W) to (B, C, H, W), channels_last.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, features: Tensor) -> Tensor:
        """Normalise each pixel's channels to mean 0 and variance 1 (biased), then scale and shift them."""
        pixels = features.permute(0, 2, 3, 1)
        return F.layer_norm(pixels, self.weight.shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class SimpleGate(nn.Module):
    """The product of the two halves of the channels: (B, 2C, H, W) to (B, C, H, W), as in NAFNet."""

    def forward(self, features: Tensor) -> Tensor:
        """Multiply the first half of the channels by the second."""
        first, second = features.chunk(2, dim=1)
        return first * second


@runtime_checkable
class HasConverter(Protocol):
    """A network with channel attention that can pool locally at test time."""

    def set_tlc(self, train_size_px: int | None) -> None:
        """Pool over windows as large as at training on patches of this side; None: over the whole image."""
        ...


class AveragePool(nn.Module):
    """The mean over the whole picture or, with the test-time local converter on, over a window at each pixel.

    The converter (TLC, Chu et al. 2022, "Improving image restoration by revisiting global information
    aggregation") lets a net that was trained on patches average over as much of a large picture as it saw in
    training. It is off at first; `set_windows` turns it on. It is no part of the state dict.

    Attributes:
        window_px: side of the square window in pixels of the features, or None for the whole picture.

    Shape:
        (B, C, H, W) to float32 (B, C, 1, 1), or (B, C, H, W) where the picture is larger than the window.
    """

    def __init__(self) -> None:
        super().__init__()
        self.window_px: int | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Average in float32."""
        height, width = features.shape[-2:]
        if self.window_px is None or (self.window_px >= height and self.window_px >= width):
            # Through (B, H * W, C): the gradient of a plain mean over (2, 3) is not channels_last, and where
            # it is added to one that is, channel attention trains 1.5 to 4 times as slowly on a CPU.
            pixels = features.permute(0, 2, 3, 1).flatten(1, 2)
            return pixels.mean(1, dtype=torch.float32)[:, :, None, None]
        return local_average(features.float(), self.window_px)


def local_average(features: Tensor, window_px: int) -> Tensor:
    """Return the mean over a square window around each pixel.

    The window slides inside the picture; where its centre comes too near to the edge, the nearest whole
    window's mean stands in (replicate padding). A side shorter than the window is averaged whole.

    One axis after the other, by cumulative sums that start anew every `window_px` pixels: a table summed over
    the whole picture outgrows float32, and its small differences are noise.

    Args:
        features: (B, C, H, W), float.
        window_px: side of the window, at least 1.

    Returns:
        (B, C, H, W), type of `features`.
    """
    height, width = features.shape[-2:]
    rows, columns = min(window_px, height), min(window_px, width)
    pixels = features.permute(0, 2, 3, 1)  # so that the sums of a channels_last tensor are channels_last too
    means = _sliding_mean(_sliding_mean(pixels, columns, dim=2), rows, dim=1).permute(0, 3, 1, 2)
    above, left = (rows - 1) // 2, (columns - 1) // 2
    return F.pad(means, (left, columns - 1 - left, above, rows - 1 - above), mode="replicate")


def _sliding_mean(pixels: Tensor, length: int, dim: int) -> Tensor:
    """Average (B, H, W, C) over each run of `length` pixels along `dim`, 1 or 2."""
    count = pixels.shape[dim]
    segments = -(-count // length)
    missing = segments * length - count
    pixels = F.pad(pixels, (0, 0) * (3 - dim) + (0, missing))
    sums = torch.unflatten(pixels, dim, (segments, length)).cumsum(dim + 1)
    before, after = sums.narrow(dim, 0, segments - 1), sums.narrow(dim, 1, segments - 1)
    # A run is the end of one segment, its total less its beginning, and the beginning of the next segment.
    runs = (before.narrow(dim + 1, length - 1, 1) + (after - before)).flatten(dim, dim + 1)
    first = sums.select(dim, 0).narrow(dim, length - 1, 1)
    return torch.cat([first, runs.narrow(dim, 0, count - length)], dim) / length


def tlc_windows_px(train_size_px: int, levels: int) -> list[int]:
    """Return the window of the test-time local converter at each scale of a net that halves `levels` times.

    It is 1.5 times the size that a training patch has at that scale, as the published converter computes it:
    feature size * floor(1.5 * training size) // training size, the feature size after the net's padding.

    Args:
        train_size_px: side of the square training patches.
        levels: how often the net halves the resolution.

    Returns:
        levels + 1 windows in pixels of each scale, the full resolution first.

    Raises:
        ConfigurationError: if `train_size_px` is not positive.
    """
    if train_size_px < 1:
        raise ConfigurationError(
            f"train_size_px is {train_size_px}: give the side of the training patches, at least 1"
        )
    multiple = 2**levels
    padded_px = -(-train_size_px // multiple) * multiple
    return [padded_px // 2**level * int(1.5 * train_size_px) // train_size_px for level in range(levels + 1)]


def set_windows(parts: Iterable[nn.Module], window_px: int | None) -> None:
    """Let every `AveragePool` inside `parts` average over `window_px` pixels a side (None: everything)."""
    for part in parts:
        for module in part.modules():
            if isinstance(module, AveragePool):
                module.window_px = window_px


class SimplifiedChannelAttention(nn.Sequential):
    """Scale the channels by a linear map of their means, as NAFNet does.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__(AveragePool(), nn.Conv2d(channels, channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Scale the channels."""
        pool, scale = self
        scaled: Tensor = features * scale(pool(features))
        return scaled


class NAFBlock(nn.Module):
    """NAFNet's block.

    The names of its parts are those of the published checkpoints. `beta` and `gamma` start at zero, so that a
    new block is the identity.

    Attributes:
        repeated: True, here and in subclasses: a net is many of these, and whoever wants it compiled region
            by region compiles each module that says so. `forward` is one graph.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    repeated: ClassVar[bool] = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.sca = SimplifiedChannelAttention(channels)
        self.gate = SimpleGate()
        self.conv4 = nn.Conv2d(channels, wide, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.norm1 = LayerNorm2d(channels)
        self.norm2 = LayerNorm2d(channels)
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Mix space and channels, then the channels of each pixel, each added to what came in."""
        mixed = self.conv2(self.conv1(self.norm1(features)))
        features = features + self.conv3(self.sca(self.gate(mixed))) * self.beta
        mixed = self.conv4(self.norm2(features))
        restored: Tensor = features + self.conv5(self.gate(mixed)) * self.gamma
        return restored
