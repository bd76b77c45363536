"""What splits features into low and high frequencies by filters that depend on the picture."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError
from deblur_lab.models.channel_attention import full_precision


class Decoupler(nn.Module):
    """The dynamic filters of FSNet (Cui et al. 2024, "Image restoration via frequency selection").

    For each picture and group of channels, a low-pass filter is predicted from the means of all channels: a
    1x1 convolution without bias, a batch norm, a softmax over the filter's pixels. Edges are reflected.
    The high frequencies are what the filter takes away.

    Deviates:
        - In training, a batch of one picture is normalised by the running statistics: of one value there is
          no variance.
        - Where a side is too short to be reflected, it is replicated.

    Assumes:
        - The filter is predicted from the whole picture, with the test-time local converter too.

    Args:
        channels: C.
        groups: of channels that share a filter; a divisor of C.
        size_px: the filter's side, odd.

    Attributes:
        update_statistics: False lets training normalise by the batch without following it: for what is
            computed a second time.

    Raises:
        ConfigurationError: if `groups` does not divide `channels` or `size_px` is even.

    Shape:
        (B, C, H, W) to (B, C, H, W), channels_last.
    """

    def __init__(self, channels: int, groups: int = 8, size_px: int = 3) -> None:
        super().__init__()
        if groups < 1 or channels % groups:
            raise ConfigurationError(
                f"the Decoupler has {groups} groups, but {channels} channels are shared out: "
                f"give a divisor of {channels}, or a width that {groups} divides"
            )
        if size_px < 1 or size_px % 2 == 0:
            raise ConfigurationError(f"the Decoupler's size_px is {size_px}: give an odd number, from 1 on")
        self.groups = groups
        self.size_px = size_px
        self.conv = nn.Conv2d(channels, groups * size_px**2, 1, bias=False)
        self.bn = nn.BatchNorm2d(groups * size_px**2)
        self.update_statistics = True

    def forward(self, features: Tensor) -> Tensor:
        """Return the high frequencies, in the type of the features; computed in float32 at least."""
        return (features - self.low(features)).to(features.dtype)

    def low(self, features: Tensor) -> Tensor:
        """Return the low frequencies, (B, C, H, W), float32 at least."""
        height, width = features.shape[-2:]
        weights = self.filters(features)
        weights = weights.repeat_interleave(features.shape[1] // self.groups, dim=1)
        margin = self.size_px // 2
        around = _reflected(_reflected(features, 2, margin), 3, margin)
        low: Tensor | None = None
        # One shift after the other: shifts are views, and no unfolded copy of nine times the size is made.
        for pixel in range(self.size_px**2):
            row, column = divmod(pixel, self.size_px)
            shifted = around[:, :, row : row + height, column : column + width]
            weight = weights[:, :, pixel, None, None]
            low = shifted * weight if low is None else torch.addcmul(low, shifted, weight)
        assert low is not None
        return low

    def filters(self, features: Tensor) -> Tensor:
        """Predict the low-pass filters: (B, groups, size_px**2), float32 at least, row after row, sums 1."""
        kind = torch.promote_types(features.dtype, torch.float32)
        with full_precision(features.device):
            # Through (B, P, C), whose gradient is channels_last.
            means = features.permute(0, 2, 3, 1).flatten(1, 2).mean(1, dtype=kind)
            logits = self._normalized(self.conv(means[:, :, None, None].to(self.conv.weight.dtype)))
            return logits.to(kind).view(len(features), self.groups, self.size_px**2).softmax(-1)

    def _normalized(self, logits: Tensor) -> Tensor:
        norm = self.bn
        if self.training and len(logits) > 1:
            if self.update_statistics:
                followed: Tensor = norm(logits)
                return followed
            assert norm.running_mean is not None
            assert norm.running_var is not None
            # Copies follow in their place: a checkpoint wants as many tensors kept as the first time.
            mean, variance = norm.running_mean.clone(), norm.running_var.clone()
            return F.batch_norm(logits, mean, variance, norm.weight, norm.bias, True, 0.0, norm.eps)
        return F.batch_norm(
            logits, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
        )


@contextmanager
def statistics_kept(part: nn.Module) -> Iterator[None]:
    """Let no Decoupler inside `part` follow the batches that it meets in here."""
    following = [
        module for module in part.modules() if isinstance(module, Decoupler) and module.update_statistics
    ]
    for module in following:
        module.update_statistics = False
    try:
        yield
    finally:
        for module in following:
            module.update_statistics = True


def _reflected(features: Tensor, dim: int, margin: int) -> Tensor:
    """Continue both ends of `dim` by `margin` pixels; unlike `F.pad` it keeps channels_last on a GPU."""
    if not margin:
        return features
    count = features.shape[dim]
    if count > margin:
        before = features.narrow(dim, 1, margin).flip(dim)
        after = features.narrow(dim, count - 1 - margin, margin).flip(dim)
    else:
        before = features.narrow(dim, 0, 1).repeat_interleave(margin, dim)
        after = features.narrow(dim, count - 1, 1).repeat_interleave(margin, dim)
    return torch.cat([before, features, after], dim)
