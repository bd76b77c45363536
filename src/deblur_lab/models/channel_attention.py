"""Attention between channels: a C x C matrix for each picture, summed over all of its pixels.

Legend: B batch, P pixels of a picture (height times width), C channels, h heads of c = C / h channels.
Features lie as (B, C, H, W), channels_last; attention looks at them as (B, P, C), which is the same memory.

Logits, softmax and what is learned about them are float32 at least, also where automatic mixed precision
is on: a logit is a sum over all pixels, and bfloat16 would round one of 1000 to a multiple of 4.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError

BETA_FLOOR = 1e-2
"""By no less are logits divided: beta is learned, and may come near zero or below."""
NORM_FLOOR = 1e-6


class ChannelLogits(nn.Module):
    """Products of queries and keys, over all pixels, divided by a learned beta (AIBNet, eq. 2 and 4).

    Assumes:
        - One beta a head, which starts at the root of the channels of a head, as printed; with `normalize` at
          1, as in Restormer (Zamir et al. 2022), whose products it makes.

    Without `normalize` a logit grows with the number of pixels, as printed in the paper.

    Args:
        channels: C.
        heads: h, a divisor of C.
        normalize: scale each channel of queries and keys to length 1 over the pixels first.

    Raises:
        ConfigurationError: if `heads` does not divide `channels`.

    Shape:
        Queries and keys (B, P, C), any float type, to float32 (B, h, c, c): row by query, column by key.
    """

    def __init__(self, channels: int, heads: int = 1, normalize: bool = False) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ConfigurationError(
                f"heads is {heads}, but {channels} channels are shared out: give a divisor of {channels}"
            )
        self.heads = heads
        self.normalize = normalize
        start = 1.0 if normalize else math.sqrt(channels // heads)
        self.beta = nn.Parameter(torch.full((heads, 1, 1), start))

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Multiply, and divide by beta."""
        products = channel_products(query, key, self.heads)
        if self.normalize:
            lengths = self._lengths(query)[..., :, None] * self._lengths(key)[..., None, :]
            products = products / lengths.clamp_min(NORM_FLOOR)
        return products / self.beta.to(products.dtype).clamp_min(BETA_FLOOR)

    def _lengths(self, pixels: Tensor) -> Tensor:
        """The root of the sum of squares over the pixels: (B, P, C) to float32 (B, h, c)."""
        kind = torch.promote_types(pixels.dtype, torch.float32)
        lengths: Tensor = torch.linalg.vector_norm(pixels, dim=1, dtype=kind)
        return lengths.view(len(pixels), self.heads, -1)


def channel_products(query: Tensor, key: Tensor, heads: int = 1) -> Tensor:
    """Sum query times key over the pixels, in float32 whatever their type and autocast.

    Args:
        query: (B, P, C).
        key: of the same shape and type.
        heads: h.

    Returns:
        (B, h, c, c), float32, or float64 of such: row by query, column by key.
    """
    products: Tensor = _Products.apply(_by_head(query, heads), _by_head(key, heads))
    return products.view(-1, heads, *products.shape[1:])


def attended(attention: Tensor, value: Tensor) -> Tensor:
    """Sum the channels of each pixel, weighted by each row of the attention.

    Args:
        attention: (B, h, c, c).
        value: (B, P, C).

    Returns:
        (B, P, C), of the values' type.
    """
    heads = attention.shape[1]
    by_head = _by_head(value, heads)
    mixed = torch.bmm(by_head, attention.to(value.dtype).flatten(0, 1).transpose(1, 2))
    return mixed if heads == 1 else mixed.view(-1, heads, *mixed.shape[1:]).transpose(1, 2).flatten(2)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Turn automatic mixed precision off for a while; the meta device has none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def to_pixels(features: Tensor) -> Tensor:
    """(B, C, H, W), channels_last, to (B, P, C), without a copy."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def to_features(pixels: Tensor, size: torch.Size) -> Tensor:
    """(B, P, C) to (B, C, H, W), channels_last, without a copy; `size` ends in H, W."""
    return pixels.view(len(pixels), size[-2], size[-1], -1).permute(0, 3, 1, 2)


def _by_head(pixels: Tensor, heads: int) -> Tensor:
    """(B, P, C) to (B * h, P, c); a copy where there is more than one head."""
    if heads == 1:
        return pixels
    return pixels.view(*pixels.shape[:2], heads, -1).transpose(1, 2).flatten(0, 1)


class _Products(torch.autograd.Function):
    """Transposed query times key, in float32; kept for the gradient are both as they came, in few bits.

    Plain float32 products would keep copies of twice the size.
    """

    @staticmethod
    def forward(query: Tensor, key: Tensor) -> Tensor:
        """(N, P, c) twice, to float32 (N, c, c)."""
        kind = torch.promote_types(query.dtype, torch.float32)
        with full_precision(query.device):
            if query.dtype != kind and query.is_cuda:
                return torch.bmm(query.transpose(1, 2), key, out_dtype=kind)
            return torch.bmm(query.to(kind).transpose(1, 2), key.to(kind))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ANN401
        """Keep both."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """The gradients, in the type of query and key."""
        query, key = ctx.saved_tensors
        with full_precision(query.device):
            gradient = gradient.to(query.dtype)
            return torch.bmm(key, gradient.transpose(1, 2)), torch.bmm(query, gradient)
