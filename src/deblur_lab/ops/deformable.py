"""Motion-aware deformable depth-wise convolution: every kernel point follows the motion of the pixel.

M2AENet (section 3.3.2, eq. 6), after Dai et al., "Deformable Convolutional Networks", ICCV 2017.

All blocks of a network that see the same motion share one `MotionPlan`: where every kernel point looks, as
rows of a table whose row p holds the channels of pixel p. With A_k the sparse matrix of the bilinear weights
of kernel point k (four to a row), F the features, V the output's gradient, and w_k the kernel point's weight
for each channel,

    output = sum_k w_k * (A_k F)              dF = sum_k w_k * (A_k^T V)
    dw_k = sum_pixels F * (A_k^T V)           dA_k = (w_k * V) F^T, where A_k has entries

A_k F is what `embedding_bag` does, and so is A_k^T V over the transposed entries: nothing scatters. The
pixels are worked off in chunks that stay in the cache.

Letters in shapes: P pixels of the whole batch (B * H * W), K kernel points, C channels.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from deblur_lab.ops.bilinear import bilinear_corners
from deblur_lab.ops.costs import count

CORNERS = 4
# Numbers, not bytes, that a chunk of sampled features may hold. On a CPU, what the caches of two cores hold
# did best; on a GPU few and large chunks are chosen, because each costs launches.
CHUNK_CPU = 600_000
CHUNK_GPU = 64_000_000


class TransposedPlan(NamedTuple):
    """The entries of a plan sorted by (pixel looked at, kernel point): what its gradient needs."""

    bounds: Tensor
    """`(P * K + 1,)` int32: where the entries of each (pixel looked at, kernel point) begin and end."""
    source: Tensor
    """`(P * K * 4,)` int32: the pixel that looks."""
    weights: Tensor
    """`(P * K * 4,)`: the bilinear weight, without autograd history."""


@dataclass(frozen=True)
class PixelMotion:
    """Where every kernel point of some of the pixels looks; see `MotionPlan.at`.

    Attributes:
        points: kernel points, K.
        index: `(Q * K * 4,)` int32, the pixels looked at, counted through the whole batch.
        weights: `(Q * K * 4,)`, their bilinear weights.
    """

    points: int
    index: Tensor
    weights: Tensor

    @property
    def pixels(self) -> int:
        """The pixels that look, Q."""
        return self.index.numel() // (self.points * CORNERS)


class MotionPlan:
    """Where every kernel point of every pixel looks; made by `plan_motion`, once an image.

    Attributes:
        batch: images in the batch, B.
        height: of the features, H.
        width: of the features, W.
        points: kernel points, K.
        index: `(P * K * 4,)` int32, the pixels looked at, counted through the whole batch.
        weights: `(P * K * 4,)` float32 or float64, their bilinear weights, with their autograd history.
    """

    def __init__(self, size: tuple[int, int, int], points: int, index: Tensor, weights: Tensor) -> None:
        self.batch, self.height, self.width = size
        self.points = points
        self.index, self.weights = index, weights
        self._transposed: TransposedPlan | None = None
        self._corners: list[tuple[Tensor, Tensor]] | None = None

    @property
    def pixels(self) -> int:
        """Pixels of the whole batch, P."""
        return self.batch * self.height * self.width

    def at(self, pixels: Tensor) -> PixelMotion:
        """The part of the plan that some pixels look by, `(Q,)` int64; for inference."""
        entries = (self.pixels, self.points * CORNERS)
        index = self.index.view(entries).index_select(0, pixels).flatten()
        return PixelMotion(
            self.points, index, self.weights.detach().view(entries).index_select(0, pixels).flatten()
        )

    def corners(self) -> list[tuple[Tensor, Tensor]]:
        """Of each corner, the pixels looked at, `(P * K,)`, and their weights, `(P, K, 1)`; made once."""
        if self._corners is None:
            entries = (-1, self.points, CORNERS)
            index, weights = self.index.view(entries), self.weights.view(entries)
            self._corners = [
                (index[..., corner].flatten(), weights[..., corner, None]) for corner in range(CORNERS)
            ]
        return self._corners

    def transposed(self) -> TransposedPlan:
        """The plan sorted for its gradient; worked out on the first call."""
        if self._transposed is None:
            self._transposed = self._transpose()
        return self._transposed

    def _transpose(self) -> TransposedPlan:
        device = self.index.device
        # Row and position in one number: no two are equal, so that any sort is a stable one, and sorting
        # numbers alone is much faster than sorting with indices.
        point = torch.arange(self.points, device=device).view(1, -1, 1)
        row = (self.index.view(self.pixels, self.points, CORNERS) * self.points + point).flatten()
        packed = (row << 32) + torch.arange(row.numel(), device=device)
        if device.type == "cpu":
            packed.numpy().sort()  # vectorised in numpy: 20 times as fast as torch's
        else:
            packed = packed.sort().values
        rows = torch.arange(self.pixels * self.points + 1, device=device) << 32
        bounds = torch.searchsorted(packed, rows, out_int32=True)
        position = packed & 0xFFFFFFFF
        source = (position // (self.points * CORNERS)).int()
        return TransposedPlan(bounds, source, self.weights.detach()[position])


def kernel_grid(device: torch.device | None = None) -> Tensor:
    """The points of a regular 3x3 kernel, `(9, 2)` float32: x then y, row by row from the top left.

    A sum of this grid and the trajectory's displacements is what `plan_motion` takes.
    """
    step = torch.arange(-1.0, 2.0, device=device)
    return torch.stack(torch.meshgrid(step, step, indexing="xy"), -1).view(9, 2)


def plan_motion(displacements: Tensor) -> MotionPlan:
    """Work out where every kernel point looks.

    Args:
        displacements: `(B, K, 2, H, W)` in pixels of the features, x (to the right) then y (down); the
            kernel's regular grid (`kernel_grid`) is included. Types below float32 are computed in float32.

    Returns:
        A plan for features `(B, any C, H, W)`. Gradients reach the displacements through it from every
        convolution that uses it. What is outside the frame counts as zero.

    Raises:
        ValueError: if the shape is another, or there are 2**31 bilinear weights or more.
    """
    if displacements.dim() != 5 or displacements.shape[2] != 2:
        raise ValueError(f"expected displacements (B, K, 2, H, W), got {tuple(displacements.shape)}")
    batch, points, _, height, width = displacements.shape
    if batch * height * width * points * CORNERS >= 2**31:
        raise ValueError(
            f"{tuple(displacements.shape)} displacements are too many for a plan: tile the image"
        )
    precise = torch.promote_types(displacements.dtype, torch.float32)
    index, weights = bilinear_corners(displacements.to(precise))
    image = torch.arange(batch, device=index.device) * (height * width)
    index = index + image.view(-1, 1, 1, 1, 1)
    # (B, K, corner, H, W) to (B, H, W, K, corner): a pixel's entries lie together.
    return MotionPlan(
        (batch, height, width),
        points,
        index.permute(0, 3, 4, 1, 2).flatten().int(),
        weights.permute(0, 3, 4, 1, 2).flatten(),
    )


def deformable_depthwise(features: Tensor, plan: MotionPlan, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve each channel with its own kernel, whose points look where the plan says.

    M2AENet, section 3.3.2, eq. 6: DConv, depth-wise. Equal to `torchvision.ops.deform_conv2d` with one group
    per channel and one offset group, stride 1, without its mask. Gradients reach the features, the weight,
    the bias and the plan's displacements; second derivatives are not offered. On one machine the same input
    gives the same bits.

    Args:
        features: `(B, C, H, W)`; without a copy when their memory format is channels_last.
        plan: of the same batch and size.
        weight: `(C, 1, kernel height, kernel width)`, as many points as the plan has, row by row.
        bias: `(C,)`, or None.

    Returns:
        `(B, C, H, W)` in the channels_last memory format and the features' type. Sums are made in float32 at
        least, also under autocast.

    Raises:
        ValueError: if the shapes do not fit.
    """
    batch, channels, height, width = features.shape
    if (batch, height, width) != (plan.batch, plan.height, plan.width):
        raise ValueError(
            f"features {tuple(features.shape)} do not fit a plan for {plan.batch} images of "
            f"{plan.height}x{plan.width} pixels"
        )
    if weight.shape[:2] != (channels, 1) or weight.shape[2:].numel() != plan.points:
        raise ValueError(
            f"weight {tuple(weight.shape)} does not fit {channels} channels and {plan.points} kernel points"
        )
    if torch.compiler.is_exporting():
        return _gathered(features, plan, weight, bias)
    return cast(Tensor, _DeformableDepthwise.apply(features, plan.weights, weight, bias, plan))


def deformable_depthwise_at(rows: Tensor, motion: PixelMotion, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve as `deformable_depthwise` does, at some of the pixels alone; for inference.

    Args:
        rows: `(P, C)`, the features of all pixels of the batch, as any of them may be looked at.
        motion: of the Q pixels that are wanted.
        weight: `(C, 1, kernel height, kernel width)`, as many points as the motion has, row by row.
        bias: `(C,)`, or None.

    Returns:
        `(Q, C)` in the type of `rows`; sums are made in float32 at least.
    """
    table = rows.detach().to(torch.promote_types(rows.dtype, motion.weights.dtype)).contiguous()
    return _convolve(table, motion, _kernel(weight.detach(), table.dtype), bias).to(rows.dtype)


class _DeformableDepthwise(torch.autograd.Function):
    """The output and its gradients, by the equations in the module's docstring."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch has no type for a context with attributes
        features: Tensor,
        corner_weights: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        plan: MotionPlan,
    ) -> Tensor:
        # `corner_weights` are the plan's own: they are an argument so that autograd sees them.
        ctx.plan = plan
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.save_for_backward(features, weight)
        # Detached, because what requires a gradient sends `embedding_bag` down a slower path even here.
        table = _rows(features.detach(), corner_weights.dtype)
        output = _convolve(table, plan, _kernel(weight.detach(), table.dtype), bias)
        return _image(output, plan, features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        plan: MotionPlan = ctx.plan
        features, weight = (saved.detach() for saved in ctx.saved_tensors)
        table = _rows(features, plan.weights.dtype)
        error = _rows(gradient, table.dtype)
        kernel = _kernel(weight, table.dtype)
        needs_features, needs_corners, needs_weight, needs_bias, _ = ctx.needs_input_grad

        features_gradient = weight_gradient = corners_gradient = bias_gradient = None
        if needs_features or needs_weight:
            table_gradient, kernel_gradient = _transposed_convolve(table, error, plan, kernel)
            features_gradient = _image(table_gradient, plan, features.dtype)
            weight_gradient = kernel_gradient.t().reshape(weight.shape).to(weight.dtype)
        if needs_corners:
            corners_gradient = _corner_gradient(table, error, plan, kernel).to(plan.weights.dtype)
        if needs_bias:
            bias_gradient = error.sum(0).to(ctx.bias_dtype)
        return features_gradient, corners_gradient, weight_gradient, bias_gradient, None


def _rows(image: Tensor, dtype: torch.dtype) -> Tensor:
    """`(B, C, H, W)` to `(P, C)`, in `dtype` or the image's own type, whichever is more precise."""
    rows = image.permute(0, 2, 3, 1).reshape(-1, image.shape[1])
    return rows.to(torch.promote_types(image.dtype, dtype)).contiguous()


def _image(rows: Tensor, plan: MotionPlan, dtype: torch.dtype) -> Tensor:
    """`(P, C)` to `(B, C, H, W)`."""
    return rows.view(plan.batch, plan.height, plan.width, -1).permute(0, 3, 1, 2).to(dtype)


def _kernel(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """`(C, 1, kernel height, kernel width)` to `(K, C)`."""
    return weight.to(dtype).flatten(1).t().contiguous()


def _chunk_pixels(table: Tensor, plan: MotionPlan | PixelMotion) -> int:
    numbers = CHUNK_CPU if table.device.type == "cpu" else CHUNK_GPU
    return max(1, min(plan.pixels, numbers // (plan.points * table.shape[1])))


def _weighted_sums(table: Tensor, index: Tensor, weights: Tensor, starts: Tensor) -> Tensor:
    """For each start, the sum of weight * row of `table` over its entries."""
    return F.embedding_bag(index, table, starts, mode="sum", per_sample_weights=weights)


def _convolve(table: Tensor, plan: MotionPlan | PixelMotion, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """sum_k w_k * (A_k F) for features `(P, C)` and a kernel `(K, C)`, at the plan's pixels."""
    output = table.new_empty(plan.pixels, table.shape[1])
    step = _chunk_pixels(table, plan)
    entries = plan.points * CORNERS
    weights = plan.weights.detach().to(table.dtype)
    starts = torch.arange(0, step * entries, CORNERS, dtype=torch.int32, device=table.device)
    for first in range(0, plan.pixels, step):
        last = min(first + step, plan.pixels)
        mine = slice(first * entries, last * entries)
        bags = starts[: (last - first) * plan.points]
        sampled = _weighted_sums(table, plan.index[mine], weights[mine], bags).view(-1, *kernel.shape)
        target = output[first:last]
        torch.sum(sampled.mul_(kernel), 1, out=target)
        if bias is not None:
            target += bias
    count("deformable sampling", output.numel() * entries)
    count("deformable kernel", output.numel() * plan.points)
    return output


def _gathered(features: Tensor, plan: MotionPlan, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The output of `deformable_depthwise` by what every runtime has, for any size: for exported graphs.

    The same look-ups and the same weights, so that it is as exact. ONNX has no `embedding_bag`, and a graph
    no chunks, whose number depends on the size. Its own DeformConv, with a group for each channel, is not
    used: few runtimes have it. One corner after the other, all kernel points at once, is few operations to
    trace, at nine times the memory of the features.
    """
    table = _rows(features, plan.weights.dtype)
    kernel = _kernel(weight, table.dtype)
    sampled: Tensor | None = None
    for index, weights in plan.corners():
        seen = table.index_select(0, index).view(-1, *kernel.shape) * weights
        sampled = seen if sampled is None else sampled + seen
    assert sampled is not None
    output = (sampled * kernel).sum(1)
    return _image(output if bias is None else output + bias, plan, features.dtype)


def _transposed_convolve(
    table: Tensor, error: Tensor, plan: MotionPlan, kernel: Tensor
) -> tuple[Tensor, Tensor]:
    """sum_k w_k * (A_k^T V), `(P, C)`, and the kernel's gradient, sum_pixels F * (A_k^T V), `(K, C)`."""
    table_gradient = torch.empty_like(table)
    kernel_gradient = torch.zeros_like(kernel)
    step = _chunk_pixels(table, plan)
    transposed = plan.transposed()
    weights = transposed.weights.to(table.dtype)
    # Reading the bounds would make the host wait for a GPU: not where there is but one chunk.
    edges = [0] if step >= plan.pixels else transposed.bounds[: -1 : step * plan.points].tolist()
    edges.append(weights.numel())
    for chunk, first in enumerate(range(0, plan.pixels, step)):
        last = min(first + step, plan.pixels)
        mine = slice(edges[chunk], edges[chunk + 1])
        bags = transposed.bounds[first * plan.points : last * plan.points] - edges[chunk]
        collected = _weighted_sums(error, transposed.source[mine], weights[mine], bags).view(
            -1, *kernel.shape
        )
        torch.sum(collected * kernel, 1, out=table_gradient[first:last])
        kernel_gradient += collected.mul_(table[first:last].unsqueeze(1)).sum(0)
    return table_gradient, kernel_gradient


def _corner_gradient(table: Tensor, error: Tensor, plan: MotionPlan, kernel: Tensor) -> Tensor:
    """(w_k * V) F^T at the plan's entries, `(P * K * 4,)`."""
    gradient = table.new_empty(plan.index.shape)
    step = _chunk_pixels(table, plan)
    entries = plan.points * CORNERS
    starts = torch.arange(0, step * entries, CORNERS, dtype=torch.int32, device=table.device)
    bag = torch.arange(step * plan.points, dtype=torch.int32, device=table.device)
    bag = bag.unsqueeze(1).expand(-1, CORNERS).flatten()
    for first in range(0, plan.pixels, step):
        last = min(first + step, plan.pixels)
        mine = slice(first * entries, last * entries)
        rows = (last - first) * plan.points
        weighted = (error[first:last].unsqueeze(1) * kernel).view(rows, -1)
        # What autograd calls for embedding_bag's per_sample_weights: a dot product for each entry. What is
        # public takes twice as long (two more bags) or prints warnings (sparse CSR tensors).
        gradient[mine] = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            weighted, table, plan.index[mine], starts[:rows], bag[: rows * CORNERS], 0
        )
    return gradient
