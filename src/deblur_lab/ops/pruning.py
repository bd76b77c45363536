"""Convolutions at the pixels that a mask selects, and nowhere else (M2AENet, section 3.3.1, "pixel pruning").

The paper unfolds the 3x3 neighbourhoods of a picture and convolves those of the selected pixels by a matrix
product. Behind a 1x1 convolution this computes each of its results up to nine times, and at a tenth of the
pixels nothing is saved. Here the 1x1 convolution runs once on the selected pixels and their neighbours, the
dilated mask, and the depth-wise one gathers nine of the results for each selected pixel: the same numbers,
for the dilated share of the one and the selected share of the other.

All blocks of a network that share a mask share one `MaskPlan`.

Letters in shapes: P pixels of the whole batch (B * H * W), Q of them selected, D in the dilated mask; C
channels.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from deblur_lab.ops.costs import count

# Numbers, not bytes, that a chunk of gathered rows may hold: on a CPU what its caches hold, in few calls.
CHUNK_CPU = 524_288
CHUNK_GPU = 64_000_000
KERNEL_POINTS = 9


class MaskPlan(NamedTuple):
    """Which pixels are computed; made by `plan_mask`, once an image.

    Pixels are counted through the whole batch, row by row.

    Attributes:
        size: B, H, W.
        selected: `(Q,)` int64, the pixels whose mask is 1, in rising order.
        dilated: `(D,)` int64, those and their eight neighbours, in rising order.
        neighbours: `(9, Q)` int64: for each kernel point, row by row, the place of the selected pixel's
            neighbour in `dilated`; D, one past the last, where that lies outside the frame.
    """

    size: tuple[int, int, int]
    selected: Tensor
    dilated: Tensor
    neighbours: Tensor

    @property
    def pixels(self) -> int:
        """P."""
        batch, height, width = self.size
        return batch * height * width

    @property
    def selected_share(self) -> float:
        """Q / P, the share of the pixels that the depth-wise convolution is computed at."""
        return len(self.selected) / self.pixels

    @property
    def dilated_share(self) -> float:
        """D / P, the share of the pixels that the 1x1 convolution is computed at."""
        return len(self.dilated) / self.pixels


def dilate(mask: Tensor) -> Tensor:
    """Spread a mask, `(B, 1, H, W)` of 0 and 1, to the eight neighbours of each pixel, as floats."""
    return F.max_pool2d(mask.float(), 3, stride=1, padding=1)


def plan_mask(mask: Tensor) -> MaskPlan:
    """Work out which pixels are to be computed.

    Args:
        mask: `(B, 1, H, W)`, 0 or 1.

    Returns:
        A plan for features `(B, any C, H, W)`.

    Raises:
        ValueError: if the shape is another.
    """
    if mask.dim() != 4 or mask.shape[1] != 1:
        raise ValueError(f"expected a mask (B, 1, H, W), got {tuple(mask.shape)}")
    batch, _, height, width = mask.shape
    wanted = mask.detach() > 0.5
    grown = dilate(wanted) > 0.5
    selected = wanted.flatten().nonzero().squeeze(1)
    dilated = grown.flatten().nonzero().squeeze(1)
    # A frame of one pixel around each picture, so that no neighbour is in the next row or picture.
    framed, inside = F.pad(wanted[:, 0], (1, 1, 1, 1)), F.pad(grown[:, 0], (1, 1, 1, 1))
    place = torch.full(inside.shape, len(dilated), dtype=torch.int64, device=mask.device)
    place[inside] = torch.arange(len(dilated), device=mask.device)
    row = width + 2
    centre = framed.flatten().nonzero().squeeze(1)
    steps = torch.tensor([dy * row + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)], device=mask.device)
    neighbours = place.flatten()[centre + steps[:, None]]
    return MaskPlan((batch, height, width), selected, dilated, neighbours)


def pointwise_depthwise(
    rows: Tensor,
    plan: MaskPlan,
    pointwise: tuple[Tensor, Tensor | None],
    depthwise: tuple[Tensor, Tensor | None],
) -> Tensor:
    """Convolve 1x1, then depth-wise 3x3 with zero padding, at the selected pixels alone.

    Equal to the dense convolutions there. For inference: no gradients reach anything. Under autocast the
    products are of its type, as the dense ones are; the sums of the depth-wise part are made in float32.

    Args:
        rows: `(P, C)`, the features of all pixels.
        plan: of the mask.
        pointwise: weight `(C', C, 1, 1)` and bias `(C',)` or None.
        depthwise: weight `(C', 1, 3, 3)` and bias `(C',)` or None.

    Returns:
        `(Q, C')`, of the selected pixels in the plan's order.
    """
    # One row more, which becomes the zero that lies around the frame: appending it later would copy all.
    around = F.pad(plan.dilated, (0, 1))
    hidden = F.linear(rows.index_select(0, around), pointwise[0].flatten(1), pointwise[1])
    hidden[-1] = 0
    return masked_depthwise(hidden, plan, *depthwise)


def masked_depthwise(hidden: Tensor, plan: MaskPlan, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve each channel with its own 3x3 kernel, at the selected pixels alone.

    Args:
        hidden: `(D + 1, C)`, what is convolved, at the dilated pixels; the last row is zero.
        plan: of the mask.
        weight: `(C, 1, 3, 3)`.
        bias: `(C,)`, or None.

    Returns:
        `(Q, C)` in the type of `hidden`, summed in float32 at least.
    """
    precise = torch.promote_types(hidden.dtype, torch.float32)
    kernel = weight.flatten(1).t().to(precise).contiguous()
    pixels, channels = plan.neighbours.shape[1], hidden.shape[1]
    output = hidden.new_empty(pixels, channels)
    numbers = CHUNK_CPU if hidden.device.type == "cpu" else CHUNK_GPU
    step = max(1, numbers // channels)
    for first in range(0, pixels, step):
        last = min(first + step, pixels)
        sums = hidden.new_zeros(last - first, channels, dtype=precise)
        if bias is not None:
            sums += bias.to(precise)
        for point in range(KERNEL_POINTS):
            sums.addcmul_(
                hidden.index_select(0, plan.neighbours[point, first:last]).to(precise), kernel[point]
            )
        output[first:last] = sums
    count("masked depth-wise convolution", KERNEL_POINTS * pixels * channels)
    return output
