"""Time M2AENet's masked convolutions, pruned against dense, on the CPU; print one JSON.

    python benchmarks/pruning.py [--turns 7] [--threads 2] [--output FILE]

At the size of the fourth stage of a ReLoBlur picture, 256 channels of 180x270, for blobs of several shares
and for pixels scattered at random, which the dilation multiplies. Equality is asserted before timing.

"first half" is what position (1) masks: 1x1 and depth-wise 3x3 convolution, mask, gate. "dense" computes
all and chooses; "dense without mask" is NAFNet's, which has nothing to choose. "block" is a whole block with
its deformable convolution, masked at position (1), at all three, and in our variant, the deformable half on
blurred pixels only. "plan" is what a mask costs once an image, for all 28 blocks.

On a machine that others use too, set OMP_WAIT_POLICY=passive (see deformable.py).
"""

from collections.abc import Callable
from typing import NamedTuple

import measuring
import torch
import torch.nn.functional as F
from torch import Tensor

from deblur_lab.models import M2ASBlock
from deblur_lab.ops.deformable import kernel_grid, plan_motion
from deblur_lab.ops.pruning import MaskPlan, plan_mask, pointwise_depthwise

CHANNELS, HEIGHT, WIDTH = 256, 180, 270
BLOB_SHARES = (0.05, 0.1, 0.3, 0.6, 0.8, 0.9, 1.0)
SCATTERED_SHARE = 0.1
BLOB_RADIUS_PX = (8, 22)
TOLERANCE = 1e-5


class Variant(NamedTuple):
    """A block that is timed."""

    positions: tuple[int, ...]
    deformable: bool


VARIANTS = {
    "position 1": Variant((1,), False),
    "positions 1, 2, 3": Variant((1, 2, 3), False),
    "positions 1, 2, 3, deformable half (ours)": Variant((1, 2, 3), True),
}


def block_of(variant: Variant) -> M2ASBlock:
    """A block with weights that are not zero anywhere."""
    torch.manual_seed(0)
    block = M2ASBlock(CHANNELS, mask_positions=variant.positions, mask_deformable=variant.deformable).eval()
    for weight in block.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    return block.requires_grad_(False)


def first_half(block: M2ASBlock, features: Tensor, mask: Tensor | None) -> Tensor:
    """What position (1) masks, dense: to (1, C, H, W)."""
    normed = block.norm1(features)
    mixed = block.conv2(block.conv1(normed))
    if mask is not None:
        mixed = torch.where(mask > 0.5, mixed, torch.cat([normed, normed], 1))
    gated: Tensor = block.gate(mixed)
    return gated


def first_half_pruned(block: M2ASBlock, features: Tensor, mask: MaskPlan) -> Tensor:
    """The same, at the pixels that it is needed at."""
    rows = block.norm1(features).permute(0, 2, 3, 1).reshape(-1, CHANNELS)
    pair = ((block.conv1.weight, block.conv1.bias), (block.conv2.weight, block.conv2.bias))
    inside = block.gate(pointwise_depthwise(rows, mask, *pair))
    gated = rows.square().index_copy_(0, mask.selected, inside)
    return gated.view(1, HEIGHT, WIDTH, CHANNELS).permute(0, 3, 1, 2)


def measure(kind: str, mask: Tensor, turns: int) -> dict[str, object]:
    """Check one mask, time it, and return its part of the report."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, CHANNELS, HEIGHT, WIDTH, generator=generator)
    features = features.contiguous(memory_format=torch.channels_last)
    coarse = 3 * torch.randn(1, 18, 12, 18, generator=generator)
    motion = F.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear").view(1, 9, 2, HEIGHT, WIDTH)
    trajectories = plan_motion(motion + kernel_grid()[:, :, None, None])
    plan = plan_mask(mask)
    here = trajectories.at(plan.selected)
    blocks = {name: block_of(variant) for name, variant in VARIANTS.items()}
    first = next(iter(blocks.values()))

    calls: dict[str, Callable[[], object]] = {
        "first half, dense": lambda: first_half(first, features, mask),
        "first half, dense without mask": lambda: first_half(first, features, None),
        "first half, pruned": lambda: first_half_pruned(first, features, plan),
        "plan": lambda: plan_mask(mask),
    }
    errors = {"first half": difference(calls["first half, pruned"], calls["first half, dense"])}
    for name, block in blocks.items():
        calls[f"block, {name}, dense"] = lambda block=block: block(features, mask, trajectories)
        calls[f"block, {name}, pruned"] = lambda block=block: block.pruned(features, plan, trajectories, here)
        errors[name] = difference(calls[f"block, {name}, pruned"], calls[f"block, {name}, dense"])
    assert max(errors.values()) < TOLERANCE, f"pruned and dense differ: {errors}"
    times = measuring.in_turn(calls, turns)
    compared = {
        "first half, pruned / dense": ("first half, pruned", "first half, dense"),
        "first half, pruned / dense without mask": ("first half, pruned", "first half, dense without mask"),
        **{
            f"block, {name}, pruned / dense": (f"block, {name}, pruned", f"block, {name}, dense")
            for name in blocks
        },
    }
    return {
        "mask": kind,
        "selected_share": round(plan.selected_share, 4),
        "dilated_share": round(plan.dilated_share, 4),
        "largest_error_as_share_of_largest_value": errors,
        "milliseconds": measuring.milliseconds(times),
        "ratios": {name: measuring.spread(measuring.ratios(times, *pair)) for name, pair in compared.items()},
    }


def difference(mine: Callable[[], object], theirs: Callable[[], object]) -> float:
    """The largest difference of two results, as a share of the largest value."""
    found, wanted = mine(), theirs()
    assert isinstance(found, Tensor)
    assert isinstance(wanted, Tensor)
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def main() -> None:
    """Measure every mask and print the JSON."""
    arguments = measuring.parser("Time M2AENet's masked convolutions, pruned against dense.").parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(0)
    scattered = (torch.rand(1, 1, HEIGHT, WIDTH, generator=generator) < SCATTERED_SHARE).float()
    blobs = [measuring.discs((HEIGHT, WIDTH), share, BLOB_RADIUS_PX) for share in BLOB_SHARES]
    masks = [*(("blobs", mask) for mask in blobs), ("scattered", scattered)]
    with torch.inference_mode():
        results = [measure(kind, mask, arguments.turns) for kind, mask in masks]
    size = {"channels": CHANNELS, "height": HEIGHT, "width": WIDTH, "dtype": "float32"}
    measuring.report("masked convolutions, pruned and dense", arguments, {"size": size, "results": results})


if __name__ == "__main__":
    main()
