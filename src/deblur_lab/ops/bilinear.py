"""The four pixels around a displaced pixel, and how much each of them counts."""

from collections.abc import Callable

import torch
from torch import Tensor


def bilinear_corners(displacements: Tensor) -> tuple[Tensor, Tensor]:
    """Find the pixels that a bilinear look-up, or a bilinear splat, of each displaced pixel touches.

    Position (x, y) + displacement lies in a cell of four pixel centres, in the order (top left, top right,
    bottom left, bottom right). A corner outside the frame counts zero and points at the undisplaced pixel,
    so that every index is valid and no single pixel collects all that leaves the frame.

    The fraction is taken from the displacement before the pixel's own coordinates are added: it keeps its
    precision on large images. Gradients reach the displacements through the weights; on a cell's border,
    where the derivative does not exist, it is the one of the cell to the right (below). A displacement that
    is not finite gets weights that are NaN.

    Args:
        displacements: `(..., 2, H, W)` in pixels, x (to the right) then y (down), floating point.

    Returns:
        The flat indices `y * W + x` of the corners, `(..., 4, H, W)` int64, and their weights, of the same
        shape and of the displacements' type.
    """
    height, width = displacements.shape[-2:]
    device = displacements.device
    pixel = torch.stack(
        torch.meshgrid(torch.arange(width, device=device), torch.arange(height, device=device), indexing="xy")
    )
    # Two axes of each of the two lines that bound the cell: (..., line, axis, H, W).
    floor = displacements.detach().floor()
    fraction = displacements - floor
    share = torch.stack((1 - fraction, fraction), -4)
    # Clamped because a huge float has no int64; what is clamped is outside the frame before and after.
    reach = max(height, width) + 1
    first = floor.clamp(-reach, reach).long() + pixel
    line = torch.stack((first, first + 1), -4)
    inside = (line >= 0) & (line <= pixel[:, -1:, -1:])

    index = _cross(line[..., 1, :, :] * width, line[..., 0, :, :], torch.add)
    valid = _cross(inside[..., 1, :, :], inside[..., 0, :, :], torch.logical_and)
    weights = _cross(share[..., 1, :, :], share[..., 0, :, :], torch.mul) * valid
    return torch.where(valid, index, pixel[1] * width + pixel[0]), weights


def _cross(rows: Tensor, columns: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Combine both lines of y, `(..., 2, H, W)`, with both lines of x into corners, `(..., 4, H, W)`."""
    return combine(rows.unsqueeze(-3), columns.unsqueeze(-4)).flatten(-4, -3)
