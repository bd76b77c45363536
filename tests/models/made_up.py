"""The made-up pictures and weights that the golden files were computed with, and nets that have them."""

from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from deblur_lab.models import M2AENet

SMALL = (4, [1, 2], 1, [1, 1])  # fewer scales, so that small pictures have many pixels at the second stage


def image(seed: int, *shape: int) -> Tensor:
    """Uniform noise in [0, 1)."""
    return torch.from_numpy(np.random.RandomState(seed).rand(*shape).astype("float32"))


def fill(net: nn.Module) -> None:
    """Give each weight values that depend on its key and shape alone, and that keep activations in range."""
    state = net.state_dict()
    for key, tensor in state.items():
        noise = np.random.RandomState(crc32(key.encode()) & 0x7FFFFFFF).randn(*tensor.shape).astype("float32")
        name = key.rsplit(".", 1)[-1]
        if name in ("beta", "gamma"):
            values = 0.5 * noise
        elif tensor.dim() >= 2:
            values = noise / np.sqrt(np.prod(tensor.shape[1:]))
        elif name == "weight":
            values = 1 + 0.1 * noise
        else:
            values = 0.1 * noise
        state[key] = torch.from_numpy(np.asarray(values, dtype="float32"))
    net.load_state_dict(state)


def made_up(*sizes: object, **settings: object) -> M2AENet:
    """An M2AENet with such weights, in eval mode."""
    net = M2AENet(*sizes, **settings)
    fill(net)
    return net.eval()
