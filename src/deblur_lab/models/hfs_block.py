"""AIBNet's high-frequency feature selection block (section 3.3, eq. 4 and 5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError
from deblur_lab.models.channel_attention import ChannelLogits, attended, to_features, to_pixels
from deblur_lab.models.decoupler import Decoupler
from deblur_lab.ranges import Count, Natural

MaskedAs = Literal["minus_infinity", "zero"]


class KeptAttention(NamedTuple):
    """What the masks of one block keep.

    Attributes:
        attention: (B, masks), the share from 0 to 1 of the attention before masking, a softmax over whole
            rows, that lies in the entries which each mask keeps.
        entries: (B, masks), the share of the entries that it keeps.
        weights: (masks,), lambda of eq. 4; may be negative.
    """

    attention: Tensor
    entries: Tensor
    weights: Tensor


class SparseSelection(nn.Module):
    """Several softmaxes over the largest logits of each row, added up with learned weights (eq. 4 and 5).

    Of c logits in a row, a share of s keeps the ``floor(s * c)`` largest, and one at least; those that equal
    the smallest kept are kept with it.

    Args:
        shares: of a row that each mask keeps, as numerator and denominator.
        masked_as: what masked logits become before the softmax: minus infinity leaves them out; zero is what
            eq. 5 prints.
        weight: what each learned weight, lambda, starts at.

    Shape:
        float32 (B, h, c, c) to (B, h, c, c).
    """

    def __init__(self, shares: Sequence[tuple[int, int]], masked_as: MaskedAs, weight: float) -> None:
        super().__init__()
        if masked_as not in ("minus_infinity", "zero"):
            raise ConfigurationError(f"masked_as is {masked_as}: give minus_infinity or zero")
        self.shares = tuple(shares)
        self.masked = 0.0 if masked_as == "zero" else float("-inf")
        self.weights = nn.Parameter(torch.full((len(self.shares),), weight))

    def forward(self, logits: Tensor) -> Tensor:
        """Add up the masked softmaxes."""
        weights = self.weights.to(logits.dtype)
        kept = self.kept(logits)
        # The values are multiplied once by the sum, not by each of its terms.
        terms = [
            weight * logits.masked_fill(~mask, self.masked).softmax(-1)
            for weight, mask in zip(weights, kept, strict=True)
        ]
        return torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]

    def kept(self, logits: Tensor) -> list[Tensor]:
        """Which logits each mask keeps: (B, h, c, c) bool."""
        columns = logits.shape[-1]
        falling = logits.detach().sort(-1, descending=True).values
        counts = [max(1, columns * numerator // denominator) for numerator, denominator in self.shares]
        return [logits >= falling[..., count - 1 : count] for count in counts]

    def examined(self, logits: Tensor) -> KeptAttention:
        """What each mask keeps of these logits."""
        dense, masks = logits.softmax(-1), self.kept(logits)
        attention = torch.stack([(dense * mask).sum(-1).mean((1, 2)) for mask in masks], dim=1)
        entries = torch.stack([mask.to(logits.dtype).mean((1, 2, 3)) for mask in masks], dim=1)
        return KeptAttention(attention, entries, self.weights.detach())


class HFSBlock(nn.Module):
    """Attention between the channels of high frequencies, of which the largest logits are kept (eq. 4, 5).

    The `Decoupler` gives high frequencies; a 1x1 convolution to three times the channels and a 3x3 depth-wise
    one give queries, keys and values; mask i, of 1 to n_m, keeps the largest i / (i + 1) of each row of the
    logits; the attentions are added up with learned weights lambda, applied, and added to what came in.

    Assumes:
        - One head; queries and keys are not normalised; the lambdas start at 1 / n_m, so that their sum is 1.
        - Without masks (n_m = 0, table 4) there is one softmax over all, with its own lambda.
        - No convolution ends it: eq. 4 has none.

    Args:
        channels: C, a multiple of 8, the Decoupler's groups.
        masks: n_m, 4 in the paper (table 4: 0 to 5).
        heads: a divisor of C.
        normalize: scale queries and keys to length 1 over the pixels.
        masked_as: what masked logits become before the softmax: "minus_infinity" or eq. 5's literal "zero".
        added: whether to add what came in (eq. 4); not so in SFEM's place, where the block around it does.

    Attributes:
        repeated: as `NAFBlock.repeated`.

    Raises:
        ConfigurationError: if a number is out of range or does not divide the channels.

    Shape:
        (B, C, H, W) to (B, C, H, W), channels_last.
    """

    repeated: ClassVar[bool] = True

    def __init__(
        self,
        channels: int,
        masks: int = 4,
        heads: int = 1,
        normalize: bool = False,
        masked_as: MaskedAs = "minus_infinity",
        added: bool = True,
    ) -> None:
        super().__init__()
        if masks < 0:
            raise ConfigurationError(f"masks is {masks}: give 0 or more")
        wide = 3 * channels
        self.added = added
        self.decoupler = Decoupler(channels)
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.logits = ChannelLogits(channels, heads, normalize)
        shares = [(mask, mask + 1) for mask in range(1, masks + 1)] or [(1, 1)]
        self.selection = SparseSelection(shares, masked_as, 1 / len(shares))

    def forward(self, features: Tensor) -> Tensor:
        """Select high frequencies."""
        logits, value = self._logits(features)
        selected = to_features(attended(self.selection(logits), value), features.shape)
        return features + selected if self.added else selected

    def examined(self, features: Tensor) -> KeptAttention:
        """What each mask keeps for these features; one that keeps all stands for no masks."""
        return self.selection.examined(self._logits(features)[0])

    def _logits(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mixed = self.conv2(self.conv1(self.decoupler(features)))
        query, key, value = to_pixels(mixed).chunk(3, dim=2)
        return self.logits(query, key), value


@dataclass(frozen=True)
class FrequencySelection:
    """Makes HFSBlocks: AIBNet's part for the frequency domain, in `AIBNet.frequency`.

    Args:
        masks: n_m, the number of masks (table 4); 0: none, one dense attention.
        heads: of the attention.
        normalize: scale queries and keys to length 1 over the pixels, as Restormer does.
        masked_as: what masked logits become before the softmax: left out ("minus_infinity"), or the literal
            "zero" of eq. 5.
    """

    masks: Natural = 4
    heads: Count = 1
    normalize: bool = False
    masked_as: MaskedAs = "minus_infinity"

    def make(self, channels: int, depth: int, added: bool) -> nn.Module:
        """Make the part of one block, whatever its depth."""
        return HFSBlock(channels, self.masks, self.heads, self.normalize, self.masked_as, added)
