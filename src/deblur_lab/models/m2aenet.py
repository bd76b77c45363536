"""M2AENet (Shang et al. 2025, "Motion-aware adaptive pixel pruning for efficient local motion deblurring").

Sections and equations are those of the paper.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError
from deblur_lab.models.layers import AveragePool, NAFBlock
from deblur_lab.models.nafnet import NAFNet
from deblur_lab.models.trajectories import QuadraticTrajectory, Trajectory
from deblur_lab.ops.deformable import MotionPlan, deformable_depthwise, kernel_grid, plan_motion
from deblur_lab.ranges import Count, Natural, Share

KERNEL_INSTANTS = 9
"""N1: one instant of the trajectory for each point of the 3x3 deformable kernel."""


class StageAnalysis(NamedTuple):
    """What an encoder stage found about the blur, at that stage's resolution of h x w.

    Attributes:
        scale_px: pixels of the full resolution along a side of one pixel here.
        mask_logits: (B, 2, h, w) float32, channel 0 blurred, channel 1 sharp; None without a mask predictor.
        mask: (B, 1, h, w) float32, exactly 0 or 1, 1 = blurred; in training its gradient is that of the
            probability (straight-through). None without a mask predictor.
        offsets: (B, trajectory.channels, h, w) float32, in pixels of this resolution; None without an
            analyzer.
    """

    scale_px: int
    mask_logits: Tensor | None
    mask: Tensor | None
    offsets: Tensor | None


class Analysis(NamedTuple):
    """A restored picture, (B, 3, H, W), and what each stage with predictors found, finest first.

    The stages see the padded picture: h * scale_px is H rounded up to the net's multiple.
    """

    restored: Tensor
    stages: tuple[StageAnalysis, ...]


class MaskPredictor(nn.Module):
    """Predict for each pixel whether it is blurred (section 3.1, equation 1).

    Each pixel's features pass a small perceptron; half of the result is kept, the other half averaged over
    the picture; a second perceptron decides from both. At 256 channels it has 173,378 parameters.

    Assumes:
        - The layers and their widths, which the paper refers to LMD-ViT for: linear, GELU, layer norm,
          linear; then C - C/2 - C/4 - 2 with GELU between. The paper's parameter count agrees.
        - The first half of the channels is the local one.
        - Under the test-time local converter this average is local too, as all others of the net.

    Shape:
        (B, C, H, W) to float32 (B, 2, H, W), logits; channel 0 is blurred, channel 1 sharp.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Linear(channels, channels), nn.GELU(), nn.LayerNorm(channels), nn.Linear(channels, channels)
        )
        self.pool = AveragePool()
        half, quarter = max(channels // 2, 1), max(channels // 4, 1)
        self.decide = nn.Sequential(
            nn.Linear(channels, half), nn.GELU(), nn.Linear(half, quarter), nn.GELU(), nn.Linear(quarter, 2)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits, in float32 under autocast too."""
        with torch.autocast(features.device.type, enabled=False):
            pixels = features.to(next(self.parameters()).dtype).permute(0, 2, 3, 1)
            local, rest = self.embed(pixels).tensor_split(2, dim=-1)
            average = self.pool(rest.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).to(rest.dtype)
            logits: Tensor = self.decide(torch.cat([local, average.expand_as(rest)], dim=-1))
        return logits.permute(0, 3, 1, 2).float()


class MotionAnalyzer(nn.Module):
    """Predict the numbers that make each pixel's trajectory, by one 3x3 convolution (section 3.2).

    At 256 channels and the quadratic trajectory's four numbers it has 9,220 parameters.

    Assumes:
        - The convolution starts as PyTorch's do, uniformly random: displacements of a few hundredths of a
          pixel. It must not start at zero: an exposure played backwards leaves the same blur, so the reblur
          loss is the same for a motion and its reverse, and zero motion, midway between the two, is a
          stationary point that training would not leave.

    Shape:
        (B, C, H, W) to float32 (B, offset_channels, H, W), in pixels.
    """

    def __init__(self, channels: int, offset_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, offset_channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the numbers, computed in float32 under autocast too: bfloat16 has no hundredths of 10 px."""
        with torch.autocast(features.device.type, enabled=False):
            offsets: Tensor = self.conv(features.to(self.conv.weight.dtype))
        return offsets.float()


class MotionAwareConv(nn.Module):
    """A depth-wise 3x3 deformable convolution along each pixel's trajectory (section 3.3.2).

    Kernel point k, row by row, is moved by the displacement at instant k of nine.

    Assumes:
        - It has a bias, as the paper's parameter count says.
        - It starts near the identity: 1 at the centre, which mid-exposure leaves in place, and noise of
          standard deviation 0.01 elsewhere. So a new block does what NAFNet's does, also with NAFNet's
          weights, whatever the analyzer predicts at first; and the noise lets gradients reach the analyzer.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.normal_(self.weight, std=0.01)
        with torch.no_grad():
            self.weight[:, :, 1, 1] = 1

    def forward(self, features: Tensor, plan: MotionPlan) -> Tensor:
        """Convolve along the trajectories of `plan`, in the features' type."""
        return deformable_depthwise(features, plan, self.weight, self.bias)


class M2ASBlock(NAFBlock):
    """The mask- and motion-aware simple block (section 3.3, equations 5 and 6).

    NAFNet's block with two changes. Where the mask is 0, the first half's convolutions are left out and
    the normalised features, repeated to twice the channels, take the place of their result. In the second
    half a deformable convolution along the trajectories stands between the 1x1 convolution and the gate.

    Assumes:
        - NAFNet's `beta` and `gamma`, which equations 5 and 6 leave out, are kept, as the paper's count says.
        - Repetition puts the whole of the channels twice in a row, so that the gate squares each.

    Args:
        channels: C.
        motion_aware: whether the block has the deformable convolution.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(self, channels: int, motion_aware: bool = True) -> None:
        super().__init__(channels)
        self.dconv = MotionAwareConv(2 * channels) if motion_aware else None

    def forward(self, features: Tensor, mask: Tensor | None = None, plan: MotionPlan | None = None) -> Tensor:
        """Restore the features of the blurred pixels.

        Args:
            features: (B, C, H, W).
            mask: (B, 1, H, W), 0 or 1; None treats every pixel as blurred.
            plan: the trajectories at the features' resolution; needed if and only if `motion_aware`.

        Returns:
            (B, C, H, W).
        """
        normed = self.norm1(features)
        mixed = self.conv2(self.conv1(normed))
        if mask is not None:
            repeated = torch.cat([normed, normed], dim=1).to(mixed.dtype)
            # Exactly `mixed` where the mask is 1, exactly `repeated` where it is 0, with eq. 5's gradients.
            mixed = torch.lerp(repeated, mixed, mask.to(mixed.dtype))
        features = features + self.conv3(self.sca(self.gate(mixed))) * self.beta
        mixed = self.conv4(self.norm2(features))
        if self.dconv is not None:
            assert plan is not None, "a motion-aware block needs the trajectories"
            mixed = self.dconv(mixed, plan)
        restored: Tensor = features + self.conv5(self.gate(mixed)) * self.gamma
        return restored


class M2AENet(NAFNet):
    """NAFNet that finds what is blurred and how it moved, and restores along the motion (figure 2).

    At the defaults it has 17,437,865 parameters. The parts that it shares with NAFNet have NAFNet's keys, so
    that published weights can start it. Without masks and motion it is NAFNet.

    Assumes:
        - Predictors stand at the fourth encoder stage, as appendix A says (section 3 says at each scale), and
          read what enters that stage; its blocks share their results.
        - `motion` and `blur_probability` average over the stages that have predictors.

    Args:
        width, encoder_blocks, middle_blocks, decoder_blocks: as `NAFNet`'s.
        predictor_stages: the encoder stages, counted from 1, that have predictors and M2AS blocks.
        trajectory: how the analyzer's numbers become displacements; quadratic by default.
        threshold: epsilon of equation 3: blurred is what has a greater probability.
        mask_aware: whether to predict masks and mask the convolutions (table 3).
        motion_aware: whether to predict motion and convolve along it (table 3).

    Raises:
        ConfigurationError: if a size, a stage or the threshold is out of range.
    """

    def __init__(
        self,
        width: Count = 32,
        encoder_blocks: Sequence[Natural] = (1, 1, 1, 28),
        middle_blocks: Natural = 1,
        decoder_blocks: Sequence[Natural] = (1, 1, 1, 1),
        predictor_stages: Sequence[Count] = (4,),
        trajectory: Trajectory | None = None,
        threshold: Share = 0.5,
        mask_aware: bool = True,
        motion_aware: bool = True,
    ) -> None:
        super().__init__(width, encoder_blocks, middle_blocks, decoder_blocks)
        stages = sorted(set(predictor_stages))
        if stages and not 1 <= stages[0] <= stages[-1] <= self.levels:
            raise ConfigurationError(
                f"predictor_stages is {list(predictor_stages)}: give encoder stages from 1 to {self.levels}"
            )
        if not 0 <= threshold <= 1:
            raise ConfigurationError(f"threshold is {threshold}: give a probability, from 0 to 1")
        self.trajectory: Trajectory = QuadraticTrajectory() if trajectory is None else trajectory
        self.threshold = threshold
        self.mask_predictors = nn.ModuleDict()
        self.analyzers = nn.ModuleDict()
        if not (mask_aware or motion_aware):
            return
        for stage in stages:
            channels = width * 2 ** (stage - 1)
            blocks = (M2ASBlock(channels, motion_aware) for _ in range(encoder_blocks[stage - 1]))
            self.encoders[stage - 1] = nn.Sequential(*blocks)
            if mask_aware:
                self.mask_predictors[str(stage)] = MaskPredictor(channels)
            if motion_aware:
                self.analyzers[str(stage)] = MotionAnalyzer(channels, self.trajectory.channels)

    def forward(self, blurry: Tensor) -> Tensor:
        """Restore pictures of any size: (B, 3, H, W), RGB in [0, 1], to (B, 3, H, W), not clamped."""
        return self.analyze(blurry).restored

    def analyze(self, blurry: Tensor, noise_seeds: Tensor | None = None) -> Analysis:
        """Restore pictures and return what the net found about their blur.

        In training the masks are drawn by the Gumbel-softmax, hard and straight-through (equation 2); in eval
        mode they are the probability against the threshold (equation 3).

        Args:
            blurry: (B, 3, H, W), RGB in [0, 1].
            noise_seeds: (B,) int64. The Gumbel noise of each sample is a function of its seed alone, so
                that training depends neither on how samples are batched nor on the number of devices. None
                takes PyTorch's global generator. Nothing in eval mode, where there is no noise.

        Returns:
            The restored pictures, (B, 3, H, W), not clamped, and the stages' findings.
        """
        generators = None
        if self.training and noise_seeds is not None:
            generators = [_generator(seed) for seed in noise_seeds.tolist()]
        padded = self.pad(blurry)
        features = self.intro(padded)
        skips, stages = [], []
        for level, (encoder, down) in enumerate(zip(self.encoders, self.downs, strict=True)):
            found = self._examine(features, level, generators)
            if found is None:
                features = encoder(features)
            else:
                plan = self._plan(found)
                for block in encoder.children():
                    features = block(features, found.mask, plan)
                stages.append(found)
            skips.append(features)
            features = down(features)
        return Analysis(self.decode(features, skips, padded, blurry), tuple(stages))

    def explain(self, blurry: Tensor, instants: int = 9) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Restore pictures, and say where they are blurred and how that moved.

        Args:
            blurry: (B, 3, H, W), RGB in [0, 1].
            instants: of the motion, evenly from the start of the exposure to its end.

        Returns:
            The restored pictures (B, 3, H, W), not clamped; the probability of blur (B, 1, H, W), None
            without mask predictors; the displacements (B, instants, 2, H, W) in pixels, None without
            analyzers.
        """
        analysis = self.analyze(blurry)
        size = (blurry.shape[-2], blurry.shape[-1])
        probability = self.blur_probability(analysis, size) if self.mask_predictors else None
        motion = self.motion(analysis, size, instants) if self.analyzers else None
        return analysis.restored, probability, motion

    def motion(self, analysis: Analysis, size: tuple[int, int], instants: int = 9) -> Tensor:
        """Return each pixel's displacement from mid-exposure, at full resolution.

        Args:
            analysis: what `analyze` returned.
            size: height and width of the picture.
            instants: how many instants, evenly from the start of the exposure to its end.

        Returns:
            (B, instants, 2, H, W) float32: x to the right and y down, in pixels; zeros without an analyzer.
        """
        found = []
        for stage in analysis.stages:
            if stage.offsets is not None:
                displacements = self.trajectory(stage.offsets, instants) * stage.scale_px
                grown = _enlarge(displacements.flatten(0, 1), stage.scale_px, size)
                found.append(grown.view(*displacements.shape[:3], *size))
        if not found:
            batch = len(analysis.restored)
            return torch.zeros(batch, instants, 2, *size, device=analysis.restored.device)
        return torch.stack(found).mean(0)

    def blur_probability(self, analysis: Analysis, size: tuple[int, int]) -> Tensor:
        """Return the probability that each pixel is blurred, at full resolution.

        Args:
            analysis: what `analyze` returned.
            size: height and width of the picture.

        Returns:
            (B, 1, H, W) float32 in [0, 1]; ones without a mask predictor.
        """
        found = [
            _enlarge(_blurred(stage.mask_logits), stage.scale_px, size)
            for stage in analysis.stages
            if stage.mask_logits is not None
        ]
        if not found:
            return torch.ones(len(analysis.restored), 1, *size, device=analysis.restored.device)
        return torch.stack(found).mean(0)

    def _examine(
        self, features: Tensor, level: int, generators: list[torch.Generator] | None
    ) -> StageAnalysis | None:
        """Ask the predictors of encoder stage `level` (from 0); None where there are none."""
        name = str(level + 1)
        logits = mask = offsets = None
        if name in self.mask_predictors:
            logits = self.mask_predictors[name](features)
            mask = self._mask(logits, generators)
        if name in self.analyzers:
            offsets = self.analyzers[name](features)
        if logits is None and offsets is None:
            return None
        return StageAnalysis(2**level, logits, mask, offsets)

    def _mask(self, logits: Tensor, generators: list[torch.Generator] | None) -> Tensor:
        if not self.training:
            return (_blurred(logits) > self.threshold).to(logits.dtype)
        # Of two classes only the difference of the logits counts, and the difference of two Gumbel variables
        # is a logistic one: one draw a pixel instead of two.
        soft = torch.sigmoid(logits[:, :1] - logits[:, 1:] + _logistic_noise(logits, generators))
        hard = (soft > 0.5).to(soft.dtype)
        # In this order: `hard - soft + soft` would not be exactly 0 or 1.
        return hard + (soft - soft.detach())

    def _plan(self, found: StageAnalysis) -> MotionPlan | None:
        """Make the deformable convolutions' plan, once for all blocks of a stage."""
        if found.offsets is None:
            return None
        displacements = self.trajectory(found.offsets, KERNEL_INSTANTS)
        grid = kernel_grid(displacements.device)
        plan = plan_motion(displacements + grid[:, :, None, None])
        if torch.is_grad_enabled():
            plan.transposed()  # now, because a compiled block could not keep it in the plan
        return plan

    def _parts_at(self, level: int) -> list[nn.Module]:
        name = str(level + 1)
        parts = super()._parts_at(level)
        if name in self.mask_predictors:
            parts.append(self.mask_predictors[name])
        return parts


def _blurred(logits: Tensor) -> Tensor:
    """Return the probability of blur, (B, 1, H, W), from the logits of both classes."""
    return logits.softmax(dim=1)[:, :1]


def _generator(seed: int) -> torch.Generator:
    # PyTorch's generator on the CPU looks at the lower 32 bits only: hash all 64 into them.
    state = np.random.SeedSequence(seed % 2**64).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))


def _logistic_noise(logits: Tensor, generators: list[torch.Generator] | None) -> Tensor:
    """Draw (B, 1, H, W) logistic noise, each sample's from its own generator on the CPU if there are any."""
    batch, _, height, width = logits.shape
    if generators is None:
        uniform = torch.rand(batch, 1, height, width, device=logits.device)
    else:
        draws = [torch.rand(1, height, width, generator=generator) for generator in generators]
        uniform = torch.stack(draws).to(logits.device, non_blocking=True)
    return torch.logit(uniform, eps=1e-6)


def _enlarge(maps: Tensor, scale_px: int, size: tuple[int, int]) -> Tensor:
    """Enlarge (B, C, h, w) `scale_px` times, bilinearly, and crop the net's padding off."""
    height, width = (side * scale_px for side in maps.shape[-2:])
    assert height >= size[0], "the picture is larger than what was analysed"
    assert width >= size[1], "the picture is larger than what was analysed"
    grown = F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)
    return grown[..., : size[0], : size[1]]
