"""AIBNet ("Adaptive identification of blurred regions for accurate image deblurring").

Sections, equations and tables are those of the paper.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError
from deblur_lab.models.fusion import Fusion
from deblur_lab.models.hfs_block import FrequencySelection
from deblur_lab.models.layers import set_windows, tlc_windows_px
from deblur_lab.models.nafnet import NAFNet
from deblur_lab.models.sfem import DifferentialAttention
from deblur_lab.models.sub_decoder import BlockMaps, Part, SubDecoder
from deblur_lab.models.ufpnet import UFPNet
from deblur_lab.ranges import Count, Natural

_SFEM = DifferentialAttention()
_HFS_BLOCK = FrequencySelection()


class Inspection(NamedTuple):
    """Restored pictures, and what an AIBNet computed on the way.

    The maps see the padded picture: those of scale i have 2**i pixels of it along a side of one of theirs.

    Attributes:
        restorations: (B, 3, H, W), one a sub-decoder, not clamped.
        maps: for each sub-decoder, features inside the last blocks of each scale, the full resolution first.
    """

    restorations: tuple[Tensor, ...]
    maps: tuple[tuple[BlockMaps, ...], ...]


class AIBNet(nn.Module):
    """An encoder, mostly trained before and frozen, and one or more sub-decoders (section 3.1, figure 2).

    AIBNet-S, -B and -L have 1, 2 and 4 sub-decoders. At width 64 and N = 8 each has 41,001,719 parameters and
    takes 113.9 G multiply-adds at 256x256, without the products of its attentions (tables 7 and 10).

    A part of it in which nothing requires a gradient, and which is given nothing that does, runs without
    autograd: of a frozen encoder and frozen sub-decoders no activations are kept.

    In YAML, the paper's ablations are (``_target_`` in ``deblur_lab.models``):

    - table 3: ``spatial: null``, ``frequency: null``; table 4: ``frequency.masks`` from 0 to 5
    - table 5: ``encoder`` a ``UFPNet`` or ``NAFNet``
    - table 6: ``fusion`` a ``SupervisedAttention`` or ``DownwardFusion``
    - table 8: ``frequency`` a ``DifferentialAttention``; ``spatial`` a ``FrequencySelection``
    - table 9: ``frequency`` a ``TopKAttention`` or ``PredictedTopKAttention``

    Assumes:
        - A later sub-decoder takes the previous one's features at each scale in place of the encoder's; the
          deepest input is the encoder's for all.

    Args:
        encoder: a UFPNet or NAFNet, whole; its decoder is taken away.
        sub_decoders: how many.
        blocks: N, SFDHBlocks at each scale of a sub-decoder.
        spatial: makes what stands in SFEM's place; None: nothing.
        frequency: makes what stands in HFSBlock's place; None: nothing.
        fusion: makes what stands before each sub-decoder but the first; None: nothing, as in the paper.
        checkpoint_blocks: in training, keep what enters each block alone, and compute blocks twice: less
            memory, more time, the same gradients.

    Attributes:
        checkpoint_blocks: may be changed at any time.

    Raises:
        ConfigurationError: if a number is out of range or does not fit the encoder's width.
    """

    def __init__(
        self,
        encoder: NAFNet,
        sub_decoders: Count = 1,
        blocks: Natural = 8,
        spatial: Part | None = _SFEM,
        frequency: Part | None = _HFS_BLOCK,
        fusion: Fusion | None = None,
        checkpoint_blocks: bool = False,
    ) -> None:
        super().__init__()
        if sub_decoders < 1:
            raise ConfigurationError(f"sub_decoders is {sub_decoders}: give at least 1")
        if blocks < 0:
            raise ConfigurationError(f"blocks is {blocks}: give 0 or more")
        for name, maker in (("spatial", spatial), ("frequency", frequency), ("fusion", fusion)):
            if maker is not None and not callable(getattr(maker, "make", None)):
                raise ConfigurationError(
                    f"{name} is a {type(maker).__name__}, which makes no parts of blocks: give what does, as "
                    "DifferentialAttention, FrequencySelection or DownwardFusion do in their places"
                )
        self.width = encoder.width
        self.levels = encoder.levels
        self.checkpoint_blocks = checkpoint_blocks
        encoder.drop_decoder()
        self.encoder = encoder
        self.sub_decoders = nn.ModuleList(
            SubDecoder(self.width, self.levels, blocks, spatial, frequency, fusion if number else None)
            for number in range(sub_decoders)
        )

    def forward(self, blurry: Tensor, noise_seeds: Tensor | None = None) -> Tensor:
        """Restore pictures of any height and width, by all sub-decoders.

        Args:
            blurry: (B, 3, H, W), RGB in [0, 1].
            noise_seeds: as `UFPNet.forward`'s; nothing with another encoder.

        Returns:
            (B, 3, H, W): `blurry` plus the last sub-decoder's residual, not clamped.
        """
        padded = self.encoder.pad(blurry)
        deepest, features = self._encode(padded, noise_seeds)
        for decoder in self._sub_decoders():
            features = self._decode(decoder, deepest, features, padded)
        return _restored(decoder, features, padded, blurry)

    def restorations(self, blurry: Tensor, noise_seeds: Tensor | None = None) -> list[Tensor]:
        """Restore pictures, and return what each sub-decoder makes of them, the last being `forward`'s.

        Args:
            blurry: (B, 3, H, W), RGB in [0, 1].
            noise_seeds: as `forward`'s.

        Returns:
            (B, 3, H, W), one a sub-decoder, not clamped.
        """
        padded = self.encoder.pad(blurry)
        deepest, features = self._encode(padded, noise_seeds)
        restored = []
        for decoder in self._sub_decoders():
            features = self._decode(decoder, deepest, features, padded)
            restored.append(_restored(decoder, features, padded, blurry))
        return restored

    @torch.no_grad()
    def inspect(self, blurry: Tensor, every: bool = False) -> Inspection:
        """Restore pictures, and return features from inside (figures 4 and 5).

        Args:
            blurry: (B, 3, H, W), RGB in [0, 1].
            every: return features of every sub-decoder; they take much memory. Else those of the last, and of
                the others only what their masks keep.
        """
        padded = self.encoder.pad(blurry)
        deepest, features = self._encode(padded, None)
        restored, maps = [], []
        decoders = self._sub_decoders()
        for decoder in decoders:
            keep_features = every or decoder is decoders[-1]
            features, found = decoder.inspect(deepest, features, padded, keep_features)
            restored.append(_restored(decoder, features, padded, blurry))
            maps.append(tuple(found))
        return Inspection(tuple(restored), tuple(maps))

    def set_tlc(self, train_size_px: int | None) -> None:
        """Turn the test-time local converter of all channel attentions of NAFNet's kind on, or off with None.

        Attention between channels (SFEM, HFSBlock) and the Decoupler's filters stay those of the whole
        picture.

        Args:
            train_size_px: side of the patches that the net was trained on.

        Raises:
            ConfigurationError: if `train_size_px` is not positive.
        """
        self.encoder.set_tlc(train_size_px)
        windows: Sequence[int | None] = [None] * (self.levels + 1)
        if train_size_px is not None:
            windows = tlc_windows_px(train_size_px, self.levels)
        for decoder in self._sub_decoders():
            for level in range(self.levels):
                set_windows(decoder.parts_at(level), windows[level])

    def _encode(self, padded: Tensor, noise_seeds: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The deepest features, and those of each scale, the full resolution first."""
        encoder = self.encoder
        with torch.set_grad_enabled(_wants_gradients(encoder, [padded])):
            if isinstance(encoder, UFPNet):
                features, skips = encoder.encode(padded, noise_seeds)
            else:
                features, skips = encoder.encode(padded)
            return encoder.middle_blks(features), skips

    def _decode(
        self, decoder: SubDecoder, deepest: Tensor, features: Sequence[Tensor], padded: Tensor
    ) -> list[Tensor]:
        with torch.set_grad_enabled(_wants_gradients(decoder, [deepest, *features])):
            again = self.checkpoint_blocks and self.training and torch.is_grad_enabled()
            found: list[Tensor] = decoder(deepest, features, padded, again)
            return found

    def _sub_decoders(self) -> list[SubDecoder]:
        return [decoder for decoder in self.sub_decoders if isinstance(decoder, SubDecoder)]


def _wants_gradients(part: nn.Module, inputs: Sequence[Tensor]) -> bool:
    """Whether a gradient is to pass through a part: one is wanted, of it or of what it is given."""
    if not torch.is_grad_enabled():
        return False
    wanting = any(parameter.requires_grad for parameter in part.parameters())
    return wanting or any(tensor.requires_grad for tensor in inputs)


def _restored(decoder: SubDecoder, features: Sequence[Tensor], padded: Tensor, blurry: Tensor) -> Tensor:
    """The picture with a sub-decoder's residual, the padding cropped off."""
    restored = padded + decoder.residual(features)
    return restored[..., : blurry.shape[-2], : blurry.shape[-1]]
