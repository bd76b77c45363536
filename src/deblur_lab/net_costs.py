"""What a net costs: parameters and multiply-adds of a picture restored, and of a sample trained on."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from deblur_lab.models import M2AENet
from deblur_lab.models.motion_flow import MotionFlow
from deblur_lab.multiply_adds import counted, counted_by_gradients
from deblur_lab.tasks import FlowPrior, KernelEstimation, TrainingTask

FORWARD_AND_BACKWARD = 3
"""Of a forward pass: the way back takes two products for each, by the weights and by what went in."""


def cost_of(net: nn.Module, size_px: tuple[int, int]) -> dict[str, Any]:
    """Count what a net costs, without computing anything, on PyTorch's "meta" device.

    Masked convolutions are counted dense, as if all of the picture were blurred.

    Args:
        net: images in, restored images out; it stays as it is.
        size_px: width and height of a picture.

    Returns:
        ``net``, its class; ``parameters``; ``multiply_adds`` of one picture, None of a net that cannot run
        without numbers; and ``size_px``.
    """
    width_px, height_px = size_px
    shadow = _shadow(net).eval().requires_grad_(False)
    _prepare(shadow)
    picture = torch.empty(1, 3, height_px, width_px, device="meta")
    multiply_adds: int | None
    try:
        with torch.no_grad():
            _, by_name = counted(partial(shadow, picture))
        multiply_adds = sum(by_name.values())
    except (RuntimeError, TypeError):  # PyTorch's, where numbers are asked for
        multiply_adds = None
    return {
        "net": type(net).__name__,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "multiply_adds": multiply_adds,
        "size_px": [width_px, height_px],
    }


def cost_of_training(task: TrainingTask, patch_size_px: int) -> int:
    """Count the multiply-adds that one sample takes in training, without computing anything.

    Three times what a forward pass of the net takes where gradients pass, and once what it takes where none
    do: in parts that are frozen, and that what is trained does not lie before. Losses and the optimizer are
    left out, and so are blocks that are computed twice to save memory.

    Args:
        task: on the "meta" device, where it was built.
        patch_size_px: side of a patch; nothing to a task that is not trained on pictures.

    Raises:
        RuntimeError: PyTorch's, of a net that cannot run without numbers.
        TypeError: likewise.
    """
    task.eval()  # without noise, whose seeds are numbers
    _prepare(task.net)
    with torch.enable_grad():
        with_gradients, without = counted_by_gradients(_pass_of(task, patch_size_px))
    return FORWARD_AND_BACKWARD * with_gradients + without


def _pass_of(task: TrainingTask, patch_size_px: int) -> Callable[[], Any]:
    """What a training runs of its net on one sample."""
    patch = torch.empty(1, 3, patch_size_px, patch_size_px, device="meta")
    if isinstance(task, FlowPrior):
        kernel = torch.empty(1, task.net.flow.entries, device="meta")
        return partial(task.net.flow.log_likelihood, kernel)
    if isinstance(task, KernelEstimation):
        return partial(task.net.kernels, patch)
    return partial(task.net, patch)


def _shadow(net: nn.Module) -> nn.Module:
    """A copy of a net on the "meta" device, for which its weights are not copied first."""
    memo: dict[int, Any] = {}
    for parameter in net.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    for buffer in net.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(net, memo).to("meta")


def _prepare(net: nn.Module) -> None:
    """Leave out what depends on where a picture is blurred, and what is done once for all pictures."""
    for module in net.modules():
        if isinstance(module, M2AENet):
            module.pruning = "dense"
        elif isinstance(module, MotionFlow) and module.folds:
            module.folded()
