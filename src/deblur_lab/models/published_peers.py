"""Which peer bare weights belong to, and of which size, found from their names and shapes alone."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from deblur_lab.errors import CheckpointError, ConfigurationError, UserError
from deblur_lab.models.peers import FFTformer, KBNetL, KBNetS, MPRNet, Peer, Restormer, Uformer

Weights = Mapping[str, Tensor]


def peer_of(weights: Weights) -> Peer | None:
    """A net of the kind and size that weights have the names of; None if it is no peer's.

    Args:
        weights: by the names that the net itself gives them.

    Returns:
        On the meta device, without values.

    Raises:
        CheckpointError: their sizes are those of no such net.
        MachineError: the library that has the net is not installed.
    """
    for telling, build in _BUILDERS:
        if any(telling.search(key) for key in weights):
            try:
                with torch.device("meta"), NumbersKept():
                    return build(weights)
            except ConfigurationError as error:
                raise CheckpointError(f"it is of impossible size: {error}") from error
            except KeyError as error:
                raise CheckpointError(f"its size cannot be told: it lacks {error.args[0]}") from error
            except (IndexError, TypeError, ValueError, OverflowError) as error:
                if isinstance(error, UserError):
                    raise
                raise CheckpointError("its size cannot be told: a tensor lacks a dimension") from error
    return None


class NumbersKept(TorchFunctionMode):
    """What a net asks the value of while it is built has one on the meta device, too."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - PyTorch's signature
        given = dict(kwargs or {})
        if func is torch.linspace:
            given["device"] = "cpu"
        return func(*args, **given)


def _restormer(weights: Weights) -> Restormer:
    first = "encoder_level1.0"
    return Restormer(
        len(weights["patch_embed.proj.weight"]),
        _four(weights),
        _count(weights, "refinement"),
        _heads(weights, "attn"),
        _ratio(weights, "norm1.body.weight", "ffn.project_out.weight"),
        bias=f"{first}.attn.qkv.bias" in weights,
        layer_norm="WithBias" if f"{first}.norm1.body.bias" in weights else "BiasFree",
    )


def _kbnet(weights: Weights) -> KBNetL | KBNetS:
    return _kbnet_l(weights) if "patch_embed.proj.weight" in weights else _kbnet_s(weights)


def _kbnet_l(weights: Weights) -> KBNetL:
    return KBNetL(
        len(weights["patch_embed.proj.weight"]),
        _four(weights),
        _count(weights, "refinement"),
        _heads(weights, "ffn"),
        _ratio(weights, "norm1.weight", "attn.ga1"),
        bias="encoder_level1.0.ffn.qkv.bias" in weights,
    )


def _kbnet_s(weights: Weights) -> KBNetS:
    block = next(key for key in weights if key.endswith(".attgamma")).removesuffix(".attgamma")
    inner, outer = weights[f"{block}.conv4.weight"].shape[:2]
    return KBNetS(
        len(weights["intro.weight"]),
        [_count(weights, f"encoders.{level}") for level in range(_count(weights, "downs"))],
        _count(weights, "middle_blks"),
        [_count(weights, f"decoders.{level}") for level in range(_count(weights, "ups"))],
        _shortest([(outer, inner)]),
        lightweight=weights[f"{block}.conv11.1.weight"].shape[2] == 3,
    )


def _fftformer(weights: Weights) -> FFTformer:
    one, two, three = (_count(weights, f"encoder_level{level}") for level in (1, 2, 3))
    return FFTformer(
        len(weights["patch_embed.proj.weight"]),
        (one, two, three),
        _count(weights, "refinement"),
        _ratio(weights, "norm2.body.weight", "ffn.project_out.weight"),
        bias="encoder_level1.0.ffn.project_in.bias" in weights,
    )


def _mprnet(weights: Weights) -> MPRNet:
    width = len(weights["shallow_feat1.0.weight"])
    inner = len(weights["shallow_feat1.1.CA.conv_du.0.weight"])
    return MPRNet(
        width,
        weights["stage1_encoder.encoder_level2.0.CA.conv_du.0.weight"].shape[1] - width,
        weights["tail.weight"].shape[1] - width,
        _count(weights, "stage3_orsnet.orb1.body") - 1,
        width // max(inner, 1),
        bias="shallow_feat1.0.bias" in weights,
    )


def _uformer(weights: Weights) -> Uformer:
    layers = (
        *(f"encoderlayer_{level}" for level in range(4)),
        "conv",
        *(f"decoderlayer_{level}" for level in range(4)),
    )
    tables = [weights[f"{layer}.blocks.0.attn.relative_position_bias_table"] for layer in layers]
    blocks = [_count(weights, f"{layer}.blocks") for layer in layers]
    heads = [table.shape[1] for table in tables]
    width = len(weights["input_proj.proj.0.weight"])
    first, decoder = "encoderlayer_0.blocks.0", "decoderlayer_0.blocks.0"
    if f"{first}.attn.qkv.to_q.depthwise.weight" in weights:
        raise CheckpointError("its queries, keys and values come from convolutions, which are not known")
    plain = f"{first}.mlp.fc1.weight" in weights
    inner = len(weights[f"{first}.mlp.fc1.weight" if plain else f"{first}.mlp.linear1.0.weight"])
    shared = not plain and weights[f"{first}.mlp.dwconv.0.weight"].shape[1] > 1
    return Uformer(
        width,
        _nine(blocks),
        _nine(heads),
        (math.isqrt(len(tables[0])) + 1) // 2,
        _shortest([(width, inner)]),
        qkv_bias=f"{first}.attn.qkv.to_q.bias" in weights,
        feed_forward="mlp" if plain else "fastleff" if shared else "leff",
        modulator=f"{decoder}.modulator.weight" in weights,
        cross_modulator=f"{decoder}.cross_modulator.weight" in weights,
    )


def _count(weights: Weights, sequence: str) -> int:
    """How many modules a sequence has. Counted: the highest number may be made up."""
    return len({_number(key, sequence) for key in weights if key.startswith(f"{sequence}.")})


def _number(key: str, sequence: str) -> str:
    return key.removeprefix(f"{sequence}.").partition(".")[0]


def _four(weights: Weights) -> tuple[int, int, int, int]:
    one, two, three, four = (_count(weights, level) for level in _LEVELS)
    return one, two, three, four


def _heads(weights: Weights, attention: str) -> tuple[int, int, int, int]:
    one, two, three, four = (len(weights[f"{level}.0.{attention}.temperature"]) for level in _LEVELS)
    return one, two, three, four


def _nine(numbers: Sequence[int]) -> tuple[int, int, int, int, int, int, int, int, int]:
    a, b, c, d, e, f, g, h, i = numbers
    return a, b, c, d, e, f, g, h, i


def _ratio(weights: Weights, outer: str, inner: str) -> float:
    """How many times as many channels there are inside as outside, from all scales.

    Args:
        weights: of the net.
        outer: tensor of each first block with as many entries as there are channels outside.
        inner: tensor of it that has those inside along its second dimension.
    """
    firsts = [f"{level}.0" for level in _LEVELS if f"{level}.0.{inner}" in weights]
    return _shortest(
        [(len(weights[f"{first}.{outer}"]), weights[f"{first}.{inner}"].shape[1]) for first in firsts]
    )


def _shortest(pairs: Sequence[tuple[int, int]]) -> float:
    """The shortest decimal number whose product with each first number, rounded down, is the second.

    Settings are such numbers (2.66), and of two that give the same sizes either will do.
    """
    if not pairs or min(outer for outer, _ in pairs) < 1:
        raise CheckpointError("its size cannot be told: a layer is empty")
    low = max(inner / outer for outer, inner in pairs)
    for digits in range(8):
        ratio: float = math.ceil(round(low * 10**digits, 6)) / 10**digits
        if all(int(outer * ratio) == inner for outer, inner in pairs):
            return ratio
    return low


_LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
# What no other net has in the names of its tensors.
_BUILDERS: tuple[tuple[re.Pattern[str], Callable[[Weights], Peer]], ...] = (
    (re.compile(r"\.attgamma$"), _kbnet),
    (re.compile(r"\.ffn\.fft$"), _fftformer),
    (re.compile(r"\.attn\.temperature$"), _restormer),
    (re.compile(r"encoderlayer_\d+\..*relative_position_bias_table$"), _uformer),
    (re.compile(r"(^|\.)shallow_feat1\."), _mprnet),
)
