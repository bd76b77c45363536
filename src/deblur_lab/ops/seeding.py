"""Random numbers that are a function of a sample's seed alone."""

import numpy as np
import torch


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for the noise of one sample.

    Args:
        seed: any integer; all of its lower 64 bits count.
        device: where the numbers are drawn. A GPU's differ from a CPU's.
    """
    # PyTorch's generator on the CPU looks at the lower 32 bits only: hash all 64 into them.
    state = np.random.SeedSequence(seed % 2**64).generate_state(1)
    return torch.Generator(device).manual_seed(int(state[0]))
