"""Time the motion prior's decoding, folded against plain, on a CPU; print one JSON.

    python benchmarks/flow.py [--turns 7] [--threads 2] [--pixels 16384] [--output FILE]

Three contenders, checked against each other first and then timed in turn, so that all meet the same load:
plain, as the formulas stand: masks multiplied, two nets a coupling over all entries, batch norms, and the
log-determinant along the way; ours one layer after the other, without it; and ours folded, some pixels at a
time. With one thread and then with as many as asked for; ratios are taken within each turn. The plain one
makes more temporary tensors: to leave the price of fresh memory out, set MALLOC_MMAP_MAX_=0 and
MALLOC_TRIM_THRESHOLD_=4000000000.
"""

from collections.abc import Callable

import measuring
import torch
from torch import Tensor, nn

from deblur_lab.models import MotionFlow
from deblur_lab.models.motion_flow import AffineCoupling, FlowBatchNorm


def plain(flow: MotionFlow, code: Tensor) -> tuple[Tensor, Tensor]:
    """Kernels, and the log-determinant of the way there, formula by formula."""
    values = code
    determinant = torch.zeros_like(code)
    for layer in reversed(flow.net):
        if isinstance(layer, FlowBatchNorm):
            normed = (values - layer.beta) * torch.exp(-layer.log_gamma)
            values = normed * torch.sqrt(layer.running_var + layer.eps) + layer.running_mean
            determinant = determinant + (
                0.5 * torch.log(layer.running_var + layer.eps) - layer.log_gamma
            ).expand_as(values)
        elif isinstance(layer, AffineCoupling):
            kept = values * layer.mask
            log_scale = layer.s_net(kept)
            shift = layer.t_net(kept)
            values = kept + (1 - layer.mask) * (values * torch.exp(log_scale) + shift)
            determinant = determinant + (1 - layer.mask) * log_scale
    squashed = torch.sigmoid(values)
    determinant = determinant + torch.log(squashed) + torch.log(1 - squashed)
    return (squashed - flow.alpha) / (1 - 2 * flow.alpha), determinant.sum(1)


def filled(kernel_size_px: int) -> MotionFlow:
    """A flow whose every part does something."""
    flow = MotionFlow(kernel_size_px).eval()
    for name, parameter in flow.named_parameters():
        nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.1)
        if name.endswith("log_gamma"):
            parameter.data *= 2
    for layer in flow.net:
        if isinstance(layer, FlowBatchNorm):
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.8, 1.2)
    return flow


def quietly(call: Callable[[Tensor], object], code: Tensor) -> Callable[[], None]:
    """A call without gradients."""

    def run() -> None:
        with torch.no_grad():
            call(code)

    return run


def main() -> None:
    """Check, measure and print the JSON."""
    command_line = measuring.parser("Time the motion prior's decoding, folded against plain, on a CPU.")
    command_line.add_argument("--pixels", type=int, default=16384, help="kernels to decode (default: 16384)")
    arguments = command_line.parse_args()
    torch.manual_seed(0)
    flow = filled(19)
    code = torch.randn(arguments.pixels, flow.entries)
    with torch.no_grad():
        expected = plain(flow, code)[0]
        errors = {
            "layers": (flow.decode_plainly(code) - expected).abs().max().item(),
            "folded": (flow.decode(code) - expected).abs().max().item(),
        }
    assert max(errors.values()) < 1e-5, errors
    contenders = {
        "plain": quietly(lambda values: plain(flow, values), code),
        "layers": quietly(flow.decode_plainly, code),
        "folded": quietly(flow.decode, code),
    }
    results = []
    for threads in sorted({1, arguments.threads}):
        torch.set_num_threads(threads)
        times = measuring.in_turn(contenders, arguments.turns)
        results.append(
            {
                "threads": threads,
                "milliseconds": measuring.milliseconds(times),
                "times_faster": {
                    name: measuring.spread(measuring.ratios(times, name, "folded"))
                    for name in ("plain", "layers")
                },
            }
        )
    measuring.report(
        "decoding of motion kernels",
        arguments,
        {"pixels": arguments.pixels, "largest_error": errors, "results": results},
    )


if __name__ == "__main__":
    main()
