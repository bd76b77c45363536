"""NAFNet (Chen et al. 2022, "Simple baselines for image restoration"), the backbone of both papers."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError
from deblur_lab.models.layers import NAFBlock, set_windows, tlc_windows_px
from deblur_lab.ranges import Count, Natural


class NAFNet(nn.Module):
    """A U-shaped net of NAFBlocks that halves the resolution and doubles the channels at each scale.

    Its keys are those of the published checkpoints: width 32 with [1, 1, 1, 28], 1, [1, 1, 1, 1] blocks has
    17,111,907 parameters and loads NAFNet-GoPro-width32.

    The net works in channels_last throughout: the input is converted once, here, and all layers keep it.

    Deviates:
        - The last convolution starts at zero, so that a new net returns its input,
          where the published one starts by adding noise to it. Short trainings gain; long ones need not care.

    Args:
        width: channels at full resolution.
        encoder_blocks: blocks of each encoder stage, the full resolution first.
        middle_blocks: blocks at the lowest resolution.
        decoder_blocks: blocks of each decoder stage, the lowest resolution first.

    Attributes:
        width: channels at full resolution.
        levels: how often the resolution is halved.

    Raises:
        ConfigurationError: if a size is out of range or the encoder and the decoder differ in length.
    """

    def __init__(
        self,
        width: Count = 32,
        encoder_blocks: Sequence[Natural] = (1, 1, 1, 28),
        middle_blocks: Natural = 1,
        decoder_blocks: Sequence[Natural] = (1, 1, 1, 1),
    ) -> None:
        super().__init__()
        _check_sizes(width, encoder_blocks, middle_blocks, decoder_blocks)
        self.width = width
        self.levels = len(encoder_blocks)
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.ending = nn.Conv2d(width, 3, 3, padding=1)
        for parameter in self.ending.parameters():
            nn.init.zeros_(parameter)
        self.encoders = nn.ModuleList()
        self.downs = nn.ModuleList()
        channels = width
        for count in encoder_blocks:
            self.encoders.append(_stage(channels, count))
            self.downs.append(nn.Conv2d(channels, 2 * channels, 2, stride=2))
            channels *= 2
        self.middle_blks = _stage(channels, middle_blocks)
        self.ups = nn.ModuleList()
        self.decoders = nn.ModuleList()
        for count in decoder_blocks:
            self.ups.append(
                nn.Sequential(nn.Conv2d(channels, 2 * channels, 1, bias=False), nn.PixelShuffle(2))
            )
            channels //= 2
            self.decoders.append(_stage(channels, count))

    def forward(self, blurry: Tensor) -> Tensor:
        """Restore pictures of any height and width.

        Args:
            blurry: (B, 3, H, W), RGB in [0, 1].

        Returns:
            (B, 3, H, W): `blurry` plus the predicted residual, not clamped.
        """
        padded = self.pad(blurry)
        return self.decode(*self.encode(padded), padded, blurry)

    def encode(self, padded: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Run the encoder.

        Args:
            padded: (B, 3, h * 2**levels, w * 2**levels), what `pad` gave.

        Returns:
            features: (B, width * 2**levels, h, w), what the last `downs` gave; the middle comes after it.
            skips: the encoder stages' outputs, the full resolution first.
        """
        features = self.intro(padded)
        skips: list[Tensor] = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(features))
            features = down(skips[-1])
        return features, skips

    def drop_decoder(self) -> None:
        """Remove the decoder and its weights, for good: `ups`, `decoders` and `ending`.

        What remains is an encoder, for a net with another decoder: `pad`, `encode`, `middle_blks` and
        `set_tlc` work as before.
        """
        del self.ups, self.decoders, self.ending

    def pad(self, blurry: Tensor) -> Tensor:
        """Pad with zeros at the right and the bottom to a multiple of 2**levels; returns channels_last."""
        multiple = 2**self.levels
        height, width = blurry.shape[-2:]
        padded = F.pad(blurry, (0, -width % multiple, 0, -height % multiple))
        return padded.contiguous(memory_format=torch.channels_last)

    def decode(self, features: Tensor, skips: Sequence[Tensor], padded: Tensor, blurry: Tensor) -> Tensor:
        """Run the middle and the decoder, add the residual to the input and crop the padding off.

        Args:
            features: (B, width * 2**levels, h, w), what the last `downs` gave.
            skips: the encoder stages' outputs, the full resolution first.
            padded: (B, 3, h * 2**levels, w * 2**levels), what `pad` gave.
            blurry: (B, 3, H, W), the input.

        Returns:
            (B, 3, H, W), in the type of `blurry`'s, or float32 if that is wider.
        """
        features = self.middle_blks(features)
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            features = decoder(up(features) + skip)
        restored: Tensor = padded + self.ending(features)
        return restored[..., : blurry.shape[-2], : blurry.shape[-1]]

    def set_tlc(self, train_size_px: int | None) -> None:
        """Turn the test-time local converter on, or off with None.

        With it, every global average is taken over a window of 1.5 times the training patches' size. The
        field's GoPro and HIDE scores need it; pictures unlike the training set can come out with coloured
        mosaics under it. Off at first. It is a setting, not a part of the state dict.

        Args:
            train_size_px: side of the patches that the net was trained on.

        Raises:
            ConfigurationError: if `train_size_px` is not positive.
        """
        windows: Sequence[int | None] = [None] * (self.levels + 1)
        if train_size_px is not None:
            windows = tlc_windows_px(train_size_px, self.levels)
        for level in range(self.levels):
            set_windows(self._parts_at(level), windows[level])
        set_windows([self.middle_blks], windows[self.levels])

    def _parts_at(self, level: int) -> list[nn.Module]:
        """Return all that averages over the features of encoder stage `level` (from 0) and its mirror."""
        mirrored = [self.decoders[self.levels - 1 - level]] if hasattr(self, "decoders") else []
        return [self.encoders[level], *mirrored]


def _stage(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(NAFBlock(channels) for _ in range(count)))


def _check_sizes(
    width: int, encoder_blocks: Sequence[int], middle_blocks: int, decoder_blocks: Sequence[int]
) -> None:
    if width < 1:
        raise ConfigurationError(f"width is {width}: give at least 1 channel")
    if len(encoder_blocks) != len(decoder_blocks):
        raise ConfigurationError(
            f"encoder_blocks has {len(encoder_blocks)} stages and decoder_blocks {len(decoder_blocks)}: "
            "give as many of one as of the other"
        )
    if not encoder_blocks:
        raise ConfigurationError("encoder_blocks is empty: give at least one stage")
    counts = [*encoder_blocks, middle_blocks, *decoder_blocks]
    if min(counts) < 0:
        raise ConfigurationError(f"a stage has {min(counts)} blocks: give 0 or more")
