"""Count the memory that training AIBNet takes; print one JSON.

    python benchmarks/aibnet_memory.py [--threads 2] [--output FILE]

First at full size, without computing anything: width 64, N = 8, batches of 32 patches of 256x256, under
bfloat16 autocast, with PyTorch's fake tensors, which have shapes and no values. Told are the bytes kept for
the way back (each memory once, weights left out), and the most bytes that live at a time in a whole step,
forward and backward; with weights and Adam's state that is what a card must hold, but for what libraries
take for themselves and memory lost between blocks. The encoder is UFPNet's body, a NAFNet: frozen, it keeps
nothing. UFPNet's estimator and flow, 5.8 M weights that look at values, are left out.

Then what lives at a time in a real step in float32, of a small net on the CPU: AIBNet-S against the last
stage of AIBNet-L, whose frozen weights are told apart.
"""

from collections.abc import Callable, Mapping
from typing import Any

import measuring
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deblur_lab.losses import ReconstructionLoss
from deblur_lab.models import AIBNet, NAFNet

CARD_BYTES = 80e9
FULL = {"batch": 32, "side_px": 256, "width": 64, "blocks": 8}
SMALL = {"batch": 4, "side_px": 96, "width": 16, "blocks": 2}
STAGES = {"S": 1, "last stage of B": 2, "last stage of L": 4}


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, while they live; weights are not counted.

    Attributes:
        peak_bytes: the most at a time.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.peak_bytes = 0
        self._weights = {_memory(tensor) for tensor in (*net.parameters(), *net.buffers())}
        self._living: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self,
        operation: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        results = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            if isinstance(tensor, Tensor) and _memory(tensor) not in self._weights:
                reference = StorageWeakRef(tensor.untyped_storage())
                self._living[reference.cdata] = (reference, tensor.untyped_storage().nbytes())
        living = sum(size for _, size in self._living.values())
        if living > self.peak_bytes:  # the dead are counted too, until it matters
            self._living = {key: kept for key, kept in self._living.items() if not kept[0].expired()}
            self.peak_bytes = max(self.peak_bytes, sum(size for _, size in self._living.values()))
        return results


def _memory(tensor: Tensor) -> int:
    identity: int = tensor.untyped_storage()._cdata
    return identity


def last_stage(encoder: NAFNet, sub_decoders: int, blocks: int, checkpoint_blocks: bool) -> AIBNet:
    """A net of which the last sub-decoder is trained."""
    net = AIBNet(encoder, sub_decoders, blocks, checkpoint_blocks=checkpoint_blocks).train()
    for part in (net.encoder, *list(net.sub_decoders)[:-1]):
        part.requires_grad_(False).eval()
    return net


def step(net: AIBNet, batch: int, side_px: int, half: bool) -> dict[str, int]:
    """Run forward, loss and backward: bytes that are kept in between, and the most that live at a time."""
    blurry, sharp = torch.rand(batch, 3, side_px, side_px), torch.rand(batch, 3, side_px, side_px)
    loss = ReconstructionLoss(charbonnier=1.0, edge=0.05, fft=0.1)
    weights = {_memory(tensor) for tensor in (*net.parameters(), *net.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if _memory(tensor) not in weights:
            kept[_memory(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    half_precision = torch.autocast("cpu", torch.bfloat16, enabled=half)
    with half_precision, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        total = loss.total(loss(net(blurry), sharp))
    del total
    with LiveBytes(net) as live:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            total = loss.total(loss(net(blurry), sharp))
        total.backward()
    return {"kept_bytes": sum(kept.values()), "peak_bytes": live.peak_bytes}


def weight_bytes(net: AIBNet) -> dict[str, int]:
    """Of weights and buffers in float32, and of Adam's two averages of those that are trained."""
    of_weights = sum(tensor.numel() * tensor.element_size() for tensor in (*net.parameters(), *net.buffers()))
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    of_trained = sum(tensor.numel() * tensor.element_size() for tensor in trained)
    frozen = sum(tensor.numel() * tensor.element_size() for tensor in net.parameters()) - of_trained
    return {
        "weights_bytes": of_weights,
        "frozen_weights_bytes": frozen,
        "adam_bytes": 2 * of_trained,
        "gradients_bytes": of_trained,
    }


def full_size(sub_decoders: int, checkpoint_blocks: bool) -> dict[str, Any]:
    """Count a step of a full-size net; a peak holds the gradients that are made until then."""
    with FakeTensorMode():
        encoder = NAFNet(FULL["width"])
        net = last_stage(encoder, sub_decoders, FULL["blocks"], checkpoint_blocks)
        counted = {**step(net, FULL["batch"], FULL["side_px"], half=True), **weight_bytes(net)}
    needed = counted["peak_bytes"] + counted["weights_bytes"] + counted["adam_bytes"]
    return {
        "sub_decoders": sub_decoders,
        "checkpoint_blocks": checkpoint_blocks,
        **{name.replace("bytes", "gb"): round(size / 1e9, 3) for name, size in counted.items()},
        "needed_gb": round(needed / 1e9, 3),
        "fits_80_gb": needed < CARD_BYTES,
    }


def small_size(sub_decoders: int) -> dict[str, Any]:
    """Count a real step of a small net."""
    torch.manual_seed(0)
    encoder = NAFNet(SMALL["width"], [1, 1, 1, 1], 1, [1, 1, 1, 1])
    net = last_stage(encoder, sub_decoders, SMALL["blocks"], checkpoint_blocks=False)
    return {
        "sub_decoders": sub_decoders,
        **step(net, SMALL["batch"], SMALL["side_px"], half=False),
        **weight_bytes(net),
    }


def main() -> None:
    """Count, and print the JSON."""
    arguments = measuring.parser("Count the memory that training AIBNet takes.").parse_args()
    torch.set_num_threads(arguments.threads)
    full = {
        f"{name}{', blocks computed twice' if twice else ''}": full_size(count, twice)
        for name, count in STAGES.items()
        for twice in (False, True)
        if count != 2  # it lies between the others
    }
    small = {name: small_size(count) for name, count in STAGES.items()}
    peaks = {name: found["peak_bytes"] for name, found in small.items()}
    results = {
        "full_size": {"settings": FULL, "stages": full},
        "small_size": {
            "settings": SMALL,
            "stages": small,
            "peak_over_s": {name: round(peak / peaks["S"], 4) for name, peak in peaks.items()},
        },
    }
    measuring.report("memory of training AIBNet", arguments, results)


if __name__ == "__main__":
    main()
