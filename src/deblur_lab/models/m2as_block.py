"""M2AENet's block: NAFNet's, where only what is blurred is convolved, and along its motion.

Sections, equations and figures are those of Shang et al. 2025, "Motion-aware adaptive pixel pruning for
efficient local motion deblurring".
"""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_lab.models.layers import NAFBlock
from deblur_lab.ops.deformable import MotionPlan, PixelMotion, deformable_depthwise, deformable_depthwise_at
from deblur_lab.ops.pruning import MaskPlan, pointwise_depthwise
from deblur_lab.ranges import Range

Position = Annotated[int, Range(1, 3)]


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
    """The mask- and motion-aware simple block (section 3.3, equations 5 and 6, figure 7).

    NAFNet's block with two changes. Where the mask is 0, convolutions are left out: at position (1), the
    paper's choice, the 1x1 and the depth-wise 3x3 before the first gate; at (2) the 1x1 after the channel
    attention; at (3) the 1x1 before the deformable convolution. In the second half a deformable convolution
    along the trajectories stands between the 1x1 convolution and the gate.

    Assumes:
        - NAFNet's `beta` and `gamma`, which equations 5 and 6 leave out, are kept, as the paper's count says.
        - What is left out gives what went in; where the convolution doubles the channels, (1) and (3), the
          whole of the channels twice in a row, so that the gate squares each (section 3.3.1 says so of (1)).

    Args:
        channels: C.
        motion_aware: whether the block has the deformable convolution.
        mask_positions: of figure 7, where convolutions are masked (table 4).
        mask_deformable: a variant of ours, not the paper's: where the mask is 0 the whole second half is left
            out, its residual included, which is what makes pruning pay.

    Shape:
        (B, C, H, W) to (B, C, H, W).
    """

    def __init__(
        self,
        channels: int,
        motion_aware: bool = True,
        mask_positions: Sequence[Position] = (1,),
        mask_deformable: bool = False,
    ) -> None:
        super().__init__(channels)
        self.dconv = MotionAwareConv(2 * channels) if motion_aware else None
        self.mask_positions = frozenset(mask_positions)
        self.mask_deformable = mask_deformable

    def forward(self, features: Tensor, mask: Tensor | None = None, plan: MotionPlan | None = None) -> Tensor:
        """Restore the features of the blurred pixels; computes all pixels and lets the mask choose.

        Args:
            features: (B, C, H, W).
            mask: (B, 1, H, W), 0 or 1; None treats every pixel as blurred.
            plan: the trajectories at the features' resolution; needed if and only if `motion_aware`.

        Returns:
            (B, C, H, W).
        """
        normed = self.norm1(features)
        mixed = self.conv2(self.conv1(normed))
        if mask is not None and 1 in self.mask_positions:
            mixed = _choose(mask, mixed, _twice(normed))
        del normed  # in use, nothing is kept for longer than it is needed
        mixed = self.sca(self.gate(mixed))
        if mask is not None and 2 in self.mask_positions:
            mixed = _choose(mask, self.conv3(mixed), mixed)
        else:
            mixed = self.conv3(mixed)
        features = features + mixed * self.beta
        normed = self.norm2(features)
        mixed = self.conv4(normed)
        if mask is not None and (3 in self.mask_positions or self.mask_deformable):
            mixed = _choose(mask, mixed, _twice(normed))
        del normed
        if self.dconv is not None:
            assert plan is not None, "a motion-aware block needs the trajectories"
            mixed = self.dconv(mixed, plan)
        restored: Tensor = features + self.conv5(self.gate(mixed)) * self.gamma
        if mask is not None and self.mask_deformable:
            restored = _choose(mask, restored, features)
        return restored

    def pruned(
        self, features: Tensor, mask: MaskPlan, plan: MotionPlan | None, motion: PixelMotion | None
    ) -> Tensor:
        """Return what `forward` does, computing only the pixels that the mask selects; for inference.

        Args:
            features: (B, C, H, W).
            mask: the plan of the mask.
            plan: the trajectories; needed where `motion_aware`, but for `mask_deformable`.
            motion: the trajectories of the selected pixels; needed where both.

        Returns:
            (B, C, H, W).
        """
        # Each step in a function of its own, so that nothing outlives it: memory stays below the dense one's.
        mixed = self.sca(self._pruned_at_1(self.norm1(features), mask))
        mixed = self._pruned_at_2(mixed, mask)
        features = features + mixed * self.beta
        del mixed
        wide = self._pruned_at_3(self.norm2(features), mask)
        if self.mask_deformable:
            return self._add_deformed(features, wide, mask, motion)
        if self.dconv is not None:
            assert plan is not None, "a motion-aware block needs the trajectories"
            wide = self.dconv(wide, plan)
        restored: Tensor = features + self.conv5(self.gate(wide)) * self.gamma
        return restored

    def _pruned_at_1(self, normed: Tensor, mask: MaskPlan) -> Tensor:
        """Compute what enters the channel attention, (B, C, H, W)."""
        if 1 not in self.mask_positions:
            gated: Tensor = self.gate(self.conv2(self.conv1(normed)))
            return gated
        rows = _rows(normed)
        pair = ((self.conv1.weight, self.conv1.bias), (self.conv2.weight, self.conv2.bias))
        inside = self.gate(pointwise_depthwise(rows, mask, *pair))
        # Where nothing is convolved, the gate squares what went in.
        return _image(rows.to(inside.dtype).square().index_copy_(0, mask.selected, inside), mask)

    def _pruned_at_2(self, attended: Tensor, mask: MaskPlan) -> Tensor:
        """Compute what the first half adds, (B, C, H, W), into the memory of what is given."""
        if 2 not in self.mask_positions:
            mixed: Tensor = self.conv3(attended)
            return mixed
        rows = _rows(attended)
        inside = _linear(self.conv3, rows.index_select(0, mask.selected))
        return _image(rows.to(inside.dtype).index_copy_(0, mask.selected, inside), mask)

    def _pruned_at_3(self, normed: Tensor, mask: MaskPlan) -> Tensor:
        """Compute what enters the deformable convolution, (B, 2C, H, W)."""
        if 3 not in self.mask_positions and not self.mask_deformable:
            wide: Tensor = self.conv4(normed)
            return wide
        rows = _rows(normed)
        inside = _linear(self.conv4, rows.index_select(0, mask.selected))
        return _image(_twice(rows.to(inside.dtype)).index_copy_(0, mask.selected, inside), mask)

    def _add_deformed(
        self, features: Tensor, wide: Tensor, mask: MaskPlan, motion: PixelMotion | None
    ) -> Tensor:
        """Add the second half at the selected pixels alone, into the memory of the features."""
        rows = _rows(wide)
        if self.dconv is None:
            inside = rows.index_select(0, mask.selected)
        else:
            assert motion is not None, "this block needs the trajectories of the selected pixels"
            inside = deformable_depthwise_at(rows, motion, self.dconv.weight, self.dconv.bias)
        change = _linear(self.conv5, self.gate(inside)) * self.gamma.flatten()
        rows = _rows(features)
        return _image(rows.index_add_(0, mask.selected, change.to(rows.dtype)), mask)


def _choose(mask: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """Return exactly `inside` where the mask is 1, exactly `outside` where it is 0 (equation 5).

    In training the mask has a gradient, that of the blend.
    """
    outside = outside.to(inside.dtype)
    if mask.requires_grad:
        return torch.lerp(outside, inside, mask.to(inside.dtype))
    return torch.where(mask > 0.5, inside, outside)


def _twice(features: Tensor) -> Tensor:
    """Repeat the channels, (B, C, ...) or (P, C), as a whole, to twice as many: equation 5's Rep."""
    return torch.cat([features, features], dim=1)


def _rows(features: Tensor) -> Tensor:
    """Return (B, C, H, W) as (P, C), without a copy where it is channels_last."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def _image(rows: Tensor, mask: MaskPlan) -> Tensor:
    """Return (P, C) as (B, C, H, W), channels_last."""
    return rows.view(*mask.size, -1).permute(0, 3, 1, 2)


def _linear(convolution: nn.Module, rows: Tensor) -> Tensor:
    """Apply a 1x1 convolution to (N, C)."""
    assert isinstance(convolution, nn.Conv2d)
    return F.linear(rows, convolution.weight.flatten(1), convolution.bias)
