"""The multiply-adds that M2AENet's paper gives (Shang et al. 2025, tables 2 to 4), and how ours differ."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from deblur_lab.models import M2AENet, NAFNet

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


@dataclass(frozen=True)
class Published:
    """What a paper gives for a net at a size.

    Attributes:
        multiply_adds_t: in units of 10**12, by column: "NAFNet-32", "dense", "pruned".
        parameters_m: in millions, by the same.
        notes: how the counts differ from ours, a line each.
        source: of the numbers.
    """

    multiply_adds_t: Mapping[str, float]
    parameters_m: Mapping[str, float]
    notes: tuple[str, ...]
    source: str = "Shang et al. 2025, tables 2, 3 (variants 1 and 2) and 4; ReLoBlur, 2152 x 1436"

    def as_json(self) -> dict[str, Any]:
        """As plain containers."""
        return asdict(self)


def published_costs(net: nn.Module, size_px: tuple[int, int]) -> Published | None:
    """What M2AENet's paper gives for a net, or None where it gives nothing.

    Args:
        net: is one of the paper's if its class and the number of its parameters are.
        size_px: width and height of the picture.
    """
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
