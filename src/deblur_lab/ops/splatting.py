"""Forward warping: each pixel of an image is thrown to where its displacement says.

Bilinear summation splatting and average splatting of Niklaus and Liu, "Softmax Splatting for Video Frame
Interpolation", CVPR 2020, section 3.1, and the reblurring of M2AENet (section 3.4.3, eq. 11), which uses it.
"""

import torch
from torch import Tensor

from deblur_lab.ops.bilinear import bilinear_corners


def forward_splat(image: Tensor, displacement: Tensor) -> tuple[Tensor, Tensor]:
    """Throw every pixel to its displaced position and add up what arrives (summation splatting).

    A pixel that lands between pixel centres is shared among the four around it, bilinearly; a share that
    leaves the frame is lost, and otherwise the sum over the frame is kept. Differentiable in the image and in
    the displacement. On the CPU the same input gives the same bits, whatever the number of threads; on CUDA
    only under `torch.use_deterministic_algorithms`.

    Args:
        image: `(B, C, H, W)`, floating point, any range.
        displacement: `(B, 2, H, W)` in pixels, x (to the right) then y (down).

    Returns:
        The sums `(B, C, H, W)`, of the image's type, and the weight that arrived at each pixel
        `(B, 1, H, W)`, at least float32.

    Raises:
        ValueError: if the shapes do not fit.
    """
    batch, channels, height, width = _checked_shape(image, displacement)
    precise = torch.promote_types(torch.promote_types(image.dtype, displacement.dtype), torch.float32)
    index, weights = bilinear_corners(displacement.to(precise))

    # The last channel is one everywhere: its sum is the weight.
    ones = image.new_ones((batch, 1, height, width), dtype=precise)
    pixels = torch.cat((image.to(precise), ones), 1).flatten(2)
    shares = pixels.unsqueeze(2) * weights.flatten(2).unsqueeze(1)
    # scatter_add_ runs one plane a thread and each plane in order, hence the CPU's determinism.
    sums = shares.new_zeros(pixels.shape).scatter_add(
        2, index.reshape(batch, 1, -1).expand(-1, channels + 1, -1), shares.flatten(2)
    )
    sums = sums.view(batch, channels + 1, height, width)
    return sums[:, :channels].to(image.dtype), sums[:, channels:]


def average_splat(image: Tensor, displacement: Tensor, eps: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Throw every pixel to its displaced position and average what arrives (average splatting).

    Args:
        image: `(B, C, H, W)`, floating point, any range.
        displacement: `(B, 2, H, W)` in pixels, x (to the right) then y (down).
        eps: a pixel that receives a weight of at most `eps`, out of 1 for a still image, counts as receiving
            nothing. It bounds the gradient with respect to the displacement, which grows as 1 / weight.

    Returns:
        The averages `(B, C, H, W)`, of the image's type and zero where nothing arrives, and the validity
        `(B, 1, H, W)`, 1 where something arrives and else 0, of the same type.

    Raises:
        ValueError: if the shapes do not fit.
    """
    _checked_shape(image, displacement)
    precise = torch.promote_types(image.dtype, torch.float32)
    summed, weight = forward_splat(image.to(precise), displacement)
    valid = weight > eps
    # The inner `where` keeps a zero out of the division: its gradient would be NaN, not zero.
    average = torch.where(valid, summed / torch.where(valid, weight, 1), 0)
    return average.to(image.dtype), valid.to(image.dtype)


def reblur(sharp: Tensor, displacements: Tensor) -> tuple[Tensor, Tensor]:
    """Make the blurred image that sharp content leaves when it moves during the exposure.

    M2AENet (section 3.4.3, eq. 11): the sharp image at mid-exposure is warped forward to each instant and the
    warped frames are accumulated.

    Deviates: eq. 11 writes the plain sum of the frames; ours is their mean, else the brightness would not
    match the blurred image.
    Assumes: the frames are splatted with average normalisation, and a frame in which a pixel receives
    nothing is left out of that pixel's mean (the paper cites the warp but not its normalisation).

    Args:
        sharp: `(B, C, H, W)`, floating point, any range.
        displacements: `(B, N, 2, H, W)` in pixels, x (to the right) then y (down), from mid-exposure to each
            of N instants.

    Returns:
        The blurred image `(B, C, H, W)`, zero where no frame has anything, and the validity `(B, 1, H, W)`,
        1 where at least one frame has something and else 0, both of the sharp image's type.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if sharp.dim() != 4 or displacements.dim() != 5 or displacements.shape[0] != sharp.shape[0]:
        raise ValueError(
            f"expected an image (B, C, H, W) and displacements (B, N, 2, H, W), "
            f"got {tuple(sharp.shape)} and {tuple(displacements.shape)}"
        )
    instants = displacements.shape[1]
    frames = sharp.unsqueeze(1).expand(-1, instants, -1, -1, -1).flatten(0, 1)
    precise = frames.to(torch.promote_types(sharp.dtype, torch.float32))
    warped, valid = average_splat(precise, displacements.flatten(0, 1))
    count = valid.view(-1, instants, *valid.shape[1:]).sum(1)
    # `warped` is zero where it is not valid: no mask is needed in the sum.
    mean = warped.view(-1, instants, *warped.shape[1:]).sum(1) / count.clamp(min=1)
    return mean.to(sharp.dtype), (count > 0).to(sharp.dtype)


def _checked_shape(image: Tensor, displacement: Tensor) -> tuple[int, int, int, int]:
    if image.dim() != 4 or displacement.shape != (image.shape[0], 2, *image.shape[2:]):
        raise ValueError(
            f"expected an image (B, C, H, W) and displacements (B, 2, H, W), "
            f"got {tuple(image.shape)} and {tuple(displacement.shape)}"
        )
    batch, channels, height, width = image.shape
    return batch, channels, height, width
