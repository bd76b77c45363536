"""What must stand beside a number for it to mean anything: commit, versions, hardware."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from deblur_lab import __version__
from deblur_lab.config import configuration_root


def provenance(accelerator: str = "auto") -> dict[str, Any]:
    """Version, commit, PyTorch's version and the machine, as plain strings.

    Args:
        accelerator: Lightning's name of what is computed on.
    """
    return {
        "version": __version__,
        "commit": commit(),
        "torch": str(torch.__version__),  # a class of its own, which a checkpoint must not hold
        "hardware": hardware(accelerator),
    }


def hardware(accelerator: str = "auto", processes: int = 1) -> str:
    """The GPU if there is one that is used, else the processor and how many threads PyTorch uses.

    Args:
        accelerator: Lightning's name of what is computed on.
        processes: how many compute, each with as many threads as this one has now.
    """
    if accelerator != "cpu" and torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    several = f"{processes} x " if processes > 1 else ""
    return f"{platform.machine()} CPU, {several}{torch.get_num_threads()} threads"


def processor() -> str:
    """The CPU's model, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of the source tree that this package runs from, ``+changes`` if it was edited, or None."""
    root = configuration_root()
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
