"""What the parts of a net cost, each by itself: AIBNet's encoder and sub-decoders, UFPNet's estimator."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from deblur_lab.models import AIBNet, NAFNet, SubDecoder, UFPNet
from deblur_lab.multiply_adds import ATTENTION, counted

SUB_DECODER = "sub-decoder"
"""How the names of these parts begin."""


@dataclass(frozen=True)
class NetPart:
    """A part of a net.

    Attributes:
        name: of the part.
        parameters: how many numbers it is made of.
        multiply_adds: of a pass, by operation.
    """

    name: str
    parameters: int
    multiply_adds: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """As plain containers."""
        return {
            "name": self.name,
            "parameters": self.parameters,
            "multiply_adds": sum(self.multiply_adds.values()),
            "multiply_adds_by_operation": dict(self.multiply_adds),
        }


def linear(multiply_adds: Mapping[str, int]) -> int:
    """Those without the products of activations with each other: of convolutions and linear maps.

    Args:
        multiply_adds: by operation.
    """
    return sum(count for kind, count in multiply_adds.items() if kind != ATTENTION)


def counted_parts(net: nn.Module, blurry: Tensor) -> list[NetPart]:
    """Count the parts of a net that has some; all of what runs is in one of them, and only once.

    Args:
        net: in eval mode.
        blurry: (1, 3, H, W), on the net's device.

    Returns:
        The parts in the order in which they run; none of a net that is counted as a whole.
    """
    if isinstance(net, AIBNet):
        return _of_aibnet(net, blurry)
    if isinstance(net, UFPNet) and len(net.decoders):
        parts, _, _ = _of_encoder(net, blurry)
        _, whole = counted(partial(net, blurry))
        return [
            *parts,
            NetPart("decoder", _parameters(net.ups, net.decoders, net.ending), _less(whole, *parts)),
        ]
    return []


def _of_aibnet(net: AIBNet, blurry: Tensor) -> list[NetPart]:
    encoder = net.encoder
    parts, deepest, skips = _of_encoder(encoder, blurry)
    # From here on the sizes alone matter, and what runs without numbers takes no time.
    deepest, padded = deepest.to("meta"), encoder.pad(blurry).to("meta")
    scales = [skip.to("meta") for skip in skips]
    for number, decoder in enumerate(cast(Iterable[SubDecoder], net.sub_decoders), start=1):
        shadow = copy.deepcopy(decoder).to("meta")
        scales, multiply_adds = counted(partial(shadow, deepest, scales, padded))
        if number == len(net.sub_decoders):  # the residuals of the others are not needed
            _, ending = counted(partial(shadow.residual, scales))
            multiply_adds = _added(multiply_adds, ending)
        parts.append(NetPart(f"{SUB_DECODER} {number}", _parameters(decoder), multiply_adds))
    return parts


def _of_encoder(net: NAFNet, blurry: Tensor) -> tuple[list[NetPart], Tensor, list[Tensor]]:
    """The parts up to the middle block, and what they computed: the deepest features, the skips."""
    parts = []
    stages: list[nn.Module] = [net.intro, net.encoders, net.downs, net.middle_blks]
    if isinstance(net, UFPNet):
        net.kernels(blurry[..., :8, :8])  # what happens only once: the motion prior is folded
        stages.append(net.kernel_down)
        _, kernels = counted(partial(net.kernels, blurry))
        guiding = _parameters(net.kernel_extra, net.flow)
        parts.append(NetPart("kernel estimator and motion prior", guiding, kernels))
    (features, skips), encoding = counted(lambda: net.encode(net.pad(blurry)))
    deepest, middle = counted(partial(net.middle_blks, features))
    parts.append(NetPart("encoder", _parameters(*stages), _less(_added(encoding, middle), *parts)))
    return parts, deepest, skips


def _less(whole: Mapping[str, int], *parts: NetPart) -> dict[str, int]:
    """What is left of a count without parts of it."""
    left = {
        kind: count - sum(part.multiply_adds.get(kind, 0) for part in parts) for kind, count in whole.items()
    }
    return {kind: count for kind, count in left.items() if count}


def _parameters(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def summed(parts: Iterable[NetPart]) -> dict[str, int]:
    """The multiply-adds of parts together, by operation."""
    return _added(*(part.multiply_adds for part in parts))


def _added(*counts: Mapping[str, int]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for kind, count in one.items():
            total[kind] = total.get(kind, 0) + count
    return total
