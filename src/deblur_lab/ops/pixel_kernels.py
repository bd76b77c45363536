"""Convolution where every pixel has a kernel of its own: what non-uniform blur does to a picture.

With P the picture with its edges replicated, d_k the offset of kernel point k from the kernel's middle, W_k
the kernels' values there, for all channels alike, and V the output's gradient:

    output(x) = sum_k W_k(x) P(x + d_k)
    dW_k(x) = sum_channels V(x) P(x + d_k)
    dP(y) = sum_k W_k(y - d_k) V(y - d_k)

As in all of deep learning kernels are not turned round: one whose only value stands right of its middle shows
at each pixel what is right of it. One kernel point is worked off after the other, so that no more than a few
tensors of the picture's size are held beside the picture and its kernels.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from deblur_lab.ops.costs import count


def convolve_per_pixel(picture: Tensor, kernels: Tensor) -> Tensor:
    """Give each pixel the sum of those around it, weighted by its own kernel.

    The kernels are taken as they are: see `normalise_kernels` for kernels that keep the brightness. Gradients
    reach the picture and the kernels; second derivatives are not offered. Sums are made in float32 at least,
    also under autocast.

    Args:
        picture: (B, C, H, W); what is outside is taken to be as the nearest pixel of the edge.
        kernels: (B, K*K, H, W), K odd, row by row from the top left.

    Returns:
        (B, C, H, W) in the more precise of both types, float32 at least.

    Raises:
        ValueError: if the shapes do not fit.
    """
    batch, _, height, width = picture.shape
    points = kernels.shape[1]
    side = round(points**0.5)
    if kernels.shape != (batch, side * side, height, width) or side % 2 == 0:
        raise ValueError(
            f"kernels {tuple(kernels.shape)} do not fit a picture {tuple(picture.shape)}: (B, K*K, H, W) "
            "with K odd are expected"
        )
    dtype = torch.promote_types(torch.promote_types(picture.dtype, kernels.dtype), torch.float32)
    middle = side // 2
    padded = F.pad(picture.to(dtype), (middle, middle, middle, middle), mode="replicate")
    # A kernel point at a time is read: of channels_last kernels that would be one number in each cache line.
    return cast(Tensor, _ConvolvePerPixel.apply(padded, kernels.to(dtype).contiguous()))


def normalise_kernels(kernels: Tensor, eps: float = 1e-6) -> Tensor:
    """Scale kernels so that each pixel's has the sum 1.

    Args:
        kernels: (B, K*K, H, W), not negative.
        eps: sums below this count as this.

    Returns:
        Of the same shape, float32 at least.
    """
    precise = kernels.to(torch.promote_types(kernels.dtype, torch.float32))
    return precise / precise.sum(1, keepdim=True).clamp_min(eps)


class _ConvolvePerPixel(torch.autograd.Function):
    """The output and its gradients, by the equations in the module's docstring; the picture is padded."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch has no type for a context with attributes
        padded: Tensor,
        kernels: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(padded, kernels)
        height, width = kernels.shape[-2:]
        output = padded.new_zeros(*padded.shape[:2], height, width)
        for point, (down, right) in enumerate(_offsets(kernels)):
            seen = padded[..., down : down + height, right : right + width]
            output.addcmul_(seen, kernels[:, point : point + 1])
        count("per-pixel convolution", output.numel() * kernels.shape[1])
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        padded, kernels = ctx.saved_tensors
        needs_picture, needs_kernels = ctx.needs_input_grad
        height, width = kernels.shape[-2:]
        picture_gradient = torch.zeros_like(padded) if needs_picture else None
        kernels_gradient = torch.empty_like(kernels) if needs_kernels else None
        for point, (down, right) in enumerate(_offsets(kernels)):
            seen = (..., slice(down, down + height), slice(right, right + width))
            if kernels_gradient is not None:
                torch.sum(gradient * padded[seen], 1, out=kernels_gradient[:, point])
            if picture_gradient is not None:
                picture_gradient[seen].addcmul_(gradient, kernels[:, point : point + 1])
        return picture_gradient, kernels_gradient


def _offsets(kernels: Tensor) -> list[tuple[int, int]]:
    """Row and column of each kernel point: what it sees of the padded picture begins there."""
    side = round(kernels.shape[1] ** 0.5)
    return [divmod(point, side) for point in range(side * side)]
