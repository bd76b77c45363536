"""Top-k attentions of others, which AIBNet's table 9 puts into the place of HFSBlock."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from deblur_lab.models.channel_attention import ChannelLogits, attended, to_features, to_pixels
from deblur_lab.models.hfs_block import SparseSelection
from deblur_lab.ranges import Count

TKSA_SHARES = ((1, 2), (2, 3), (3, 4), (4, 5))


class TopKBlock(nn.Module):
    """What both have in common: queries, keys and values of the features themselves, and the way out.

    Attributes:
        repeated: as `NAFBlock.repeated`.

    Shape:
        (B, C, H, W) to (B, C, H, W), channels_last.
    """

    repeated: ClassVar[bool] = True

    def __init__(self, channels: int, heads: int, added: bool) -> None:
        super().__init__()
        wide = 3 * channels
        self.added = added
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.logits = ChannelLogits(channels, heads, normalize=True)
        self.conv3 = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Attend to the channels with the largest logits."""
        mixed = self.conv2(self.conv1(features))
        query, key, value = to_pixels(mixed).chunk(3, dim=2)
        attention = self.attention(self.logits(query, key), features)
        change: Tensor = self.conv3(to_features(attended(attention, value), features.shape))
        return features + change if self.added else change

    def attention(self, logits: Tensor, features: Tensor) -> Tensor:
        """From logits, (B, h, c, c), to an attention of that shape."""
        raise NotImplementedError


class TKSA(TopKBlock):
    """Top-k sparse attention (DRSformer, Chen et al. 2023, "Learning a sparse transformer network").

    Four softmaxes over the largest 1/2, 2/3, 3/4 and 4/5 of each row, weighted by learned numbers that start
    at 0.2. Queries and keys are normalised over the pixels, as there.

    Args:
        channels: C.
        heads: a divisor of C.
        added: whether to add what came in.

    Raises:
        ConfigurationError: if `heads` does not divide `channels`.
    """

    def __init__(self, channels: int, heads: int = 1, added: bool = True) -> None:
        super().__init__(channels, heads, added)
        self.selection = SparseSelection(TKSA_SHARES, "minus_infinity", 0.2)

    def attention(self, logits: Tensor, features: Tensor) -> Tensor:
        """Add up the four softmaxes."""
        return self.selection(logits)  # type: ignore[no-any-return]


class TTSA(TopKBlock):
    """Top-k attention whose kept share is predicted (Xiao et al. 2024, "TTST").

    The share follows from the means of the channels, by two linear maps with a ReLU between, and a sigmoid.
    Queries and keys are normalised over the pixels.

    Deviates:
        - Each picture has its share; the share that TTST computes is one for a batch.
        - The gradient of what is kept is that of a soft edge, a sigmoid of the rank (straight-through): a
          number that is rounded down has none, and the share would never be learned.

    Args:
        channels: C.
        heads: a divisor of C.
        added: whether to add what came in.

    Raises:
        ConfigurationError: if `heads` does not divide `channels`.
    """

    def __init__(self, channels: int, heads: int = 1, added: bool = True) -> None:
        super().__init__(channels, heads, added)
        narrow = max(1, channels // 2)
        self.share = nn.Sequential(nn.Linear(channels, narrow), nn.ReLU(), nn.Linear(narrow, 1), nn.Sigmoid())

    def attention(self, logits: Tensor, features: Tensor) -> Tensor:
        """Keep the predicted share of each row."""
        means = to_pixels(features).mean(1, dtype=logits.dtype).to(features.dtype)
        count = self.share(means).to(logits.dtype) * logits.shape[-1]
        count = count[:, :, None, None]
        rank = logits.detach().argsort(-1, descending=True).argsort(-1).to(logits.dtype)
        # The largest is always kept.
        hard = (rank < count.floor().clamp_min(1)).to(logits.dtype)
        soft = torch.sigmoid(count - rank - 0.5)
        kept = logits.softmax(-1) * (hard + (soft - soft.detach()))
        attention: Tensor = kept / kept.sum(-1, keepdim=True)
        return attention


@dataclass(frozen=True)
class TopKAttention:
    """Makes DRSformer's TKSA (table 9).

    Args:
        heads: of the attention.
    """

    heads: Count = 1

    def make(self, channels: int, depth: int, added: bool) -> nn.Module:
        """Make the part of one block, whatever its depth."""
        return TKSA(channels, self.heads, added)


@dataclass(frozen=True)
class PredictedTopKAttention:
    """Makes TTST's TTSA (table 9).

    Args:
        heads: of the attention.
    """

    heads: Count = 1

    def make(self, channels: int, depth: int, added: bool) -> nn.Module:
        """Make the part of one block, whatever its depth."""
        return TTSA(channels, self.heads, added)
