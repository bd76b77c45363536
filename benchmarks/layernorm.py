"""Time `LayerNorm2d` against the plain formula on a CPU; print one JSON.

    python benchmarks/layernorm.py [--turns 7] [--threads 2] [--output FILE]

Three contenders, checked against each other first and then timed in turn, so that all meet the same load:
the formula on contiguous tensors, as NAFNet's own code has it; the formula on channels_last tensors; and ours
on channels_last tensors. A ratio is taken within each turn. The formula makes more temporary tensors: to
leave the price of fresh memory out, set MALLOC_MMAP_MAX_=0 and MALLOC_TRIM_THRESHOLD_=4000000000.
"""

from collections.abc import Callable

import measuring
import torch
from torch import Tensor

from deblur_lab.models.layers import LayerNorm2d

SHAPES = [(1, 256, 180, 270), (1, 32, 512, 512), (8, 16, 128, 128), (8, 8, 128, 128)]


class PlainLayerNorm2d(LayerNorm2d):
    """The formula, one tensor operation after the other."""

    def forward(self, features: Tensor) -> Tensor:
        """Normalise each pixel's channels."""
        mean = features.mean(1, keepdim=True)
        variance = (features - mean).pow(2).mean(1, keepdim=True)
        normed = (features - mean) / (variance + self.eps).sqrt()
        return self.weight.view(1, -1, 1, 1) * normed + self.bias.view(1, -1, 1, 1)


def inference(norm: LayerNorm2d, features: Tensor) -> Callable[[], None]:
    """Return a call that normalises without gradients."""

    def run() -> None:
        with torch.no_grad():
            norm(features)

    return run


def training(norm: LayerNorm2d, features: Tensor) -> Callable[[], None]:
    """Return a call that normalises and comes back with the gradients."""
    features = features.clone().requires_grad_()
    gradient = torch.randn_like(features)

    def run() -> None:
        features.grad = None
        norm(features).backward(gradient)

    return run


def measure(shape: tuple[int, ...], make: Callable[..., Callable[[], None]], turns: int) -> dict[str, object]:
    """Time the contenders at one shape, in turn, and take ratios within each turn."""
    plain, ours = PlainLayerNorm2d(shape[1]), LayerNorm2d(shape[1])
    features = torch.randn(shape)
    last = features.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours(last), plain(features), atol=1e-5, rtol=1e-5)
    contenders = {
        "plain_contiguous": make(plain, features),
        "plain_channels_last": make(plain, last),
        "ours_channels_last": make(ours, last),
    }
    times = measuring.in_turn(contenders, turns)
    return {
        "shape": list(shape),
        "mode": "inference" if make is inference else "training",
        "milliseconds": measuring.milliseconds(times),
        "times_faster": {
            name: measuring.spread(measuring.ratios(times, name, "ours_channels_last"))
            for name in times
            if name != "ours_channels_last"
        },
    }


def main() -> None:
    """Measure every shape and print the JSON."""
    arguments = measuring.parser("Time LayerNorm2d against the plain formula on a CPU.").parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    results = [measure(shape, make, arguments.turns) for shape in SHAPES for make in (inference, training)]
    measuring.report("layer normalisation of channels", arguments, {"results": results})


if __name__ == "__main__":
    main()
