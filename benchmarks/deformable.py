"""Time the deformable depth-wise convolution against torchvision's, on the CPU.

    python benchmarks/deformable.py [--output FILE.json]

Equality of the output and of every gradient is asserted before anything is timed. The two are then run in
turns; a ratio is taken within each turn, torchvision's time over ours. "shared plan" is what one block of a
network costs, the plan being made once an image; "own plan" makes the plan each time, all the way to the
gradient of the displacements. torchvision has no such split: its time is the same in both.

On a machine that others use too, set OMP_WAIT_POLICY=passive: ours is many short parallel regions, and at the
end of each a waiting thread otherwise keeps the core from the one that it waits for.
"""

from collections.abc import Callable
from typing import NamedTuple

import measuring
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor
from torchvision.ops import deform_conv2d

from deblur_lab.ops.deformable import MotionPlan, deformable_depthwise, kernel_grid, plan_motion

TOLERANCE = 1e-5  # of the largest value


class Size(NamedTuple):
    """A batch of features."""

    batch: int
    channels: int
    height: int
    width: int


# The fourth encoder stage of a 512x512 image, twice 256 channels; and two sizes of training on a CPU.
SIZES = (Size(1, 512, 64, 64), Size(8, 256, 16, 16), Size(4, 64, 8, 8))


class Case:
    """The same convolution, both ways, on random features and smooth random motion."""

    def __init__(self, size: Size, motion_px: float) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        batch, channels, height, width = size
        coarse = motion_px * draw(batch, 18, max(height // 16, 2), max(width // 16, 2))
        motion = F.interpolate(coarse, size=(height, width), mode="bilinear").view(batch, 9, 2, height, width)
        # Odd multiples of 1/128 are never on the border of a bilinear cell, where there is no derivative.
        motion = (motion * 64).round() / 64 + 1 / 128
        self.displacements = (kernel_grid().view(1, 9, 2, 1, 1) + motion).requires_grad_()
        self.offsets = motion.flip(2).reshape(batch, 18, height, width).requires_grad_()
        # Each gets the memory format that it works in.
        self.features = draw(*size).requires_grad_()
        self.features_last = (
            self.features.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        )
        self.weight = draw(channels, 1, 3, 3).requires_grad_()
        self.bias = draw(channels).requires_grad_()
        self.direction = draw(*size)
        self.direction_last = self.direction.contiguous(memory_format=torch.channels_last)
        self.plan = plan_motion(self.displacements)

    def ours(self, plan: MotionPlan) -> Tensor:
        """Our output."""
        return deformable_depthwise(self.features_last, plan, self.weight, self.bias)

    def ours_gradients(self, plan: MotionPlan, motion: Tensor) -> tuple[Tensor, ...]:
        """Our gradients: features, `motion` (the displacements, or the plan's weights), weight, bias."""
        inputs = (self.features_last, motion, self.weight, self.bias)
        return torch.autograd.grad(self.ours(plan), inputs, self.direction_last, retain_graph=True)

    def torchvisions(self) -> Tensor:
        """Torchvision's output."""
        output: Tensor = deform_conv2d(self.features, self.offsets, self.weight, self.bias, padding=1)
        return output

    def torchvisions_gradients(self) -> tuple[Tensor, ...]:
        """Torchvision's gradients: features, offsets, weight, bias."""
        inputs = (self.features, self.offsets, self.weight, self.bias)
        return torch.autograd.grad(self.torchvisions(), inputs, self.direction)

    def largest_errors(self) -> dict[str, float]:
        """The largest difference of each result, as a share of its largest value."""
        mine = (
            self.ours(self.plan),
            *self.ours_gradients(plan_motion(self.displacements), self.displacements),
        )
        features, offsets, *rest = self.torchvisions_gradients()
        motion = offsets.view(self.displacements.shape).flip(2)
        theirs = (self.torchvisions(), features, motion, *rest)
        names = ("output", "features", "displacements", "weight", "bias")
        return {
            name: ((a - b).abs().max() / b.abs().max()).item()
            for name, a, b in zip(names, mine, theirs, strict=True)
        }

    def runs(self) -> dict[str, Callable[[], object]]:
        """What is timed, in the order of each turn."""

        def without_gradients(run: Callable[[], object]) -> Callable[[], object]:
            return torch.no_grad()(run)

        def transpose() -> object:
            return plan_motion(self.displacements).transposed()

        return {
            "forward, torchvision": without_gradients(self.torchvisions),
            "forward, shared plan": without_gradients(lambda: self.ours(self.plan)),
            "forward, own plan": without_gradients(lambda: self.ours(plan_motion(self.displacements))),
            "forward and backward, torchvision": self.torchvisions_gradients,
            "forward and backward, shared plan": lambda: self.ours_gradients(self.plan, self.plan.weights),
            "forward and backward, own plan": lambda: self.ours_gradients(
                plan_motion(self.displacements), self.displacements
            ),
            "plan": without_gradients(lambda: plan_motion(self.displacements)),
            "plan and transposed plan": without_gradients(transpose),
        }


def measure(size: Size, motion_px: float, turns: int) -> dict[str, object]:
    """Check one size, time it, and return its part of the report."""
    case = Case(size, motion_px)
    errors = case.largest_errors()
    assert max(errors.values()) < TOLERANCE, f"not equal to torchvision's: {errors}"
    times = measuring.in_turn(case.runs(), turns)
    ratios = {}
    for work in ("forward", "forward and backward"):
        for plan in ("shared plan", "own plan"):
            name = f"{work}, {plan}"
            ratios[name] = measuring.spread(measuring.ratios(times, f"{work}, torchvision", name))
    return {
        "size": size._asdict(),
        "motion_px": motion_px,
        "dtype": "float32",
        "largest_error_as_share_of_largest_value": errors,
        "milliseconds": measuring.milliseconds(times),
        "torchvision_over_ours": ratios,
    }


def main() -> None:
    """Read the command line, measure, print one JSON and write it where asked."""
    parser = measuring.parser("Time the deformable convolution against torchvision's.")
    parser.add_argument("--motion-px", type=float, default=3.0, help="typical displacement (default: 3)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cases = [measure(size, arguments.motion_px, arguments.turns) for size in SIZES]
    about = {"torchvision": torchvision.__version__, "cases": cases}
    measuring.report("deformable depth-wise 3x3 convolution", arguments, about)


if __name__ == "__main__":
    main()
