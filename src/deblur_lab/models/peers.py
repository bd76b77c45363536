"""Nets of others, for comparison: Restormer, Uformer, MPRNet, FFTformer and KBNet, as libraries have them.

The architectures are those of spandrel (MIT) and spandrel_extra_arches (which says for each whether it may be
used commercially), an optional extra; nothing of theirs is in this package. What is here makes them nets like
ours: any height and width go in, and settings are named and checked. Their tensors have the names of the
published checkpoints, and start as their authors' code starts them.
"""

import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError, MachineError
from deblur_lab.ranges import Count, Natural, Positive, Range

PEERS_EXTRA = "pip install 'deblur_lab[peers]'"
"""Installs the libraries that have the architectures."""

_MAIN = "spandrel.architectures"
_EXTRA = "spandrel_extra_arches.architectures"  # not all of them are free for commercial use
_told: set[str] = set()
_DropRate = Annotated[float, Range(0, 1, open_high=True)]


class Peer(nn.Module):
    """A net whose architecture a library has.

    It has the library's layers as its own, under their published names, and pads pictures to sizes that
    they take.

    Args:
        module: of the library, without the name of the class.
        name: of the library's class.
        settings: what that one is built with.

    Attributes:
        multiple: of which the height and the width must be that the layers see.

    Raises:
        MachineError: the library is not installed.
        ConfigurationError: the library refuses the settings.
    """

    multiple: int = 8

    def __init__(self, module: str, name: str, **settings: object) -> None:
        super().__init__()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what PyTorch deprecates
                made = getattr(import_module(module), name)
        except ImportError as error:
            raise MachineError(
                f"{type(self).__name__} needs the package {module.partition('.')[0]}: {PEERS_EXTRA}"
            ) from error
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                whole: nn.Module = made(**settings)
        except (AssertionError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConfigurationError(f"a {type(self).__name__} of these sizes cannot be: {reason}") from error
        assert not list(whole.parameters(recurse=False))
        for child_name, child in whole.named_children():
            self.add_module(child_name, child)
        # In a tuple, so that its layers are not registered a second time, under other names.
        self._whole = (whole,)

    def forward(self, blurry: Tensor) -> Tensor:
        """Restore pictures of any height and width.

        Args:
            blurry: (B, 3, H, W), RGB in [0, 1].

        Returns:
            (B, 3, H, W), not clamped.
        """
        restored: Tensor = self.run(self.pad(blurry))
        return restored[..., : blurry.shape[-2], : blurry.shape[-1]]

    def run(self, padded: Tensor) -> Any:  # noqa: ANN401 - one picture, or those of several stages
        """What the library's net makes of pictures whose sides are multiples of `multiple`."""
        return self._whole[0](padded)

    def pad(self, blurry: Tensor) -> Tensor:
        """Pad at the right and the bottom by reflection, as the authors' code for testing does.

        Where a picture is too small to be reflected, its border is repeated.
        """
        height, width = blurry.shape[-2:]
        down, right = -height % self.multiple, -width % self.multiple
        if not (down or right):
            return blurry
        mode = "reflect" if down < height and right < width else "replicate"
        return F.pad(blurry, (0, right, 0, down), mode)


class Restormer(Peer):
    """A U-shaped transformer whose attention is between channels (Zamir et al. 2022, CVPR; section 3).

    With the sizes below it has 26,126,644 parameters and loads the published ``motion_deblurring.pth``.
    The authors' code and weights may not be used commercially.

    Args:
        width: channels at full resolution, doubled at each of three halvings.
        blocks: of each scale, the full resolution first; decoders have as many as encoders.
        refinement_blocks: blocks at full resolution after the decoder.
        heads: of the attention at each scale.
        expansion: channels inside the feed-forward network over those outside.
        bias: whether convolutions have one.
        layer_norm: whether norms subtract the mean and have a bias, as that for deblurring does.
    """

    def __init__(
        self,
        width: Count = 48,
        blocks: tuple[Natural, Natural, Natural, Natural] = (4, 6, 6, 8),
        refinement_blocks: Natural = 4,
        heads: tuple[Count, Count, Count, Count] = (1, 2, 4, 8),
        expansion: Positive = 2.66,
        bias: bool = False,
        layer_norm: Literal["WithBias", "BiasFree"] = "WithBias",
    ) -> None:
        _check_heads([width * 2**level for level in range(4)], heads)
        super().__init__(
            f"{_EXTRA}.Restormer",
            "Restormer",
            dim=width,
            num_blocks=list(blocks),
            num_refinement_blocks=refinement_blocks,
            heads=list(heads),
            ffn_expansion_factor=expansion,
            bias=bias,
            LayerNorm_type=layer_norm,
        )
        _tell_licence("Restormer")


class MPRNet(Peer):
    """Three stages that each restore the picture, two on parts of it and one whole (Zamir et al. 2021, CVPR).

    With the sizes below it has 20,127,073 parameters and loads the published ``model_deblurring.pth``.
    The authors' code and weights may not be used commercially.

    Args:
        width: channels at full resolution.
        unet_step_width: channels more at each coarser scale of the first two stages.
        original_step_width: channels more in the third stage, which keeps the original resolution.
        attention_blocks: channel attention blocks in each of the third stage's three blocks.
        reduction: channels over those inside channel attention.
        bias: whether convolutions have one.
    """

    def __init__(
        self,
        width: Count = 96,
        unet_step_width: Count = 48,
        original_step_width: Count = 32,
        attention_blocks: Natural = 8,
        reduction: Count = 4,
        bias: bool = False,
    ) -> None:
        if reduction > width:
            raise ConfigurationError(f"reduction={reduction}: at most width={width} is expected")
        super().__init__(
            f"{_EXTRA}.MPRNet",
            "MPRNet",
            n_feat=width,
            scale_unetfeats=unet_step_width,
            scale_orsnetfeats=original_step_width,
            num_cab=attention_blocks,
            reduction=reduction,
            bias=bias,
        )
        _tell_licence("MPRNet")

    def run(self, padded: Tensor) -> Tensor:
        """What the last stage makes of pictures whose sides are multiples of `multiple`."""
        stages: Sequence[Tensor] = super().run(padded)
        return stages[0]

    def restore_in_stages(self, blurry: Tensor) -> list[Tensor]:
        """The restored pictures of all stages, in their order; training judges each of them (eq. 2).

        Args:
            blurry: (B, 3, H, W), RGB in [0, 1].

        Returns:
            Three of (B, 3, H, W), not clamped; the last is what `forward` returns.
        """
        last_first: Sequence[Tensor] = super().run(self.pad(blurry))
        return [stage[..., : blurry.shape[-2], : blurry.shape[-1]] for stage in reversed(last_first)]


class Uformer(Peer):
    """A U-shaped transformer with attention in windows (Wang et al. 2022, CVPR; section 3).

    With the sizes below it is Uformer-B, has 50,880,946 parameters and loads the published ``Uformer_B.pth``.

    Deviates: nothing is changed; but the library's layers, like the authors', work on squares alone. A
    picture is put in the middle of a black square whose side is a multiple of 128, as the authors' code for
    testing does: twice the work for a picture of 16:9.

    Args:
        width: channels at full resolution, doubled at each of four halvings.
        blocks: of the four scales of the encoder, the full resolution first, the bottleneck, and the decoder.
        heads: of the attention, likewise.
        window: side of the windows, in features.
        expansion: channels inside the feed-forward network over those outside.
        qkv_bias: whether the maps to queries, keys and values have one.
        feed_forward: with a depthwise convolution (leff), a full one (fastleff) or none (mlp).
        modulator: whether decoders add something learned to each window.
        cross_modulator: whether decoders attend to something learned.
        drop_path: chance that the deepest block is left out in training; that of others is less.
    """

    def __init__(
        self,
        width: Count = 32,
        blocks: tuple[Count, Count, Count, Count, Count, Count, Count, Count, Count] = (
            *(1, 2, 8, 8),
            2,
            *(8, 8, 2, 1),
        ),
        heads: tuple[Count, Count, Count, Count, Count, Count, Count, Count, Count] = (
            *(1, 2, 4, 8),
            16,
            *(16, 8, 4, 2),
        ),
        window: Annotated[int, Range(2, 8)] = 8,
        expansion: Positive = 4.0,
        qkv_bias: bool = True,
        feed_forward: Literal["leff", "fastleff", "mlp"] = "leff",
        modulator: bool = True,
        cross_modulator: bool = False,
        drop_path: _DropRate = 0.1,
    ) -> None:
        if window not in (2, 4, 8):
            raise ConfigurationError(f"window={window}: 2, 4 or 8 is expected")
        _check_heads([width * 2**level for level in (0, 1, 2, 3, 4, 4, 3, 2, 1)], heads)
        super().__init__(
            f"{_MAIN}.Uformer",
            "Uformer",
            embed_dim=width,
            depths=list(blocks),
            num_heads=list(heads),
            win_size=window,
            mlp_ratio=expansion,
            qkv_bias=qkv_bias,
            drop_path_rate=drop_path,
            token_projection="linear",  # the other kind runs neither here nor in the authors' code
            token_mlp=feed_forward,
            modulator=modulator,
            cross_modulator=cross_modulator,
        )
        self.multiple = 16 * window

    def forward(self, blurry: Tensor) -> Tensor:
        """`Peer.forward`, of the middle of a square."""
        height, width = blurry.shape[-2:]
        padded = self.pad(blurry)
        top, left = (padded.shape[-2] - height) // 2, (padded.shape[-1] - width) // 2
        restored: Tensor = self.run(padded)
        return restored[..., top : top + height, left : left + width]

    def pad(self, blurry: Tensor) -> Tensor:
        """Put pictures into the middle of black squares."""
        height, width = blurry.shape[-2:]
        side = -(-max(height, width) // self.multiple) * self.multiple
        top, left = (side - height) // 2, (side - width) // 2
        return F.pad(blurry, (left, side - width - left, top, side - height - top))


class FFTformer(Peer):
    """A U-shaped transformer whose attention is a product of spectra (Kong et al. 2023, CVPR; section 3).

    With the sizes below it has 16,560,474 parameters and loads the published ``fftformer_GoPro.pth``.

    Args:
        width: channels at full resolution, doubled at each of two halvings.
        blocks: of each scale, the full resolution first; decoders have as many as encoders.
        refinement_blocks: blocks at full resolution after the decoder.
        expansion: channels inside the feed-forward network over those outside.
        bias: whether convolutions have one.
    """

    multiple = 32  # patches of 8 at a quarter of the size

    def __init__(
        self,
        width: Count = 48,
        blocks: tuple[Natural, Natural, Natural] = (6, 6, 12),
        refinement_blocks: Natural = 4,
        expansion: Positive = 3.0,
        bias: bool = False,
    ) -> None:
        super().__init__(
            f"{_MAIN}.FFTformer",
            "FFTformer",
            dim=width,
            num_blocks=list(blocks),
            num_refinement_blocks=refinement_blocks,
            ffn_expansion_factor=expansion,
            bias=bias,
        )
        # Published with it, and used by nothing: to be trained, it would need a gradient.
        cast(nn.Module, self.reduce_chan_level2).requires_grad_(False)


class KBNet(Peer):
    """What both KBNets share: they compute in float32, which their hand-written gradients are for."""

    def run(self, padded: Tensor) -> Tensor:
        """`Peer.run`, in float32."""
        if padded.device.type == "meta":  # which has no precisions to mix
            restored: Tensor = super().run(padded)
            return restored
        with torch.autocast(padded.device.type, enabled=False):
            restored = super().run(padded.float())
        return restored


class KBNetL(KBNet):
    """KBNet-l: Restormer's shape, with kernels that are mixed pixel by pixel (Zhang et al. 2023; section 3).

    With the sizes below it has 29,568,100 parameters. Its authors trained it for deraining, defocus
    deblurring and denoising, not for motion.

    Deviates: it computes in float32 under mixed precision, which its hand-written gradients do not take.

    Args:
        width: channels at full resolution, doubled at each of three halvings.
        blocks: of each scale, the full resolution first; decoders have as many as encoders.
        refinement_blocks: blocks at full resolution after the decoder.
        heads: of the attention at each scale.
        expansion: channels inside the feed-forward network over those outside.
        bias: whether convolutions have one.
    """

    def __init__(
        self,
        width: Count = 48,
        blocks: tuple[Natural, Natural, Natural, Natural] = (4, 6, 6, 8),
        refinement_blocks: Natural = 4,
        heads: tuple[Count, Count, Count, Count] = (1, 2, 4, 8),
        expansion: Positive = 1.5,
        bias: bool = False,
    ) -> None:
        channels = [width * 2**level for level in range(4)]
        _check_heads(channels, heads)
        _check_kernels(channels, expansion, 24, 2)
        super().__init__(
            f"{_MAIN}.KBNet",
            "KBNet_l",
            dim=width,
            num_blocks=list(blocks),
            num_refinement_blocks=refinement_blocks,
            heads=list(heads),
            ffn_expansion_factor=expansion,
            bias=bias,
        )


class KBNetS(KBNet):
    """KBNet-s: NAFNet's shape, with kernels that are mixed pixel by pixel (Zhang et al. 2023; section 3).

    With the sizes below it has 141,966,659 parameters. Its authors trained it for denoising.

    Deviates: as `KBNetL`.

    Args:
        width: channels at full resolution.
        encoder_blocks: blocks of each encoder stage, the full resolution first.
        middle_blocks: blocks at the lowest resolution.
        decoder_blocks: blocks of each decoder stage, the lowest resolution first.
        expansion: channels inside the feed-forward network over those outside.
        lightweight: depthwise convolutions of 3x3, not 5x5.

    Raises:
        ConfigurationError: the encoder and the decoder differ in length.
    """

    def __init__(
        self,
        width: Count = 64,
        encoder_blocks: Sequence[Natural] = (2, 2, 4, 8),
        middle_blocks: Natural = 12,
        decoder_blocks: Sequence[Natural] = (2, 2, 2, 2),
        expansion: Positive = 2.0,
        lightweight: bool = False,
    ) -> None:
        if len(encoder_blocks) != len(decoder_blocks):
            raise ConfigurationError(
                f"encoder_blocks has {len(encoder_blocks)} stages and decoder_blocks {len(decoder_blocks)}: "
                "give as many of one as of the other"
            )
        _check_kernels([width * 2**level for level in range(len(encoder_blocks) + 1)], expansion, 32, 4)
        super().__init__(
            f"{_MAIN}.KBNet",
            "KBNet_s",
            width=width,
            enc_blk_nums=list(encoder_blocks),
            middle_blk_num=middle_blocks,
            dec_blk_nums=list(decoder_blocks),
            ffn_scale=expansion,
            lightweight=lightweight,
        )
        self.multiple = 2 ** len(encoder_blocks)


def _check_heads(channels: Sequence[int], heads: Sequence[int]) -> None:
    """Refuse heads that do not share the channels of their scale evenly."""
    for here, count in zip(channels, heads, strict=True):
        if here % count:
            raise ConfigurationError(
                f"heads={list(heads)}: {count} heads cannot share {here} channels (of width={channels[0]}): "
                "give numbers that divide them"
            )


def _check_kernels(channels: Sequence[int], expansion: float, most: int, even: int) -> None:
    """Refuse channels that the kernels' groups do not share evenly.

    Args:
        channels: of each scale.
        expansion: of the feed-forward network.
        most: groups there are where there are as many channels or more.
        even: what all channels must be multiples of.
    """
    for here in channels:
        if here % even or (here > most and here % most) or int(here * expansion) % 2:
            raise ConfigurationError(
                f"width={channels[0]}, expansion={expansion:g}: the kernels of {here} channels cannot be "
                f"grouped; a width of {most} can, with an expansion of 2"
            )


def _tell_licence(name: str) -> None:
    """Say it once a process: the same net is built for a check, for its count and for its work."""
    if name not in _told:
        _told.add(name)
        warnings.warn(
            f"{name}: its authors' code and weights may not be used commercially (docs/peers.md)",
            stacklevel=1,
        )
