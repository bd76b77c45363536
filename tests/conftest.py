"""One thread a test process: the processes that run side by side have a core each."""

import os

# Before PyTorch and OpenCV read it, and for the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
