"""Reads bare weights, others' and ours: finds them in their file, and the net and its size from shapes."""

import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from deblur_lab.errors import CheckpointError, ConfigurationError
from deblur_lab.models.m2aenet import M2AENet
from deblur_lab.models.nafnet import NAFNet
from deblur_lab.models.published_peers import peer_of
from deblur_lab.models.trajectories import LearnableTrajectory, QuadraticTrajectory
from deblur_lab.models.ufpnet import UFPNet

PUBLISHED_PATCH_PX = 256
"""Side of the patches that the published NAFNets were trained on."""

# Where training codes keep the weights, the average of them first: BasicSR, Lightning, and scripts.
_CONTAINERS = ("params_ema", "params", "state_dict", "model_state_dict", "model", "net", "generator")
# What wrappers put into names, before them or in their middle: DataParallel and DDP, torch.compile.
_WRAPPERS = frozenset({"module", "_orig_mod"})
# What trainers put before all names of the net that they hold.
_PREFIXES = ("net.", "model.", "generator.", "netG.", "net_g.", "network.")
# What averages count beside their weights.
_COUNTERS = frozenset({"n_averaged"})
_BLOCK = re.compile(r"((?:encoders|decoders)\.\d+|middle_blks)\.(\d+)\.")
_LEVEL = re.compile(r"(?:encoders|decoders|downs|ups)\.(\d+)\.")
_OF_UFPNET = ("kernel_extra.", "kernel_down.")  # has besides NAFNet's names
_MISSPELT, _SPELT = "kernel_atttion", "kernel_attention"  # so in the published UFPNet
_OF_DECODER = ("ups.", "decoders.", "ending.")
# Width, blocks of the encoder, of the middle, of the decoder.
Sizes = tuple[int, list[int], int, list[int]]
KNOWN = "NAFNet, M2AENet, UFPNet, Restormer, Uformer, MPRNet, FFTformer and KBNet"
"""Whose bare weights become a net."""

# What no other net of the field has in the names of its tensors, the most telling first.
_TELLING_NAMES = (
    ("a KBNet", re.compile(r"\.attgamma$")),
    ("an FFTformer", re.compile(r"\.ffn\.fft$")),
    ("a Restormer", re.compile(r"\.attn\.temperature$")),
    ("a Uformer", re.compile(r"encoderlayer_\d+\..*relative_position_bias_table$")),
    ("a Swin transformer", re.compile(r"relative_position_bias_table$")),
    ("an MPRNet", re.compile(r"(^|\.)shallow_feat1\.")),
    ("a MIMO-UNet", re.compile(r"(^|\.)SCM1\.")),
    ("an HINet", re.compile(r"(^|\.)down_path_1\.")),
    ("a DeblurGAN-v2", re.compile(r"(^|\.)fpn\.")),
    ("a ResNet", re.compile(r"(^|\.)layer1\.0\.conv1\.")),
    ("a VGG", re.compile(r"(^|\.)features\.0\.weight$")),
)


def weights_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights in a file, under the names that the net itself gives them.

    Args:
        checkpoint: what the file holds: the weights, or the weights under one of the usual names.

    Returns:
        The tensors by name, without what wrappers add to it; empty if there are none.
    """
    for name in _CONTAINERS:
        if isinstance(checkpoint.get(name), Mapping):
            return weights_of(checkpoint[name])
    weights = {
        ".".join(part for part in str(key).split(".") if part not in _WRAPPERS): value
        for key, value in checkpoint.items()
        if isinstance(value, Tensor) and str(key).rpartition(".")[2] not in _COUNTERS
    }
    weights = {key.replace(_MISSPELT, _SPELT): value for key, value in weights.items()}
    stripped = True
    while stripped and weights:
        stripped = False
        for prefix in _PREFIXES:
            if all(key.startswith(prefix) for key in weights):
                weights = {key.removeprefix(prefix): value for key, value in weights.items()}
                stripped = True
    return weights if "intro.weight" in weights else _of_one_net(weights)


def _of_one_net(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a trainer's several modules the NAFNet or what is made from it, the average of two; else all."""
    found = [_root(key, weights) for key in weights if key.endswith(".intro.weight")]
    averages = [prefix for prefix in found if "ema" in prefix]
    for prefixes in (averages, found):
        if len(prefixes) == 1:
            prefix = prefixes[0]
            return {
                key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)
            }
    return weights


def _root(key: str, weights: Mapping[str, Tensor]) -> str:
    """What stands before the names of the net that an intro.weight belongs to, itself or as its encoder."""
    prefix = key.removesuffix("intro.weight")
    outer = prefix.removesuffix("encoder.")
    whole = any(name.startswith(f"{outer}sub_decoders.") for name in weights)
    return outer if whole else prefix


def weights_of_encoder(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of an encoder alone, of a UFPNet, a NAFNet, or an AIBNet that has one.

    Args:
        checkpoint: what the file holds, ours or others'.

    Returns:
        The tensors by the names that the encoder itself gives them, without those of its decoder; empty if
        there are none.
    """
    weights = weights_of(checkpoint)
    if _is_aibnet(weights):
        weights = {
            key.removeprefix("encoder."): value
            for key, value in weights.items()
            if key.startswith("encoder.")
        }
    return {key: value for key, value in weights.items() if not key.startswith(_OF_DECODER)}


def misfits(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> tuple[list[str], list[str], list[str]]:
    """Where weights do not fit a net: the names that are missing, left over, and of another shape.

    Args:
        own: the net's state.
        weights: what is to be loaded into it.
    """
    missing = [key for key in own if key not in weights]
    left = [key for key in weights if key not in own]
    misshapen = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    return missing, left, misshapen


def describe_misfits(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """How weights do not fit a net: how many of each kind, and the first five; empty where they fit."""
    missing, left, misshapen = misfits(own, weights)
    kinds = {
        "missing": missing,
        "unexpected": left,
        "of another shape": [
            f"{key} {tuple(weights[key].shape)}, not {tuple(own[key].shape)}" for key in misshapen
        ],
    }
    told = [
        f"{len(names)} {kind} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
        for kind, names in kinds.items()
        if names
    ]
    return "; ".join(told)


def looks_like(checkpoint: Mapping[str, Any]) -> str:
    """What a file's contents look like, as far as names tell, to be read after "it"."""
    weights = weights_of(checkpoint)
    if not weights:
        if "optimizers" in checkpoint or "param_groups" in checkpoint or "optimizer" in checkpoint:
            return "holds the state of an optimizer and no weights: take the file of the net beside it"
        names = ", ".join(str(key) for key in list(checkpoint)[:5])
        return f"holds no weights ({f'only {names}' if names else 'nothing at all'})"
    other = _other_net(weights)
    if other:
        return f"looks like {other}"
    if _is_aibnet(weights):
        count = len({key.split(".")[1] for key in weights if key.startswith("sub_decoders.")})
        return f"looks like an AIBNet{_of_width(weights)} with {count} sub-decoder{'s' if count > 1 else ''}"
    if _is_ufpnet(weights):
        return f"looks like a UFPNet{_of_width(weights)}"
    if any(key.startswith(("mask_predictors.", "analyzers.")) for key in weights):
        return f"looks like an M2AENet{_of_width(weights)}"
    if _is_nafnet(weights):
        return f"looks like a NAFNet{_of_width(weights)}"
    shown = ", ".join(f"{key} {tuple(value.shape)}" for key, value in list(weights.items())[:3])
    return f"holds {len(weights)} tensors ({shown}{', ...' if len(weights) > 3 else ''})"


def net_of(checkpoint: Mapping[str, Any]) -> nn.Module:
    """The net that bare weights belong to, filled with them; its width and blocks are found from them.

    A NAFNet or a UFPNet, with the names of their released checkpoints, or an M2AENet. Of that, weights tell
    neither the threshold nor the kind of trajectory: the paper's are taken, and a warning says so. Or one of
    the peers, with the names of their released checkpoints.

    Args:
        checkpoint: what the file holds.

    Returns:
        In eval mode.

    Raises:
        CheckpointError: the weights are those of no such net; says what they look like and what is missing.
        MachineError: the library that has a peer's architecture is not installed.
    """
    weights = weights_of(checkpoint)
    intro = weights.get("intro.weight")
    if not weights:
        raise CheckpointError(f"it {looks_like(checkpoint)}")
    if (peer := _peer(weights)) is not None:
        return peer
    if _other_net(weights):
        raise CheckpointError(f"it {looks_like(checkpoint)}, and only {KNOWN} are known")
    if _is_aibnet(weights):
        raise CheckpointError(
            f"it {looks_like(checkpoint)}, and bare weights do not tell its settings: take the checkpoint "
            "that the run wrote"
        )
    if intro is None or not _is_nafnet(weights) or intro.ndim != 4:
        wanted = [name for name in ("intro.weight", "downs.0.weight") if name not in weights]
        raise CheckpointError(
            f"it {looks_like(checkpoint)}; a NAFNet, M2AENet or UFPNet, which are known, would have "
            f"{' and '.join(wanted) or 'an intro.weight of four dimensions'}"
        )
    sizes = _sizes(weights, len(intro))
    motion = _stages(weights, "analyzers")
    masks = _stages(weights, "mask_predictors")
    net: NAFNet
    if _is_ufpnet(weights):
        with torch.device("meta"):  # so that a net that does not fit is not built
            _refuse_misfits(_ufpnet(weights, sizes), weights)
        net = _ufpnet(weights, sizes)
    else:
        net = NAFNet(*sizes) if not (motion or masks) else _m2aenet(weights, sizes, motion, masks)
    _refuse_misfits(net, weights)
    net.load_state_dict(weights)
    return net.eval()


def _peer(weights: Mapping[str, Tensor]) -> nn.Module | None:
    """The peer that weights belong to, filled with them; None if they are of none."""
    try:
        peer = peer_of(weights)
    except CheckpointError as error:
        raise CheckpointError(f"it {looks_like(weights)}, but {error}") from error
    if peer is not None:
        _refuse_misfits(peer, weights)
        peer.to_empty(device="cpu").load_state_dict(weights)
        peer.eval()
    return peer


def _refuse_misfits(net: nn.Module, weights: Mapping[str, Tensor]) -> None:
    own = net.state_dict()
    if told := describe_misfits(own, weights):
        raise CheckpointError(f"it {looks_like(weights)}, but of its {len(own)} tensors, {told}")


def _sizes(weights: Mapping[str, Tensor], width: int) -> Sizes:
    """Width, and blocks of the encoder's stages, the middle and the decoder's stages."""
    blocks: dict[str, set[str]] = {}
    levels = set()
    for key in weights:
        if found := _BLOCK.match(key):
            blocks.setdefault(found[1], set()).add(found[2])
        if found := _LEVEL.match(key):
            levels.add(found[1])
    # Counted, and not taken from the highest number, which a damaged or hostile file may make up.
    return (
        width,
        [len(blocks.get(f"encoders.{level}", ())) for level in range(len(levels))],
        len(blocks.get("middle_blks", ())),
        [len(blocks.get(f"decoders.{level}", ())) for level in range(len(levels))],
    )


def encoder_settings(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a UFPNet or NAFNet that tell its size, as far as the weights of one tell them.

    Args:
        checkpoint: what the file holds.

    Returns:
        By name; empty if the weights are of neither.
    """
    weights = weights_of(checkpoint)
    intro = weights.get("intro.weight")
    if intro is None or intro.ndim != 4 or not _is_nafnet(weights):
        return {}
    width, encoder_blocks, middle_blocks, decoder_blocks = _sizes(weights, len(intro))
    found = {
        "width": width,
        "encoder_blocks": encoder_blocks,
        "middle_blocks": middle_blocks,
        "decoder_blocks": decoder_blocks,
    }
    if _is_ufpnet(weights):
        found["kernel_size_px"], found["estimator_width"] = _estimator_sizes(weights)
    return found


def _estimator_sizes(weights: Mapping[str, Tensor]) -> tuple[int, int]:
    """Side of the kernels, and width of what estimates them."""
    head = weights.get("kernel_extra.Encoding_Block1.Conv_head.weight")
    down = weights.get("kernel_down.0.weight")
    kernel_size_px = 19 if down is None or not down.ndim else math.isqrt(len(down))
    return kernel_size_px, 64 if head is None or not head.ndim else len(head)


def _ufpnet(weights: Mapping[str, Tensor], sizes: Sizes) -> UFPNet:
    kernel_size_px, estimator_width = _estimator_sizes(weights)
    try:
        return UFPNet(*sizes, kernel_size_px=kernel_size_px, estimator_width=estimator_width)
    except ConfigurationError as error:
        raise CheckpointError(f"it {looks_like(weights)}, but of impossible size: {error}") from error


def _m2aenet(
    weights: Mapping[str, Tensor],
    sizes: Sizes,
    motion: dict[int, int],
    masks: dict[int, int],
) -> M2AENet:
    channels = next(iter(motion.values()), QuadraticTrajectory.channels)
    stages = [stage for stage in sorted({*motion, *masks}) if 1 <= stage <= len(sizes[1])]
    known = channels == QuadraticTrajectory.channels
    warnings.warn(
        "bare weights of an M2AENet do not tell its threshold and its kind of trajectory: taken to be 0.5 "
        f"and {'quadratic' if known else 'learnable'}; the checkpoint that the run wrote tells them",
        stacklevel=2,
    )
    return M2AENet(
        *sizes,
        predictor_stages=stages,
        trajectory=QuadraticTrajectory() if known else LearnableTrajectory(max(channels // 2, 2)),
        mask_aware=bool(masks),
        motion_aware=bool(motion),
    )


def _stages(weights: Mapping[str, Tensor], kind: str) -> dict[int, int]:
    """The stages that have a predictor of a kind, and how many channels its first convolution gives."""
    found: dict[int, int] = {}
    for key, value in weights.items():
        match = re.match(rf"{kind}\.(\d+)\.", key)
        if match:
            found.setdefault(int(match[1]), len(value) if value.ndim else 0)
    return found


def _is_nafnet(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights have what is common to all sizes of NAFNet, and to nets that are made from it."""
    return "intro.weight" in weights and any(key.startswith("downs.0.") for key in weights)


def _is_ufpnet(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights have what UFPNet has besides NAFNet's."""
    return any(key.startswith(_OF_UFPNET) for key in weights)


def _is_aibnet(weights: Mapping[str, Tensor]) -> bool:
    return any(key.startswith("sub_decoders.") for key in weights)


def _other_net(weights: Mapping[str, Tensor]) -> str | None:
    """Which of the nets that are not known here weights belong to, with its article; None if to none."""
    for name, telling in _TELLING_NAMES:
        if any(telling.search(key) for key in weights):
            return name
    return None


def _of_width(weights: Mapping[str, Tensor]) -> str:
    intro = weights.get("intro.weight", weights.get("encoder.intro.weight"))
    return "" if intro is None or intro.ndim == 0 else f" of width {len(intro)}"
