"""UFPNet's kernel estimator from nothing: sharp pictures, blurred as it says, must look like the blurry."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError
from deblur_lab.metrics.definitions import PSNR_LIMIT_DB
from deblur_lab.metrics.functional import weighted_psnr
from deblur_lab.models import UFPNet
from deblur_lab.ops.pixel_kernels import convolve_per_pixel, normalise_kernels
from deblur_lab.ops.seeding import generator
from deblur_lab.ranges import Natural, Weight
from deblur_lab.tasks.base import RestorationLoss
from deblur_lab.tasks.measuring import MeasuringTask
from deblur_lab.tasks.training import Batch, OptimizerFactory, SchedulerFactory

_MEASURES = (
    "reblurred_psnr_db",
    "uniform_psnr_db",
    "sharp_psnr_db",
    "reblurred_weighted_psnr_db",
    "uniform_weighted_psnr_db",
    "sharp_weighted_psnr_db",
)
_LEAST_SIGMA = 1e-4  # whose logarithm is taken
_FARTHEST = 4.0  # beyond which one normal number in 16,000 lies


class KernelEstimation(MeasuringTask):
    """Trains the kernel estimator of a UFPNet, through its flow, which is fixed; nothing else of it changes.

    Fang et al. 2023, section 3.3: the sharp picture, each pixel convolved with its kernel, is to be the
    blurry one (`ops.pixel_kernels`). Gradients pass through the flow to the code.

    Assumes:
        - Kernels are scaled to the sum 1 before they blur: what the flow gives sums to about 1 only, and
          brightness says nothing of motion.
        - The code is mixed with noise, as in UFPNet, a function of each sample's seed. What the estimator
          doubts, sigma, would be zero at once were it not asked for: as in a variational autoencoder, the
          information that each pixel's code gives is charged for. With the code on the sphere of radius K,
          the Kullback-Leibler divergence between N(code * sqrt(1 - sigma**2), sigma**2) and the prior's
          N(0, 1) is -log(sigma) for each entry. So sigma rises where noise costs nothing, as on smooth
          surfaces, which look alike under all blurs.
        - What the code's entries exceed 4 by, squared, is charged for: a normal code hardly has such.
          The code does not change with the size of what the softmax is taken of, so nothing else holds that
          size back; and once one entry of the softmax takes all, the code is K there, far from all codes that
          the flow knows, and no gradient leads back. Without this, training broke down so.
        - A patch's outer part, half a kernel wide, is not judged: what moves there was outside the patch.

    What helps it to learn, as far as we have tried:

    - Pictures that are blurred all over, at least among others. Where most pixels stand still, kernels become
      points first, and from a point gradients hardly lead away: an entry's is in proportion to the entry.
    - An optimizer whose second moment forgets (beta 0.9 to 0.99): gradients shrink a hundredfold on the way.

    Validation and test measure, of whole pictures, as means of PSNRs:

    - ``reblurred_psnr_db``: between the blurry and the reblurred picture.
    - ``uniform_psnr_db``: the same where the mean of a picture's kernels blurs all of it: what is gained by a
      kernel for each pixel.
    - ``sharp_psnr_db``: between the blurry and the sharp one: what is to be beaten.
    - ``reblurred_weighted_psnr_db``, ``uniform_weighted_psnr_db``, ``sharp_weighted_psnr_db``: the same where
      the picture is blurred, of pictures whose masks are known.

    Args:
        net: a UFPNet, whose flow is trained (`FlowPrior`).
        loss: of (reblurred, blurry), by parts.
        optimizer: makes the optimizer from the estimator's parameters (a partial, in YAML).
        scheduler: makes the schedule from the optimizer; stepped once an optimizer step.
        doubt: weight of the mean of -log(sigma), above. The loss counts in decibels by default.
        outliers: weight of the mean squared excess of the code's entries over 4, above.
        in_light: blur in linear light, as a sensor does, with stored values taken for sRGB; otherwise blur
            stored values. They are compared as stored values either way.
        compile_blocks: as in `TrainingTask`.
        max_skipped_steps: as in `TrainingTask`.
    """

    needs: ClassVar[str | None] = "flow"
    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("val/reblurred_psnr_db", "max")

    net: UFPNet

    def __init__(
        self,
        net: UFPNet,
        loss: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory,
        doubt: Weight = 0.01,
        outliers: Weight = 10.0,
        in_light: bool = False,
        compile_blocks: bool = False,
        max_skipped_steps: Natural = 20,
    ) -> None:
        super().__init__(net, optimizer, scheduler, compile_blocks, max_skipped_steps)
        self.loss = loss
        self.doubt = doubt
        self.outliers = outliers
        self.in_light = in_light

    def frozen_parts(self) -> Sequence[nn.Module]:
        """All but the estimator."""
        return [part for part in self.net.children() if part is not self.net.kernel_extra]

    def check_patch(self, height_px: int, width_px: int) -> None:
        """Refuse patches of which nothing would be left to judge.

        Raises:
            ConfigurationError: a side is smaller than two kernels.
        """
        least = 2 * self.net.kernel_size_px
        if min(height_px, width_px) < least:
            raise ConfigurationError(
                f"data.patch_size={min(height_px, width_px)}: at least {least} is expected, twice "
                f"model.net.kernel_size_px={self.net.kernel_size_px}: the outer part of a patch is not judged"
            )

    def reblurred(self, sharp: Tensor, kernels: Tensor) -> Tensor:
        """A sharp picture as blurred by kernels.

        Args:
            sharp: (B, 3, H, W) in [0, 1].
            kernels: (B, K*K, H, W) as the net gives them.

        Returns:
            (B, 3, H, W).
        """
        normal = normalise_kernels(kernels)
        if not self.in_light:
            return convolve_per_pixel(sharp, normal)
        return _stored(convolve_per_pixel(_light(sharp), normal))

    def losses(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss between the reblurred and the blurry picture, and what the code's information costs."""
        blurry, sharp = batch["blurry"], batch["sharp"]
        self.check_patch(*blurry.shape[-2:])
        code, sigma = self.net.kernel_code(blurry)
        mixed = code * (1 - sigma.square()).sqrt() + sigma * _noise(code, batch["seed"])
        size = (len(blurry), *blurry.shape[-2:], code.shape[1])
        decoded = self.net.flow.decode(mixed.permute(0, 2, 3, 1).reshape(-1, code.shape[1]))
        reblurred = self.reblurred(sharp, decoded.view(size).permute(0, 3, 1, 2))
        margin = self.net.kernel_size_px // 2
        inner = (..., slice(margin, -margin), slice(margin, -margin))
        parts: dict[str, Tensor] = self.loss(reblurred[inner], blurry[inner])
        total = cast(RestorationLoss, self.loss).total(parts)
        information = -sigma.clamp_min(_LEAST_SIGMA).log().mean()
        excess = (code.abs() - _FARTHEST).relu().square().mean()
        total = total + self.doubt * information + self.outliers * excess
        return total, {**parts, "doubt": information, "outliers": excess}

    def no_sums(self) -> Tensor:
        """A row a measure: the sum over the pictures, and of how many."""
        return torch.zeros(len(_MEASURES), 2, dtype=torch.float64)

    def sums_of(self, batch: Batch) -> Tensor:
        """As `no_sums`."""
        blurry = batch["blurry"].float()
        sharp, kernels = batch["sharp"].float(), self.net.kernels(blurry)
        reblurred = self.reblurred(sharp, kernels).clamp(0, 1)
        mean = normalise_kernels(kernels).mean((2, 3), keepdim=True).expand_as(kernels)
        uniform = self.reblurred(sharp, mean).clamp(0, 1)
        own = self.no_sums()
        everywhere = torch.ones_like(batch["mask"])
        for position, known in enumerate(batch["mask_known"].tolist()):
            values = []
            for mask in (everywhere, batch["mask"]):
                counts = bool(mask[position].any()) and (known or mask is everywhere)
                for picture in (reblurred, uniform, sharp):
                    one = psnr_db(picture[position], blurry[position], mask[position]) if counts else None
                    values.append((0.0, 0.0) if one is None else (one, 1.0))
            own += torch.tensor(values, dtype=torch.float64)
        return own

    def measures_of(self, sums: Tensor) -> Mapping[str, float]:
        """Those of the class's text, of which there is a picture."""
        return {
            name: value / count
            for name, (value, count) in zip(_MEASURES, sums.tolist(), strict=True)
            if count
        }


def psnr_db(picture: Tensor, target: Tensor, mask: Tensor) -> float:
    """PSNR of a picture, (C, H, W) in [0, 1], where a mask, (1, H, W), is not 0, weighted by it.

    At most 100 dB.
    """
    return min(float(weighted_psnr(picture, target, mask)), PSNR_LIMIT_DB)


def _noise(code: Tensor, seeds: Tensor) -> Tensor:
    """Standard normal noise like a code's, each sample's a function of its seed alone."""
    noise = torch.empty(code.shape, device=code.device, dtype=code.dtype)
    for sample, seed in zip(noise, seeds.tolist(), strict=True):
        sample.normal_(generator=generator(seed, code.device))
    return noise


def _light(stored: Tensor) -> Tensor:
    """Linear light of sRGB values in [0, 1]."""
    return torch.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)


def _stored(light: Tensor) -> Tensor:
    """The sRGB values of linear light; the slope is finite everywhere."""
    curve = 1.055 * light.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(light <= 0.0031308, 12.92 * light, curve)
