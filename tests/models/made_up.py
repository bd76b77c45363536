"""The made-up pictures and weights that the golden files were computed with, and nets that have them."""

from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from deblur_lab.models import M2AENet, UFPNet

SMALL = (4, [1, 2], 1, [1, 1])  # fewer scales, so that small pictures have many pixels at the second stage


def image(seed: int, *shape: int) -> Tensor:
    """Uniform noise in [0, 1)."""
    return torch.from_numpy(np.random.RandomState(seed).rand(*shape).astype("float32"))


CONSTANT = ("mask", "kernel_size", "alpha", "normalization", "base_dist_mean", "base_dist_var")  # of UFPNet


def as_published(key: str) -> str:
    """A key of ours, spelled as in the published checkpoints."""
    return key.replace("kernel_attention.", "kernel_atttion.")


def fill(net: nn.Module) -> None:
    """Give each weight values that depend on its key and shape alone, and that keep activations in range."""
    state = net.state_dict()
    for key, tensor in state.items():
        seed = crc32(as_published(key).encode()) & 0x7FFFFFFF
        name = key.rsplit(".", 1)[-1]
        if name in CONSTANT or not tensor.is_floating_point():
            continue
        noise = np.random.RandomState(seed).randn(*tensor.shape).astype("float32")
        if name == "running_var":
            values = 1 + 0.1 * abs(noise)
        elif name in ("beta", "gamma") and tensor.dim() == 4:
            values = 0.5 * noise
        elif tensor.dim() >= 2:
            values = noise / np.sqrt(np.prod(tensor.shape[1:]))
        elif name == "weight":
            values = 1 + 0.1 * noise
        else:
            values = 0.1 * noise
        state[key] = torch.from_numpy(np.asarray(values, dtype="float32"))
    net.load_state_dict(state)


def made_up_ufpnet(*sizes: object, **settings: object) -> UFPNet:
    """A UFPNet with such weights, in eval mode."""
    net = UFPNet(*sizes, **settings)
    fill(net)
    with torch.no_grad():
        net.ending.weight *= 0.03
        net.ending.bias *= 0.03
    return net.eval()


def made_up(*sizes: object, **settings: object) -> M2AENet:
    """An M2AENet with such weights, in eval mode."""
    net = M2AENet(*sizes, **settings)
    fill(net)
    return net.eval()
