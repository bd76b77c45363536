"""UFPNet: NAFNet, its encoder guided by a blur kernel at each pixel (Fang et al. 2023).

"Self-supervised non-uniform kernel estimation with flow-based motion prior for blind image deblurring", CVPR.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError
from deblur_lab.models.channel_attention import full_precision
from deblur_lab.models.kernel_estimator import MULTIPLE, KernelEstimator
from deblur_lab.models.layers import NAFBlock
from deblur_lab.models.motion_flow import MotionFlow, pixels_at_once
from deblur_lab.models.nafnet import NAFNet
from deblur_lab.ops.seeding import generator
from deblur_lab.ranges import Count, Natural

Noise = Callable[[Tensor], Tensor]
"""Returns normal noise of the shape, type and device of what it is given."""

LEAST_STD = 1e-10
"""Of a pixel's softmax: where all entries are equal they are standardised to zeros."""


class UFPNet(NAFNet):
    """NAFNet with a kernel estimator, a prior of motion kernels, and an encoder that reads the kernels.

    The estimator gives each pixel a vector, standardised over its K*K entries: the code. The inverse of the
    motion prior, a normalizing flow, turns it into a kernel. The kernels' map gates the features before the
    block of the encoder stages that have one, and is halved from stage to stage.

    At the defaults it has 80,343,663 parameters and, with `kernel_attention` for the published misspelling
    `kernel_atttion`, the keys of the published checkpoint.

    Assumes:
        - The kernels' map is halved after stages of several blocks too, where a later stage reads it.

    Deviates:
        - No noise on the code in evaluation, unless `code_noise` asks for it: scores do not change from run
          to run.
        - Not clamped in training, so that gradients do not end at black and white.
        - Where a side is too short to be reflected, its last row or column is repeated.
        - The halvings of the kernels' map that nothing reads, the last of the published, are not computed and
          want no gradients.
        - As `NAFNet`'s, the last convolution starts at zero; so do those of the flow.

    Args:
        width, encoder_blocks, middle_blocks, decoder_blocks: as `NAFNet`'s; at least one encoder stage has
            exactly one block.
        kernel_size_px: side K of the square kernels.
        estimator_width: channels of the kernel estimator at full resolution.
        code_noise: whether noise is mixed into the code in evaluation too, from PyTorch's global generator.

    Attributes:
        code_noise: may be changed at any time.

    Raises:
        ConfigurationError: if a size is out of range, or no encoder stage has exactly one block.
    """

    def __init__(
        self,
        width: Count = 64,
        encoder_blocks: Sequence[Natural] = (1, 1, 1, 28),
        middle_blocks: Natural = 1,
        decoder_blocks: Sequence[Natural] = (1, 1, 1, 1),
        kernel_size_px: Count = 19,
        estimator_width: Count = 64,
        code_noise: bool = False,
    ) -> None:
        super().__init__(width, encoder_blocks, middle_blocks, decoder_blocks)
        if 1 not in encoder_blocks:
            raise ConfigurationError(
                f"encoder_blocks is {list(encoder_blocks)}: UFPNet's kernels guide stages of one block, give "
                "at least one of those"
            )
        self.kernel_size_px = kernel_size_px
        self.code_noise = code_noise
        self.guided = tuple(level for level, count in enumerate(encoder_blocks) if count == 1)
        entries = kernel_size_px**2
        self.kernel_extra = KernelEstimator(kernel_size_px, estimator_width)
        self.flow = MotionFlow(kernel_size_px)
        for level in self.guided:
            self.encoders[level] = nn.Sequential(GuidedBlock(width * 2**level, entries))
        self.kernel_down = nn.ModuleList(
            nn.Conv2d(entries, entries, 2, stride=2).requires_grad_(level < self.guided[-1])
            for level in range(self.levels)
        )

    def forward(self, blurry: Tensor, noise_seeds: Tensor | None = None) -> Tensor:
        """Restore pictures of any height and width.

        Args:
            blurry: (B, 3, H, W), RGB in [0, 1].
            noise_seeds: (B,) int64, for training alone; see `kernels`.

        Returns:
            (B, 3, H, W): clamped to [0, 1] in eval mode.
        """
        padded = self.pad(blurry)
        restored = self.decode(*self.encode(padded, noise_seeds), padded, blurry)
        return restored if self.training else restored.clamp(0, 1)

    def encode(self, padded: Tensor, noise_seeds: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Estimate the kernels, once, and run the encoder under their guidance.

        Args:
            padded: (B, 3, h * 2**levels, w * 2**levels), what `pad` gave.
            noise_seeds: (B,) int64, for training alone; see `kernels`.

        Returns:
            features: (B, width * 2**levels, h, w), what the last `downs` gave.
            skips: the encoder stages' outputs, the full resolution first.
        """
        features = self.intro(padded)
        kernels: Tensor | None = self._kernels(padded, noise_seeds).to(features.dtype)
        skips: list[Tensor] = []
        for level, (encoder, down) in enumerate(zip(self.encoders, self.downs, strict=True)):
            if level in self.guided:
                for block in encoder.children():
                    features = block(features, kernels)
            else:
                features = encoder(features)
            kernels = self.kernel_down[level](kernels) if level < self.guided[-1] else None
            skips.append(features)
            features = down(features)
        return features, skips

    def pad(self, blurry: Tensor) -> Tensor:
        """Pad by reflection at the right and the bottom to multiples of 2**levels and 4; channels_last."""
        multiple = max(2**self.levels, MULTIPLE)
        height, width = blurry.shape[-2:]
        padded = _reflect(_reflect(blurry, -width % multiple, across=True), -height % multiple, across=False)
        return padded.contiguous(memory_format=torch.channels_last)

    def kernel_code(self, blurry: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate each pixel's code, without noise, and how uncertain it is.

        Args:
            blurry: (B, 3, H, W), RGB in [0, 1], of any height and width.

        Returns:
            code: (B, K*K, H, W) float32, of mean 0 and standard deviation 1 (unbiased) over the entries.
            sigma: (B, 1, H, W) float32 in [0, 1].
        """
        height, width = blurry.shape[-2:]
        logits, sigma = self.kernel_extra.logits(self.pad(blurry))
        with full_precision(blurry.device):
            code = _code(_pixels(logits)).permute(0, 3, 1, 2)
        return code[..., :height, :width], sigma[..., :height, :width]

    def kernels(self, blurry: Tensor, noise_seeds: Tensor | None = None) -> Tensor:
        """Estimate a blur kernel at each pixel, through the motion prior.

        The code is mixed with noise as code * sqrt(1 - sigma**2) + noise * sigma; without noise, the second
        term is zero and the first remains as it is. In training there is noise where `noise_seeds` are given,
        in evaluation where `code_noise` asks for it.

        Args:
            blurry: (B, 3, H, W), RGB in [0, 1], of any height and width.
            noise_seeds: (B,) int64. The noise of each sample is a function of its seed alone, drawn where
                the sample lies (a GPU's differs from a CPU's), so that training depends neither on how
                samples are batched nor on the number of devices. Nothing in eval mode.

        Returns:
            (B, K*K, H, W) float32 in [0, 1], to within the flow's `alpha`; a kernel's entries row by row.
        """
        kernels = self._kernels(self.pad(blurry), noise_seeds)[..., : blurry.shape[-2], : blurry.shape[-1]]
        return kernels.to(torch.promote_types(kernels.dtype, torch.float32))

    def _kernels(self, padded: Tensor, noise_seeds: Tensor | None) -> Tensor:
        """The kernels, channels_last; where no gradient is wanted in the type convolutions compute in."""
        logits, sigma = self.kernel_extra.logits(padded)
        pixels, doubts = _pixels(logits), _pixels(sigma)
        noises = self._noises(noise_seeds, padded)
        # These are the largest tensors of the net. Where no gradient is wanted, a picture's kernels take the
        # place of what they come from, some pixels at a time, so that there is one copy of full size.
        in_place = self.flow.folds and not (torch.is_grad_enabled() and logits.requires_grad)
        folded = self.flow.folded() if in_place else None
        found = []
        with full_precision(padded.device):
            for rows, doubt, noise in zip(pixels.flatten(1, 2), doubts.flatten(1, 2), noises, strict=True):
                at_once = pixels_at_once(rows.device)
                for part, unsure in zip(torch.split(rows, at_once), torch.split(doubt, at_once), strict=True):
                    code = _code(part) * (1 - unsure.square()).sqrt()
                    if noise is not None:
                        code = code + unsure * noise(code)
                    if folded is None:
                        found.append(self.flow.decode(code))
                    else:
                        folded.decode_into(code, part)
        kernels = pixels if folded is not None else torch.cat(found).view(pixels.shape)
        return kernels.permute(0, 3, 1, 2)

    def _noises(self, noise_seeds: Tensor | None, padded: Tensor) -> Sequence[Noise | None]:
        """What draws the noise of each sample; None where there is to be none."""
        if self.training and noise_seeds is not None:
            return [_seeded(seed, padded.device) for seed in noise_seeds.tolist()]
        drawn = torch.randn_like if self.code_noise and not self.training else None
        return [drawn] * len(padded)


class GuidedBlock(NAFBlock):
    """NAFNet's block, its first half under the guidance of kernels.

    What the first half reads is gated by what features and kernels say together; what it is added to is not.

    Args:
        channels: of the features.
        entries: of a kernel, K*K.

    Shape:
        (B, C, H, W) and (B, K*K, H, W) to (B, C, H, W).
    """

    def __init__(self, channels: int, entries: int) -> None:
        super().__init__(channels)
        self.kernel_attention = KernelAttention(channels, entries)

    def forward(self, features: Tensor, kernels: Tensor | None = None) -> Tensor:
        """Mix space and channels, then the channels of each pixel; without kernels, as `NAFBlock` does."""
        guided = features if kernels is None else self.kernel_attention(features, kernels)
        mixed = self.conv2(self.conv1(self.norm1(guided)))
        features = features + self.conv3(self.sca(self.gate(mixed))) * self.beta
        mixed = self.conv4(self.norm2(features))
        restored: Tensor = features + self.conv5(self.gate(mixed)) * self.gamma
        return restored


class KernelAttention(nn.Module):
    """Gate features by what they and the kernels at their pixels say together, and add what came in.

    Args:
        channels: of the features.
        entries: of a kernel, K*K.

    Shape:
        (B, C, H, W) and (B, K*K, H, W) to (B, C, H, W).
    """

    def __init__(self, channels: int, entries: int) -> None:
        super().__init__()
        self.conv_1 = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.GELU())
        self.conv_kernel = nn.Sequential(
            nn.Conv2d(entries, channels, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
        )
        self.conv_2 = nn.Sequential(nn.Conv2d(2 * channels, channels, 3, padding=1), nn.Sigmoid())

    def forward(self, features: Tensor, kernels: Tensor) -> Tensor:
        """Gate the features."""
        mixed = self.conv_1(features)
        gate = self.conv_2(torch.cat([mixed, self.conv_kernel(kernels)], 1))
        gated: Tensor = mixed * gate + features
        return gated


def _pixels(maps: Tensor) -> Tensor:
    """(B, C, H, W) as (B, H, W, C), contiguous; of a channels_last tensor the same memory."""
    return maps.permute(0, 2, 3, 1).contiguous()


def _code(logits: Tensor) -> Tensor:
    """The softmax of (N, K*K), standardised over each row, in float32 at least."""
    shares = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
    variance, mean = torch.var_mean(shares, -1, keepdim=True)
    return (shares - mean) / variance.clamp_min(LEAST_STD**2).sqrt()


def _seeded(seed: int, device: torch.device) -> Noise:
    """What draws a sample's noise, on its device."""
    own = generator(seed, device)
    return lambda code: torch.randn(code.shape, generator=own, device=code.device, dtype=code.dtype)


def _reflect(pictures: Tensor, missing: int, *, across: bool) -> Tensor:
    """Pad at the right, or at the bottom."""
    if missing == 0:
        return pictures
    side = pictures.shape[-1 if across else -2]
    mode = "reflect" if missing < side else "replicate"
    return F.pad(pictures, (0, missing, 0, 0) if across else (0, 0, 0, missing), mode=mode)
