"""AIBNet's spatial feature enhancement module (section 3.2.1, eq. 2 and 3)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deblur_lab.models.channel_attention import ChannelLogits, attended, to_features, to_pixels
from deblur_lab.models.layers import LayerNorm2d
from deblur_lab.ranges import Count

EXPONENT_LIMIT = 10.0
"""exp(10) is 22026: no alpha overflows float16, in which it may weigh values."""


class DifferentialWeight(nn.Module):
    """How much of the second attention is taken off the first: alpha of eq. 3.

    Four vectors of c = C / heads numbers for each head; alpha is exp of the dot product of the first two,
    less exp of that of the others, plus a constant. It is computed in float32 at least.

    Assumes:
        - The vectors start as normal noise of 0.1, and the constant is ``0.8 - 0.6 exp(-0.3 (depth - 1))``,
          as in the differential transformer (Ye et al. 2024); the paper gives neither.

    Deviates:
        - A dot product is cut off above 10, where exp would come near to what float16 can hold.

    Args:
        channels: C.
        depth: the block's number, from 1.
        alpha_init: the constant; None: by depth.
        heads: a divisor of C.

    Shape:
        Nothing to (heads, 1, 1).
    """

    def __init__(self, channels: int, depth: int, alpha_init: float | None = None, heads: int = 1) -> None:
        super().__init__()
        self.alpha_init = 0.8 - 0.6 * math.exp(-0.3 * (depth - 1)) if alpha_init is None else alpha_init
        # In the order of eq. 3: of the first query, the first key, the second query, the second key.
        self.vectors = nn.Parameter(torch.empty(4, heads, channels // heads))
        nn.init.normal_(self.vectors, std=0.1)

    def forward(self) -> Tensor:
        """Compute alpha."""
        query_1, key_1, query_2, key_2 = self.vectors.to(
            torch.promote_types(self.vectors.dtype, torch.float32)
        )
        first = (query_1 * key_1).sum(-1).clamp_max(EXPONENT_LIMIT).exp()
        second = (query_2 * key_2).sum(-1).clamp_max(EXPONENT_LIMIT).exp()
        alpha: Tensor = first - second + self.alpha_init
        return alpha[:, None, None]

    def extra_repr(self) -> str:
        """Torch's; the constant."""
        return f"alpha_init={self.alpha_init:.3g}"


class SFEM(nn.Module):
    """Differential attention between channels (AIBNet, eq. 2).

    A 1x1 convolution to five times the channels and a 3x3 depth-wise one give two queries, two keys and the
    values; two attentions over channels, the second weighted by alpha (eq. 3), are subtracted and applied to
    the values; a 1x1 convolution ends it.

    Assumes:
        - One head; queries and keys are not normalised; one beta for both attentions, as printed.

    Args:
        channels: C.
        depth: the block's number, from 1, which alpha's constant follows.
        alpha_init: alpha's constant; None: by depth.
        heads: a divisor of C.
        normalize: scale queries and keys to length 1 over the pixels.
        added: normalise the channels first, and add the result to what came in: for where no block around it
            does so.

    Raises:
        ConfigurationError: if `heads` does not divide `channels`.

    Shape:
        (B, C, H, W) to (B, C, H, W), channels_last.
    """

    def __init__(
        self,
        channels: int,
        depth: int,
        alpha_init: float | None = None,
        heads: int = 1,
        normalize: bool = False,
        added: bool = False,
    ) -> None:
        super().__init__()
        wide = 5 * channels
        self.norm = LayerNorm2d(channels) if added else None
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.logits = ChannelLogits(channels, heads, normalize)
        self.alpha = DifferentialWeight(channels, depth, alpha_init, heads)
        self.conv3 = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Attend."""
        normed = features if self.norm is None else self.norm(features)
        mixed = self.conv2(self.conv1(normed))
        query_1, key_1, query_2, key_2, value = to_pixels(mixed).chunk(5, dim=2)
        first = self.logits(query_1, key_1).softmax(-1)
        second = self.logits(query_2, key_2).softmax(-1)
        attention = first - self.alpha() * second
        enhanced: Tensor = self.conv3(to_features(attended(attention, value), features.shape))
        return enhanced if self.norm is None else features + enhanced


@dataclass(frozen=True)
class DifferentialAttention:
    """Makes SFEMs: AIBNet's part for the spatial domain, in `AIBNet.spatial`.

    Args:
        alpha_init: alpha_init of eq. 3; None: 0.8 - 0.6 exp(-0.3 (depth - 1)), where depth counts the blocks
            of a sub-decoder from 1, those of the lowest resolution first.
        heads: of the attention.
        normalize: scale queries and keys to length 1 over the pixels, as Restormer does.
    """

    alpha_init: float | None = None
    heads: Count = 1
    normalize: bool = False

    def make(self, channels: int, depth: int, added: bool) -> nn.Module:
        """Make the part of one block."""
        return SFEM(channels, depth, self.alpha_init, self.heads, self.normalize, added)
