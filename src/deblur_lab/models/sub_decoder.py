"""AIBNet's sub-decoder and the block that it is made of (section 3.2, figure 2)."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deblur_lab.models.decoupler import statistics_kept
from deblur_lab.models.fusion import Fusion
from deblur_lab.models.hfs_block import HFSBlock, KeptAttention
from deblur_lab.models.layers import LayerNorm2d, SimpleGate, SimplifiedChannelAttention


class Part(Protocol):
    """What AIBNet asks of a part that it makes many of: SFEM, HFSBlock, or another in their places."""

    def make(self, channels: int, depth: int, added: bool) -> nn.Module:
        """Make the part of one block.

        Args:
            channels: C.
            depth: the number of the block in its sub-decoder, from 1, the lowest resolution first.
            added: whether the part is to add what it is given to its result. It is so in HFSBlock's place;
                in SFEM's the block around it weighs and adds the result.

        Returns:
            A module from (B, C, H, W) to (B, C, H, W), channels_last.
        """


class SFDHBlock(nn.Module):
    """The spatial feature differential handling block (eq. 1).

    NAFNet's channel attention and `spatial`, SFEM in the paper, look at the same normalised features; both
    are added to what came in, the latter weighted by W. Then the channels of each pixel and its neighbours
    are mixed.

    Assumes:
        - W is one number a channel.

    Args:
        channels: C.
        spatial: what W weighs, from (B, C, H, W) to the same; None: nothing (table 3).

    Attributes:
        repeated: as `NAFBlock.repeated`.

    Shape:
        (B, C, H, W) to (B, C, H, W), channels_last.
    """

    repeated: ClassVar[bool] = True

    def __init__(self, channels: int, spatial: nn.Module | None) -> None:
        super().__init__()
        wide = 2 * channels
        self.norm1 = LayerNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.gate = SimpleGate()
        self.sca = SimplifiedChannelAttention(channels)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.spatial = spatial
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1)) if spatial is not None else None
        self.norm2 = LayerNorm2d(channels)
        self.conv4 = nn.Conv2d(channels, wide, 1)
        self.conv5 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.conv6 = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Handle space, then each pixel's channels."""
        attended, enhanced = self.branches(features)
        features = features + attended
        if enhanced is not None:
            features = features + enhanced
        mixed = self.conv5(self.conv4(self.norm2(features)))
        handled: Tensor = features + self.conv6(self.gate(mixed))
        return handled

    def branches(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """What is added to the features first: SCA's and the weighted SFEM's (None without), as them."""
        normed = _as_convolved(self.norm1(features))
        attended: Tensor = self.conv3(self.sca(self.gate(self.conv2(self.conv1(normed)))))
        if self.spatial is None or self.weight is None:
            return attended, None
        return attended, self.weight * self.spatial(normed)


class BlockMaps(NamedTuple):
    """Features inside the last blocks of a scale of a sub-decoder (figures 4 and 5).

    Attributes:
        before: (B, C, h, w), what enters the last SFDHBlock; None if there is none, and, as all features,
            where only `kept` was asked for.
        sca: of the same shape, what its channel attention adds.
        sfem: what its SFEM adds, weighted by W; None without.
        before_hfs: what enters the HFSBlock.
        after_hfs: what leaves it; None without.
        kept: what each mask of the HFSBlock keeps; None without, and where another part stands in its place.
    """

    before: Tensor | None
    sca: Tensor | None
    sfem: Tensor | None
    before_hfs: Tensor | None
    after_hfs: Tensor | None
    kept: KeptAttention | None


class SubDecoder(nn.Module):
    """One of AIBNet's decoders: at each scale up, the skip added, SFDHBlocks, an HFSBlock (section 3.1).

    Its last convolution starts at zero, so that a new sub-decoder returns the picture that it is given.

    Args:
        width: channels at full resolution.
        levels: scales, each of half the resolution and twice the channels.
        blocks: N, SFDHBlocks at each scale.
        spatial: makes what stands in SFEM's place; None: nothing.
        frequency: makes what stands in HFSBlock's place; None: nothing.
        fusion: makes what changes the skips first; None: they are taken as they are.
    """

    def __init__(
        self,
        width: int,
        levels: int,
        blocks: int,
        spatial: Part | None,
        frequency: Part | None,
        fusion: Fusion | None = None,
    ) -> None:
        super().__init__()
        self.fusion = None if fusion is None else fusion.make(width, levels)
        self.ups = nn.ModuleList()
        self.decoders = nn.ModuleList()
        self.frequencies = nn.ModuleList()
        depth = 0
        for level in reversed(range(levels)):
            channels = width * 2**level
            up = nn.Conv2d(2 * channels, 4 * channels, 1, bias=False)
            self.ups.append(nn.Sequential(up, nn.PixelShuffle(2)))
            decoder = nn.ModuleList()
            for _ in range(blocks):
                depth += 1
                part = None if spatial is None else spatial.make(channels, depth, added=False)
                decoder.append(SFDHBlock(channels, part))
            self.decoders.append(decoder)
            if frequency is not None:
                self.frequencies.append(frequency.make(channels, max(1, depth), added=True))
        self.ending = nn.Conv2d(width, 3, 3, padding=1)
        for parameter in self.ending.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, deepest: Tensor, skips: Sequence[Tensor], padded: Tensor, checkpoint_blocks: bool = False
    ) -> list[Tensor]:
        """Compute features at each scale.

        Args:
            deepest: (B, width * 2**levels, h, w), the encoder's last features.
            skips: the encoder's features or the previous sub-decoder's, the full resolution first.
            padded: (B, 3, H, W), the picture.
            checkpoint_blocks: keep what enters each block alone, and compute it twice.

        Returns:
            The features at each scale, as `skips`.
        """
        if self.fusion is not None:
            skips = self.fusion(skips, padded)
        features, found = deepest, []
        for scale, skip in enumerate(reversed(skips)):
            features = self.ups[scale](features) + skip
            for block in self._blocks(scale):
                features = _checkpointed(block, features) if checkpoint_blocks else block(features)
            found.append(features)
        return found[::-1]

    def residual(self, features: Sequence[Tensor]) -> Tensor:
        """Compute what is added to the picture, (B, 3, H, W), from what `forward` returned."""
        residual: Tensor = self.ending(features[0])
        return residual

    def inspect(
        self, deepest: Tensor, skips: Sequence[Tensor], padded: Tensor, keep_features: bool = True
    ) -> tuple[list[Tensor], list[BlockMaps]]:
        """As `forward`; and what is inside the last blocks of each scale, the full resolution first.

        Args:
            deepest: as `forward`'s.
            skips: as `forward`'s.
            padded: as `forward`'s.
            keep_features: False: tell of the masks alone, in little memory.
        """
        if self.fusion is not None:
            skips = self.fusion(skips, padded)
        features, found, maps = deepest, [], []
        for scale, skip in enumerate(reversed(skips)):
            features = self.ups[scale](features) + skip
            before = sca = sfem = after = kept = None
            for block in self._decoder(scale):
                before = features
                features = block(features)
            if before is not None and keep_features:
                sca, sfem = self._decoder(scale)[-1].branches(before)
            before_hfs = features
            if self.frequencies:
                frequency = self.frequencies[scale]
                features = after = frequency(features)
                kept = frequency.examined(before_hfs) if isinstance(frequency, HFSBlock) else None
            found.append(features)
            maps.append(
                BlockMaps(before, sca, sfem, before_hfs, after, kept)
                if keep_features
                else BlockMaps(None, None, None, None, None, kept)
            )
        return found[::-1], maps[::-1]

    def parts_at(self, level: int) -> list[nn.Module]:
        """All blocks at a scale, 0 the full resolution."""
        return self._blocks(len(self.decoders) - 1 - level)

    def _decoder(self, scale: int) -> list[SFDHBlock]:
        decoder = self.decoders[scale]
        assert isinstance(decoder, nn.ModuleList)
        return [block for block in decoder if isinstance(block, SFDHBlock)]

    def _blocks(self, scale: int) -> list[nn.Module]:
        """The blocks at a scale, the lowest resolution first."""
        return [*self._decoder(scale), *([self.frequencies[scale]] if self.frequencies else [])]


def _checkpointed(block: nn.Module, features: Tensor) -> Tensor:
    """Run a block, keep what enters it alone, and compute it again on the way back."""

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        # Batch norms must not follow the same batch twice.
        return nullcontext(), statistics_kept(block)

    computed: Tensor = checkpoint(
        block, features, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
    )
    return computed


def _as_convolved(features: Tensor) -> Tensor:
    """Cast once to what autocast convolves in: else each convolution casts, and keeps a copy, for itself."""
    device = features.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        return features.to(torch.get_autocast_dtype(device))
    return features
