"""What training minimises: functions of pictures, masks and displacements, and two weighted sums of them.

Every loss is a scalar, the mean over the batch of a value of each sample alone, so that training on several
devices equals training on one. All compute in float32 at least, also where automatic mixed precision is on.
Shapes: pictures (B, 3, H, W) in [0, 1]; masks (B, 1, H, W), 1 = blurred; displacements (B, N, 2, h, w) in
pixels of their own scale, x then y, at N instants of the exposure.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError
from deblur_lab.ops.pyramid import pyramid_laplacian
from deblur_lab.ops.splatting import reblur
from deblur_lab.ops.ssim import WINDOW_PX, ssim_map
from deblur_lab.ranges import Range, Weight

PSNR_FLOOR = 1e-8
StageOutput = tuple[Tensor | None, Tensor | None]


def l1_loss(restored: Tensor, sharp: Tensor) -> Tensor:
    """Mean absolute difference (M2AENet, section 3.4.1, first term of eq. 8).

    Args:
        restored: (B, C, H, W).
        sharp: of the same shape.

    Returns:
        A scalar, 0 or more.

    Raises:
        ValueError: the shapes differ.
    """
    restored, sharp = _same_shape(restored, sharp)
    return (restored - sharp).abs().mean()


def ssim_loss(restored: Tensor, sharp: Tensor) -> Tensor:
    """1 - SSIM (Wang et al. 2004, "Image quality assessment", eq. 13; M2AENet, second term of eq. 8).

    Assumes: windows of 11x11 pixels, Gaussian with sigma 1.5, only those within the picture; C1 = 0.01^2 and
    C2 = 0.03^2; the mean over channels. M2AENet writes "SSIM" alone.

    Args:
        restored: (B, C, H, W), values around [0, 1], H and W at least 11.
        sharp: of the same shape.

    Returns:
        A scalar from 0 (equal) to 2.

    Raises:
        ConfigurationError: the pictures are smaller than the window.
        ValueError: the shapes differ.
    """
    restored, sharp = _same_shape(restored, sharp)
    height, width = restored.shape[-2:]
    if min(height, width) < WINDOW_PX:
        raise ConfigurationError(
            f"the ssim loss looks through windows of {WINDOW_PX}x{WINDOW_PX} pixels, but the pictures have "
            f"{width}x{height}: train on larger patches, or give this loss the weight 0"
        )
    return 1 - ssim_map(restored, sharp).mean()


def frequency_loss(restored: Tensor, sharp: Tensor) -> Tensor:
    """L1 between the Fourier transforms (MIMO-UNet, Cho et al. 2021; M2AENet, last term of eq. 8).

    Assumes: the transform of real pictures (half of the spectrum), not normalised, as MIMO-UNet's: each
    coefficient is a sum over all pixels. Real and imaginary parts are compared apart, and the loss is the
    mean over all of them.

    Args:
        restored: (B, C, H, W).
        sharp: of the same shape.

    Returns:
        A scalar, 0 or more.

    Raises:
        ValueError: the shapes differ.
    """
    restored, sharp = _same_shape(restored, sharp)
    # The transform is linear: that of the difference is the difference, at half the cost.
    return torch.view_as_real(torch.fft.rfft2(restored - sharp)).abs().mean()


def charbonnier_loss(restored: Tensor, sharp: Tensor, eps: float = 1e-3) -> Tensor:
    """Mean of ``sqrt(difference^2 + eps^2)`` (Charbonnier et al. 1994; AIBNet, eq. 6, first term).

    Assumes: the root is taken at each pixel and channel, as MPRNet's (Zamir et al. 2021); eq. 6 writes one
    norm.

    Args:
        restored: (B, C, H, W).
        sharp: of the same shape.
        eps: more than 0; the loss of equal pictures.

    Returns:
        A scalar, `eps` or more.

    Raises:
        ValueError: the shapes differ.
    """
    restored, sharp = _same_shape(restored, sharp)
    return _charbonnier(restored - sharp, eps)


def edge_loss(restored: Tensor, sharp: Tensor, eps: float = 1e-3) -> Tensor:
    """Charbonnier loss between Laplacians (MPRNet, Zamir et al. 2021, eq. 5; AIBNet, eq. 6, second term).

    Assumes: the Laplacian is that of a pyramid, `pyramid_laplacian`, as MPRNet's; and eq. 6's norm is taken
    at each pixel and channel.

    Args:
        restored: (B, C, H, W).
        sharp: of the same shape.
        eps: more than 0; the loss of equal pictures.

    Returns:
        A scalar, `eps` or more.

    Raises:
        ValueError: the shapes differ.
    """
    restored, sharp = _same_shape(restored, sharp)
    # The Laplacian is linear: that of the difference is the difference, at half the cost.
    return _charbonnier(pyramid_laplacian(restored - sharp), eps)


def psnr_loss(restored: Tensor, sharp: Tensor) -> Tensor:
    """Minus the PSNR of each picture, in dB, as NAFNet (Chen et al. 2022) trains with.

    Assumes: 10 log10(MSE + 1e-8), so that equal pictures give -80 and not minus infinity.

    Args:
        restored: (B, C, H, W), values around [0, 1].
        sharp: of the same shape.

    Returns:
        A scalar in dB, -80 or more.

    Raises:
        ValueError: the shapes differ.
    """
    restored, sharp = _same_shape(restored, sharp)
    squared_error = (restored - sharp).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(squared_error + PSNR_FLOOR).mean()


def total_variation(displacements: Tensor) -> Tensor:
    """How much displacements differ from pixel to pixel (M2AENet, second term of eq. 10).

    Assumes: the anisotropic variation ``|d/dx| + |d/dy|``, each a mean over its pairs of neighbours, so that
    it does not depend on the size; both components of a displacement are added up. Instants are, too, by
    eq. 10, not averaged. A map one pixel wide or high does not vary along that side.

    Args:
        displacements: (B, N, 2, h, w) in px.

    Returns:
        A scalar in px, 0 or more.
    """
    displacements = _full_precision(displacements)
    height, width = displacements.shape[-2:]
    across = displacements.diff(dim=-1).abs().sum(dim=(1, 2, 3, 4)) / max(1, height * (width - 1))
    down = displacements.diff(dim=-2).abs().sum(dim=(1, 2, 3, 4)) / max(1, (height - 1) * width)
    return (across + down).mean()


def mask_cross_entropy(logits: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy of the predicted blur mask (M2AENet, section 3.4.2, one scale of eq. 9).

    Assumes: the mask is brought to the predictor's scale by area, and a pixel there is blurred if at least
    half of it is. Samples whose mask is unknown count as zero in the mean over the batch: it is not rescaled.

    Args:
        logits: (B, 2, h, w), channel 0 = blurred.
        mask: (B, 1, H, W), 1 = blurred, 0 = sharp.
        known: (B,) bool, False where the mask is a stand-in that must not be learned.

    Returns:
        A scalar, 0 or more.
    """
    logits = _full_precision(logits)
    area = _to_scale(_full_precision(mask), logits)
    blurred = (area[:, 0] >= 0.5).to(logits.dtype)
    # Of two classes, the softmax is the sigmoid of their difference.
    entropy = F.binary_cross_entropy_with_logits(logits[:, 0] - logits[:, 1], blurred, reduction="none")
    return (entropy.mean(dim=(1, 2)) * known.to(logits.dtype)).mean()


def reblur_loss(displacements: Tensor, sharp: Tensor, blurry: Tensor) -> Tensor:
    """How far the sharp picture, moved along its displacements, is from the blurry one (M2AENet, eq. 11).

    Deviates: the warped pictures are averaged, not summed as eq. 11 prints: a sum is N times too bright.
    Assumes: forward warping is average splatting (Niklaus & Liu 2020, "Softmax splatting", section 3.2);
    pixels that receive nothing are left out, and a sample's error is the mean over those that are left; both
    pictures are brought to the displacements' scale by area.

    Args:
        displacements: (B, N, 2, h, w) in px of that scale, from mid-exposure to each instant.
        sharp: (B, C, H, W), the picture at mid-exposure.
        blurry: of the same shape.

    Returns:
        A scalar, 0 or more: a mean squared error.

    Raises:
        ValueError: the shapes of the pictures differ.
    """
    sharp, blurry = _same_shape(sharp, blurry)
    displacements = _full_precision(displacements)
    with torch.autocast(displacements.device.type, enabled=False):
        reblurred, validity = reblur(_to_scale(sharp, displacements), displacements)
        blurry = _to_scale(blurry, displacements)
        squared_error = ((reblurred - blurry).square() * validity).sum(dim=(1, 2, 3))
        # Where no pixel is left the error is zero too.
        counted = (validity.sum(dim=(1, 2, 3)) * sharp.shape[1]).clamp(min=1)
        error: Tensor = squared_error / counted
    return error.mean()


def enlarged_motion(displacements: Tensor, picture: Tensor) -> Tensor:
    """Bring displacements to a picture's resolution, bilinearly, and to its pixels.

    Args:
        displacements: (B, N, 2, h, w) in px of their own scale.
        picture: (B, C, H, W).

    Returns:
        (B, N, 2, H, W) in px of the picture, float32 at least.
    """
    displacements = _full_precision(displacements)
    size = (picture.shape[-2], picture.shape[-1])
    scale = [size[1] / displacements.shape[-1], size[0] / displacements.shape[-2]]
    scaled = displacements * displacements.new_tensor(scale).view(2, 1, 1)
    grown = F.interpolate(scaled.flatten(1, 2), size, mode="bilinear", align_corners=False)
    return grown.view(*displacements.shape[:3], *size)


class WeightedLoss(nn.Module):
    """A loss of named parts, each with its weight; parts of weight 0 are not computed.

    Args:
        weights: by part; finite, 0 or more, and not all 0.

    Raises:
        ConfigurationError: a weight is out of range.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ConfigurationError(
                    f"loss weight {name}={weight}: a finite number, 0 or more, is expected"
                )
        if not any(weights.values()):
            raise ConfigurationError(
                f"every weight of the loss ({', '.join(weights)}) is 0: give one of them more"
            )
        self.weights = dict(weights)

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum that is minimised (M2AENet, eq. 7).

        Args:
            parts: what `forward` returned: scalars, unweighted.

        Raises:
            ConfigurationError: there are none, as when only masks are weighted and the network predicts none.
        """
        if not parts:
            weighted = ", ".join(name for name, weight in self.weights.items() if weight)
            raise ConfigurationError(
                f"nothing to train on: the network gives nothing that the weighted losses ({weighted}) judge"
            )
        terms = [self.weights[name] * part for name, part in parts.items()]
        return torch.stack(terms).sum()

    def extra_repr(self) -> str:
        """Torch's; the weights."""
        return ", ".join(f"{name}={weight:g}" for name, weight in self.weights.items())

    def _reconstruction(self, restored: Tensor, sharp: Tensor) -> dict[str, Tensor]:
        losses = {
            "l1": l1_loss,
            "ssim": ssim_loss,
            "fft": frequency_loss,
            "psnr": psnr_loss,
            "charbonnier": charbonnier_loss,
            "edge": edge_loss,
        }
        return {name: loss(restored, sharp) for name, loss in losses.items() if self.weights.get(name)}


class ReconstructionLoss(WeightedLoss):
    """How far the restored picture is from the sharp one.

    Args:
        l1: weight of `l1_loss`.
        ssim: weight of `ssim_loss`.
        fft: weight of `frequency_loss`.
        psnr: weight of `psnr_loss`; 1, alone, is NAFNet's loss.
        charbonnier: weight of `charbonnier_loss`; AIBNet's loss is 1 of it,
        edge: 0.05 of `edge_loss`, and 0.1 of `fft`.

    Raises:
        ConfigurationError: a weight is negative or not finite, or all are 0.
    """

    def __init__(
        self,
        l1: Weight = 0.0,
        ssim: Weight = 0.0,
        fft: Weight = 0.0,
        psnr: Weight = 0.0,
        charbonnier: Weight = 0.0,
        edge: Weight = 0.0,
    ) -> None:
        weights = {"l1": l1, "ssim": ssim, "fft": fft, "psnr": psnr, "charbonnier": charbonnier, "edge": edge}
        super().__init__(weights)

    def forward(self, restored: Tensor, sharp: Tensor) -> dict[str, Tensor]:
        """The unweighted parts, by the names of the weights.

        Args:
            restored: (B, 3, H, W).
            sharp: of the same shape, in [0, 1].
        """
        return self._reconstruction(restored, sharp)


class LocalBlurLoss(WeightedLoss):
    """M2AENet's loss: reconstruction, blur mask, and motion that reblurs (section 3.4, eq. 7 to 11).

    Assumes: the paper gives no alpha (here `tv`). Where an object of 140 px moves by 24 px in a patch of 256,
    its true motion at an eighth of the size has a variation of 0.5 px and lowers the reblur loss by 4e-4 to
    1e-3 against no motion: 1e-4 takes about a tenth of that back, 1e-3 could make standing still the better
    answer. It is a default to be tuned, not the paper's.

    Args:
        l1: weight of `l1_loss`.
        ssim: weight of `ssim_loss`.
        fft: weight of `frequency_loss`, the paper's gamma.
        mask: weight of `mask_cross_entropy`, the paper's lambda.
        reblur: weight of `reblur_loss`.
        tv: weight of `total_variation`, the paper's alpha.
        reblur_instants: the paper's N2 (table 6): at how many instants displacements are given.
        reblur_at: the resolution at which pictures are reblurred and compared: "stage", that of the
            displacements, as in eq. 11; or "picture", the pictures' own, to which displacements are then
            enlarged. That is a variant of ours: what is averaged down to a stage has lost most of its blur.

    Raises:
        ConfigurationError: a weight is negative or not finite, all are 0, `reblur_instants` is below 2, or
            `reblur_at` is neither.
    """

    def __init__(
        self,
        l1: Weight = 1.0,
        ssim: Weight = 1.0,
        fft: Weight = 0.1,
        mask: Weight = 0.01,
        reblur: Weight = 1.0,
        tv: Weight = 1e-4,
        reblur_instants: Annotated[int, Range(2)] = 9,
        reblur_at: Literal["stage", "picture"] = "stage",
    ) -> None:
        super().__init__({"l1": l1, "ssim": ssim, "fft": fft, "mask": mask, "reblur": reblur, "tv": tv})
        if reblur_instants < 2:
            raise ConfigurationError(
                f"loss.reblur_instants={reblur_instants}: an exposure has 2 instants or more"
            )
        if reblur_at not in ("stage", "picture"):
            raise ConfigurationError(f"loss.reblur_at={reblur_at}: stage or picture is expected")
        self.reblur_instants = reblur_instants
        self.reblur_at = reblur_at

    def forward(
        self,
        restored: Tensor,
        blurry: Tensor,
        sharp: Tensor,
        mask: Tensor,
        mask_known: Tensor,
        stages: Sequence[StageOutput],
    ) -> dict[str, Tensor]:
        """The unweighted parts, by the names of the weights, each summed over the stages (eq. 9 and 10).

        A part is absent if its weight is 0 or if no stage gives what it judges.

        Args:
            restored: (B, 3, H, W).
            blurry: of the same shape, in [0, 1].
            sharp: likewise.
            mask: (B, 1, H, W), 1 = blurred.
            mask_known: (B,) bool.
            stages: for each scale with predictors, mask logits (B, 2, h, w) or None, and displacements
                (B, `reblur_instants`, 2, h, w) in px of that scale or None.
        """
        parts = self._reconstruction(restored, sharp)
        logits = [stage_logits for stage_logits, _ in stages if stage_logits is not None]
        motions = [displacements for _, displacements in stages if displacements is not None]
        assert all(motion.shape[1] == self.reblur_instants for motion in motions)
        if logits and self.weights["mask"]:
            parts["mask"] = _sum([mask_cross_entropy(stage, mask, mask_known) for stage in logits])
        if motions and self.weights["reblur"]:
            of_pictures = self.reblur_at == "picture"
            moved = [enlarged_motion(motion, sharp) if of_pictures else motion for motion in motions]
            parts["reblur"] = _sum([reblur_loss(motion, sharp, blurry) for motion in moved])
        if motions and self.weights["tv"]:
            parts["tv"] = _sum([total_variation(motion) for motion in motions])
        return parts


def _charbonnier(difference: Tensor, eps: float) -> Tensor:
    return (difference.square() + eps**2).sqrt().mean()


def _sum(terms: Sequence[Tensor]) -> Tensor:
    return torch.stack(tuple(terms)).sum()


def _to_scale(picture: Tensor, coarse: Tensor) -> Tensor:
    """The picture averaged over the area of each pixel of a coarser map."""
    height, width = coarse.shape[-2:]
    return F.adaptive_avg_pool2d(picture, (height, width))


def _full_precision(tensor: Tensor) -> Tensor:
    """Float32 at least: bfloat16 keeps 8 bits, too few for a mean over thousands of pixels."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _same_shape(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    if first.shape != second.shape:
        raise ValueError(
            f"pictures of one shape are compared, not {tuple(first.shape)} with {tuple(second.shape)}"
        )
    return _full_precision(first), _full_precision(second)
