"""What an AIBNet computes on the way to a restored picture, as maps and numbers that can be drawn."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from deblur_lab.models import AIBNet, BlockMaps, HFSBlock, SFDHBlock, SubDecoder
from deblur_lab.pictures import BlockAttention, FeatureMap, FeatureRow

Kept = list[list[Tensor | None]]
"""By sub-decoder and scale, the full resolution first: (B, 2, masks), None without masks.

The first are the shares of the attention that each mask keeps, the second those of the entries.
"""


class Look(NamedTuple):
    """What is seen inside a net, of a batch.

    Attributes:
        restored: (B, 3, H, W), by the last sub-decoder, not clamped.
        planes: (B, P, H, W): three of each earlier sub-decoder's picture, then one of each feature map of the
            last sub-decoder at the full resolution, as `insight` names them.
        kept: what each mask keeps.
    """

    restored: Tensor
    planes: Tensor
    kept: Kept


class Insight(NamedTuple):
    """What is seen inside a net, of one picture.

    Attributes:
        restorations: (3, H, W) in [0, 1], one a sub-decoder.
        rows: feature maps of the last sub-decoder at the full resolution.
        kept: for each sub-decoder and scale that has masks, what they keep.
    """

    restorations: tuple[Tensor, ...]
    rows: tuple[FeatureRow, ...]
    kept: tuple[tuple[BlockAttention, ...], ...]


def look_inside(net: AIBNet, blurry: Tensor) -> Look:
    """Restore pictures, and see what was computed on the way.

    Args:
        net: in eval mode.
        blurry: (B, 3, H, W), RGB in [0, 1].
    """
    inspection = net.inspect(blurry)
    height, width = blurry.shape[-2:]
    strengths = [
        values.float().abs().mean(1, keepdim=True)[..., :height, :width]
        for _, _, values in _maps(net, inspection.maps[-1][0])
    ]
    nothing = blurry[:, :0].float()
    planes = torch.cat([nothing, *(one.float() for one in inspection.restorations[:-1]), *strengths], dim=1)
    kept = [[_shares(scale) for scale in decoder] for decoder in inspection.maps]
    return Look(inspection.restorations[-1], planes, kept)


def _shares(maps: BlockMaps) -> Tensor | None:
    return None if maps.kept is None else torch.stack([maps.kept.attention, maps.kept.entries], dim=1)


def insight(
    net: AIBNet, restored: Tensor, planes: Tensor, kept: Sequence[Sequence[Tensor | None]]
) -> Insight:
    """Name what was seen of one picture.

    Args:
        net: that it was seen in.
        restored: (3, H, W).
        planes: (P, H, W), of `Look`.
        kept: as in `Look`, each (2, masks).
    """
    earlier = len(net.sub_decoders) - 1
    pictures = [*torch.unflatten(planes[: 3 * earlier], 0, (earlier, 3)), restored] if earlier else [restored]
    rows: dict[str, list[FeatureMap]] = {}
    names = [(row, name) for row, name, _ in _maps(net, None)]
    for (row, name), plane in zip(names, planes[3 * earlier :], strict=True):
        rows.setdefault(row, []).append(FeatureMap(name, plane[None]))
    return Insight(
        tuple(picture.clamp(0, 1) for picture in pictures),
        tuple(FeatureRow(row, maps) for row, maps in rows.items()),
        tuple(_named(net, number, shares) for number, shares in enumerate(kept)),
    )


def _maps(net: AIBNet, found: BlockMaps | None) -> list[tuple[str, str, Tensor]]:
    """The row, the name and the features of each map; where nothing was found, of what there would be."""
    decoder = cast(SubDecoder, net.sub_decoders[-1])
    nothing = torch.empty(0)
    maps: list[tuple[str, str, Tensor]] = []

    def add(row: str, name: str, features: Tensor | None) -> None:
        maps.append((row, name, nothing if features is None else features))

    blocks = list(cast(Sequence[SFDHBlock], decoder.decoders[-1]))
    if blocks:
        spatial = blocks[-1].spatial
        called = type(spatial).__name__
        before, sca, sfem = (found.before, found.sca, found.sfem) if found is not None else (None,) * 3
        if spatial is not None:
            row = f"Features before and after the last {called}"
            add(row, f"before {called}", before)
            both = None if before is None or sfem is None else before + sfem
            add(row, f"after {called}", both)
        row = "What the branches of this block add"
        add(row, "channel attention (SCA)", sca)
        if spatial is not None:
            add(row, called, sfem)
    if len(decoder.frequencies):
        called = type(decoder.frequencies[-1]).__name__
        before, after = (found.before_hfs, found.after_hfs) if found is not None else (None, None)
        row = f"Features before and after the last {called}"
        row = row if not any(row == other for other, _, _ in maps) else f"{row}, at the scale's end"
        add(row, f"before {called}", before)
        add(row, f"after {called}", after)
        change = None if before is None or after is None else after - before
        add(f"What this {called} adds", f"after less before {called}", change)
    return maps


def _named(net: AIBNet, number: int, shares: Sequence[Tensor | None]) -> tuple[BlockAttention, ...]:
    decoder = cast(SubDecoder, net.sub_decoders[number])
    named = []
    for scale, share in enumerate(shares):
        block = decoder.frequencies[len(shares) - 1 - scale] if len(decoder.frequencies) else None
        if share is None or not isinstance(block, HFSBlock):
            continue
        at = f"1/{2**scale} of the resolution" if scale else "full resolution"
        named.append(
            BlockAttention(
                f"sub-decoder {number + 1}, {at}",
                share[0].tolist(),
                share[1].tolist(),
                block.selection.weights.tolist(),
            )
        )
    return tuple(named)
