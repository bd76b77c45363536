"""The costs that the two papers give, and how ours differ: M2AENet's tables 2 to 4, AIBNet's 7 and 10."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import torch
from torch import nn

from deblur_lab.models import AIBNet, M2AENet, NAFNet

SIZE_PX = (2152, 1436)
"""Width and height of the pictures that the paper counts for, those of ReLoBlur."""

NAFNET_T = 0.764
DENSE_T = 0.995
PRUNED_T: Mapping[frozenset[int], float] = {
    frozenset({1}): 0.759,
    frozenset({1, 2}): 0.694,
    frozenset({1, 3}): 0.633,
    frozenset({1, 2, 3}): 0.568,
}
"""By the positions that are masked (table 4)."""
_NAFNET_PARAMETERS = 17_111_907
_M2AENET_PARAMETERS = 17_437_865

_OF_NAFNET = (
    "the paper's NAFNet, 0.764 T, is our count with one more for each bias (0.006 T) and for each number "
    "that is averaged (0.001 T), as some tools have it"
)
_OF_M2AENET = (
    "the paper's M2AENet is counted for masks whose share it does not tell (by table 4, positions 2 and 3, "
    "27 to 29 % of the pixels), and its parts do not fit what runs: by table 3 masks save 0.236 T where all "
    "of position 1 takes 0.185 T, and motion adds 0.231 T where it takes 0.032 T; docs/costs.md says more",
    "the paper's dense count is that of its variant without masks (table 3, 2)",
)


AIBNET_SIZE_PX = (256, 256)
"""Width and height for which a sub-decoder takes what AIBNet's paper prints; it does not tell its own."""

TRAINED_M = 41.1
SUB_DECODERS_G: Mapping[int, float] = {1: 114, 2: 228, 4: 456}
"""By the number of sub-decoders: those of AIBNet-S, -B and -L (tables 7 and 10)."""

_OF_AIBNET = (
    "the paper does not tell for which size it counts, nor what: convolutions and linear maps of the "
    "sub-decoders alone, at 256x256, come to what it prints; the products of attention and the encoder are "
    "not in its count",
    "the paper's trained parameters are those of one sub-decoder, of which one is trained at a time",
)


@dataclass(frozen=True)
class Published:
    """What a paper gives for a net at a size.

    Attributes:
        multiply_adds_t: in units of 10**12, by column: "NAFNet-32", "dense", "pruned".
        parameters_m: in millions, by the same.
        notes: how the counts differ from ours, a line each.
        trained_m: the parameters that are trained at a time, in millions, by column.
        sub_decoders_g: multiply-adds of the sub-decoders without attention products, in units of 10**9, by
            column.
        source: of the numbers.
    """

    multiply_adds_t: Mapping[str, float]
    parameters_m: Mapping[str, float]
    notes: tuple[str, ...]
    trained_m: Mapping[str, float] = field(default_factory=dict)
    sub_decoders_g: Mapping[str, float] = field(default_factory=dict)
    source: str = "Shang et al. 2025, tables 2, 3 (variants 1 and 2) and 4; ReLoBlur, 2152 x 1436"

    def as_json(self) -> dict[str, Any]:
        """As plain containers."""
        return asdict(self)


def published_costs(net: nn.Module, size_px: tuple[int, int]) -> Published | None:
    """What a net's paper gives for it, or None where it gives nothing.

    Args:
        net: is one of the papers' if its class and its parameters are.
        size_px: width and height of the picture.
    """
    if isinstance(net, AIBNet):
        return _of_aibnet(net) if size_px == AIBNET_SIZE_PX else None
    parameters = sum(parameter.numel() for parameter in net.parameters())
    if size_px != SIZE_PX:
        return None
    if type(net) is NAFNet and parameters == _NAFNET_PARAMETERS:
        return Published({"NAFNet-32": NAFNET_T}, {"NAFNet-32": 17.11}, (_OF_NAFNET,))
    if not isinstance(net, M2AENet) or parameters != _M2AENET_PARAMETERS:
        return None
    blocks = [block for stage in net.encoders for block in stage.children()]
    positions = {frozenset(getattr(block, "mask_positions", ())) for block in blocks} - {frozenset()}
    if len(positions) != 1 or any(getattr(block, "mask_deformable", False) for block in blocks):
        return None
    pruned = PRUNED_T.get(positions.pop())
    if pruned is None:
        return None
    return Published(
        {"NAFNet-32": NAFNET_T, "dense": DENSE_T, "pruned": pruned},
        {"NAFNet-32": 17.11, "dense": 17.44, "pruned": 17.44},
        (_OF_NAFNET, *_OF_M2AENET),
    )


def _of_aibnet(net: AIBNet) -> Published | None:
    printed = SUB_DECODERS_G.get(len(net.sub_decoders))
    if printed is None or any(shapes_of(decoder) != _papers_shapes() for decoder in net.sub_decoders):
        return None
    name = type(net).__name__
    return Published(
        {},
        {},
        _OF_AIBNET,
        trained_m={name: TRAINED_M},
        sub_decoders_g={name: printed},
        source="AIBNet, tables 7 and 10",
    )


@cache
def _papers_shapes() -> dict[str, torch.Size]:
    """The parameters of a sub-decoder as the paper has them: width 64, eight blocks at each scale."""
    with torch.device("meta"):
        return shapes_of(AIBNet(NAFNet(64, (1, 1, 1, 1), 1, (1, 1, 1, 1))).sub_decoders[0])


def shapes_of(part: nn.Module) -> dict[str, torch.Size]:
    """The shapes of the parameters of a net, or of a part, by name."""
    return {name: parameter.shape for name, parameter in part.named_parameters()}
