"""From pictures as arrays to pictures as the nets take them, and back.

On the side of the files a picture is a numpy array, (H, W, 3) RGB; on the side of the nets it is a tensor,
(..., 3, H, W) float in [0, 1].
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_tensor(image: NDArray[Any]) -> Tensor:
    """A picture or a mask as the nets take it.

    Args:
        image: A picture, (H, W, 3) uint8 or uint16, or a mask, (H, W) uint8 in {0, 1}.

    Returns:
        The picture as (3, H, W) float32 in [0, 1], or the mask as (1, H, W) float32 in {0, 1}.
    """
    if image.ndim == 2:
        assert image.dtype == np.uint8, "masks are uint8"
        assert image.max(initial=0) <= 1, "an (H, W) array is a mask of zeros and ones"
        return torch.from_numpy(image.astype(np.float32))[None]
    assert image.dtype in (np.uint8, np.uint16), "pictures are uint8 or uint16"
    # In one pass, and always a copy: what a decoder hands on may not be written to.
    channels_first = np.array(image.transpose(2, 0, 1), dtype=np.float32, order="C")
    return torch.from_numpy(channels_first).div_(np.iinfo(image.dtype).max)


def to_uint8(image: Tensor) -> NDArray[np.uint8]:
    """A restored picture as it is stored: clamped to [0, 1], rounded to 8 bits.

    Args:
        image: (3, H, W) float.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: The picture holds values that are not numbers.
    """
    return to_levels(image, np.dtype(np.uint8))


def to_levels(image: Tensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A restored picture as it is stored: clamped to [0, 1], rounded to 8 or 16 bits.

    Args:
        image: (C, H, W) float.
        dtype: uint8 or uint16.

    Returns:
        (H, W, C) of that type.

    Raises:
        ValueError: The picture holds values that are not numbers.
    """
    assert image.ndim == 3, "(C, H, W)"
    values = _levels(image, np.iinfo(dtype).max)
    # What is not a number makes the sum none; it costs a fraction of asking each.
    if bool(values.sum().isnan()):
        raise ValueError("the restored picture holds values that are not numbers (NaN)")
    return values.permute(1, 2, 0).cpu().numpy().astype(dtype, order="C")


def quantise(image: Tensor) -> Tensor:
    """The values that a picture has once it is stored in 8 bits: `round(clamp(image, 0, 1) * 255) / 255`.

    Args:
        image: Float of any shape.

    Returns:
        The same shape and type.
    """
    return (_levels(image, 255) / 255).to(image.dtype)


def _levels(image: Tensor, highest: int) -> Tensor:
    """The levels 0 to `highest`, still floats; half precision would not tell them apart after the product."""
    wide = image.to(torch.promote_types(image.dtype, torch.float32))
    return wide.clamp(0, 1).mul_(highest).round_()
