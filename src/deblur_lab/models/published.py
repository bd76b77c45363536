"""Reads weights that others published: finds them in their file, and the net and its size from shapes."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from deblur_lab.errors import CheckpointError
from deblur_lab.models.nafnet import NAFNet

# Where training codes keep the weights, the average of them first: BasicSR, Lightning, and scripts.
_CONTAINERS = ("params_ema", "params", "state_dict", "model_state_dict", "model", "net")
# What wrappers put before every name: DataParallel and DDP, torch.compile, LightningModules.
_PREFIXES = ("module.", "_orig_mod.", "net.", "model.")
_BLOCK = re.compile(r"(encoders|decoders)\.(\d+)\.(\d+)\.|middle_blks\.(\d+)\.")


def weights_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights in a file, under the names that the net itself gives them.

    Args:
        checkpoint: what the file holds: the weights, or the weights under one of the usual names.

    Returns:
        The tensors by name, without the prefixes that wrappers add; empty if there are none.
    """
    for name in _CONTAINERS:
        if isinstance(checkpoint.get(name), Mapping):
            return weights_of(checkpoint[name])
    weights = {str(key): value for key, value in checkpoint.items() if isinstance(value, Tensor)}
    stripped = True
    while stripped and weights:
        stripped = False
        for prefix in _PREFIXES:
            if all(key.startswith(prefix) for key in weights):
                weights = {key.removeprefix(prefix): value for key, value in weights.items()}
                stripped = True
    return weights


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


def nafnet_of(weights: Mapping[str, Tensor]) -> NAFNet:
    """The NAFNet that weights belong to, filled with them; its width and blocks are found from them.

    Args:
        weights: as `weights_of` returns them, with the names of NAFNet's released checkpoints.

    Returns:
        In eval mode.

    Raises:
        CheckpointError: they are not a NAFNet's; says what they look like and what is missing.
    """
    intro = weights.get("intro.weight")
    blocks: dict[str, int] = {}
    for key in weights:
        found = _BLOCK.match(key)
        if found:
            stage = f"{found[1]}.{found[2]}" if found[1] else "middle_blks"
            blocks[stage] = max(blocks.get(stage, 0), int(found[3] or found[4] or 0) + 1)
    levels = sum(key.startswith("encoders.") for key in blocks)
    if intro is None or intro.ndim != 4 or levels == 0:
        shown = ", ".join(f"{key} {tuple(value.shape)}" for key, value in list(weights.items())[:3])
        raise CheckpointError(
            f"{len(weights)} tensors ({shown or 'none'}) are not a NAFNet's: it would have intro.weight and "
            "encoders.0.0.conv1.weight"
        )
    net = NAFNet(
        len(intro),
        [blocks.get(f"encoders.{level}", 0) for level in range(levels)],
        blocks.get("middle_blks", 0),
        [blocks.get(f"decoders.{level}", 0) for level in range(levels)],
    )
    missing, left, misshapen = misfits(net.state_dict(), weights)
    told = [
        f"{len(keys)} tensors {what} ({', '.join(keys[:5])})"
        for what, keys in (("missing", missing), ("left over", left), ("of another shape", misshapen))
        if keys
    ]
    if told:
        raise CheckpointError(f"it looks like a NAFNet of width {len(intro)}, but {'; '.join(told)}")
    net.load_state_dict(dict(weights))
    return net.eval()
