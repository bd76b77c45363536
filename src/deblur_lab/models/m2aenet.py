"""M2AENet (Shang et al. 2025, "Motion-aware adaptive pixel pruning for efficient local motion deblurring").

Sections and equations are those of the paper.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError
from deblur_lab.models.blur_predictors import MaskPredictor, MotionAnalyzer
from deblur_lab.models.m2as_block import M2ASBlock, Position
from deblur_lab.models.nafnet import NAFNet
from deblur_lab.models.trajectories import QuadraticTrajectory, Trajectory
from deblur_lab.ops.deformable import MotionPlan, kernel_grid, plan_motion
from deblur_lab.ops.pruning import MaskPlan, dilate, plan_mask
from deblur_lab.ops.seeding import generator
from deblur_lab.ranges import Count, Natural, Share

KERNEL_INSTANTS = 9
"""N1: one instant of the trajectory for each point of the 3x3 deformable kernel."""
DENSE_ABOVE_SHARE = 0.85
"""Of the dilated mask: where more of the picture is computed, dense convolutions are faster on a CPU."""

Pruning = Literal["auto", "dense", "pruned"]


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


class Explanation(NamedTuple):
    """Restored pictures, and what the net found about their blur, at their resolution.

    Attributes:
        restored: (B, 3, H, W), not clamped.
        probability: (B, 1, H, W) float32 in [0, 1], that a pixel is blurred; None without mask predictors.
        motion: (B, N, 2, H, W) float32, displacements in px, x then y, at N instants; None without analyzers.
        selected_share: (B,) float32, of the pixels of the stages with predictors, the share that the masks
            select; None without mask predictors.
        dilated_share: (B,) float32, the share of those and their eight neighbours, which pruning pays for.
    """

    restored: Tensor
    probability: Tensor | None
    motion: Tensor | None
    selected_share: Tensor | None
    dilated_share: Tensor | None


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
        mask_positions: where in the block convolutions are masked, by the numbers of figure 7 (table 4).
        mask_deformable: a variant of ours, not the paper's: the second half of the blocks, with the
            deformable convolution, is left out altogether where nothing is blurred.
        pruning: how masked convolutions are computed in eval mode: "pruned" at the pixels that they are
            needed at, "dense" everywhere, "auto" as is faster; to within float error the result is the same.
            In training, and where gradients are wanted, it is dense.

    Attributes:
        threshold: may be changed at any time, and so may `pruning`.

    Raises:
        ConfigurationError: if a size, a stage, a position or the threshold is out of range.
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
        mask_positions: Sequence[Position] = (1,),
        mask_deformable: bool = False,
        pruning: Pruning = "auto",
    ) -> None:
        super().__init__(width, encoder_blocks, middle_blocks, decoder_blocks)
        stages = sorted(set(predictor_stages))
        if stages and not 1 <= stages[0] <= stages[-1] <= self.levels:
            raise ConfigurationError(
                f"predictor_stages is {list(predictor_stages)}: give encoder stages from 1 to {self.levels}"
            )
        if not 0 <= threshold <= 1:
            raise ConfigurationError(f"threshold is {threshold}: give a probability, from 0 to 1")
        positions = set(mask_positions)
        if not positions or not positions <= {1, 2, 3} or len(positions) < len(mask_positions):
            raise ConfigurationError(
                f"mask_positions is {list(mask_positions)}: give one or more of 1, 2 and 3, each once; "
                "without masks it is mask_aware=false"
            )
        if pruning not in ("auto", "dense", "pruned"):
            raise ConfigurationError(f"pruning is {pruning}: give auto, dense or pruned")
        self.pruning: Pruning = pruning
        self.mask_deformable = mask_deformable
        self.trajectory: Trajectory = QuadraticTrajectory() if trajectory is None else trajectory
        self.threshold = threshold
        self.mask_predictors = nn.ModuleDict()
        self.analyzers = nn.ModuleDict()
        if not (mask_aware or motion_aware):
            return
        for stage in stages:
            channels = width * 2 ** (stage - 1)
            blocks = (
                M2ASBlock(channels, motion_aware, mask_positions, mask_deformable)
                for _ in range(encoder_blocks[stage - 1])
            )
            self.encoders[stage - 1] = nn.Sequential(*blocks)
            if mask_aware:
                self.mask_predictors[str(stage)] = MaskPredictor(channels)
            if motion_aware:
                self.analyzers[str(stage)] = MotionAnalyzer(channels, self.trajectory.channels)

    def forward(self, blurry: Tensor) -> Tensor:
        """Restore pictures of any size: (B, 3, H, W), RGB in [0, 1], to (B, 3, H, W), not clamped."""
        return self.analyze(blurry).restored

    def analyze(
        self, blurry: Tensor, noise_seeds: Tensor | None = None, mask: Tensor | None = None
    ) -> Analysis:
        """Restore pictures and return what the net found about their blur.

        In training the masks are drawn by the Gumbel-softmax, hard and straight-through (equation 2); in eval
        mode they are the probability against the threshold (equation 3).

        Args:
            blurry: (B, 3, H, W), RGB in [0, 1].
            noise_seeds: (B,) int64. The Gumbel noise of each sample is a function of its seed alone, so
                that training depends neither on how samples are batched nor on the number of devices. None
                takes PyTorch's global generator. Nothing in eval mode, where there is no noise.
            mask: (B, 1, H, W), 1 = blurred, to take the place of the predicted masks: a pixel of a stage is
                blurred where more than half of its area is; what the net pads is not blurred. None: as
                predicted. Nothing without predictors.

        Returns:
            The restored pictures, (B, 3, H, W), not clamped, and the stages' findings.

        Raises:
            ValueError: if the mask has another shape.
        """
        expected = (blurry.shape[0], 1, *blurry.shape[-2:])
        if mask is not None and mask.shape != expected:
            raise ValueError(f"the mask must have the shape {expected}, but has {tuple(mask.shape)}")
        generators = None
        if self.training and noise_seeds is not None:
            generators = [generator(seed) for seed in noise_seeds.tolist()]
        padded = self.pad(blurry)
        features = self.intro(padded)
        skips, stages = [], []
        for level, (encoder, down) in enumerate(zip(self.encoders, self.downs, strict=True)):
            found = self._examine(features, level, generators)
            if found is None:
                features = encoder(features)
            else:
                if mask is not None and found.mask is not None:
                    found = found._replace(mask=_at_stage(mask.to(found.mask), padded, features))
                features = self._restore_blurred(encoder, features, found)
                stages.append(found)
            skips.append(features)
            features = down(features)
        return Analysis(self.decode(features, skips, padded, blurry), tuple(stages))

    def explain(self, blurry: Tensor, instants: int = 9) -> Explanation:
        """Restore pictures, and say where they are blurred and how that moved.

        Args:
            blurry: (B, 3, H, W), RGB in [0, 1].
            instants: of the motion, evenly from the start of the exposure to its end.
        """
        analysis = self.analyze(blurry)
        size = (blurry.shape[-2], blurry.shape[-1])
        masks = [stage.mask for stage in analysis.stages if stage.mask is not None]
        return Explanation(
            analysis.restored,
            self.blur_probability(analysis, size) if self.mask_predictors else None,
            self.motion(analysis, size, instants) if self.analyzers else None,
            _share(masks),
            _share([dilate(mask) for mask in masks]),
        )

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

    def _restore_blurred(self, blocks: nn.Module, features: Tensor, found: StageAnalysis) -> Tensor:
        """Run a stage's blocks, pruned where that is allowed and of use."""
        plan = self._plan(found)
        mask = None if found.mask is None else self._pruned(found.mask)
        if mask is None:
            chosen = found.mask
            if chosen is not None and not self.training and self.pruning != "dense" and bool(chosen.all()):
                chosen = None  # all is blurred: there is nothing to choose
            for block in blocks.children():
                features = block(features, chosen, plan)
            return features
        motion = None
        if plan is not None and self.mask_deformable:
            motion = plan.at(mask.selected)
            plan = None  # which would take as much memory again
        for block in blocks.children():
            assert isinstance(block, M2ASBlock)
            features = block.pruned(features, mask, plan, motion)
        return features

    def _pruned(self, mask: Tensor) -> MaskPlan | None:
        """Return the plan by which a stage is pruned; None if it is to be dense."""
        if self.training or torch.is_grad_enabled() or self.pruning == "dense":
            return None
        plan = plan_mask(mask)
        if self.pruning == "auto" and plan.dilated_share > DENSE_ABOVE_SHARE:
            return None
        return plan

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


def _at_stage(mask: Tensor, padded: Tensor, features: Tensor) -> Tensor:
    """Bring a mask, (B, 1, H, W), to a stage's resolution: 1 where more than half of a pixel's area is."""
    missing = (padded.shape[-2] - mask.shape[-2], padded.shape[-1] - mask.shape[-1])
    whole = F.pad(mask, (0, missing[1], 0, missing[0]))
    shares = F.adaptive_avg_pool2d(whole, (features.shape[-2], features.shape[-1]))
    return (shares > 0.5).to(mask.dtype)


def _share(masks: Sequence[Tensor]) -> Tensor | None:
    """Return the share of 1 among all pixels of the stages' masks, (B,); None if there are none."""
    if not masks:
        return None
    flat = torch.cat([mask.flatten(1).float() for mask in masks], dim=1)
    return flat.mean(1)


def _blurred(logits: Tensor) -> Tensor:
    """Return the probability of blur, (B, 1, H, W), from the logits of both classes."""
    return logits.softmax(dim=1)[:, :1]


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
