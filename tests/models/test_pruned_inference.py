"""Where a mask leaves convolutions out, and that leaving them out changes nothing but time and memory."""

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deblur_lab.models import M2ASBlock
from deblur_lab.ops import deformable
from deblur_lab.ops import pruning as pruned_convolutions
from deblur_lab.ops.deformable import kernel_grid, plan_motion

from .made_up import SMALL, fill, image, made_up

# Positions


@pytest.mark.parametrize(
    ("positions", "deformable"), [([1], False), ([2], False), ([3], False), ([1, 2, 3], False), ([1], True)]
)
def test_positions_of_figure_7(positions, deformable):
    """Each convolution is left out where the mask is 0 if its position is masked, and never else."""
    block = M2ASBlock(4, mask_positions=positions, mask_deformable=deformable)
    fill(block)
    features, mask = image(60, 2, 4, 8, 9), (image(61, 2, 1, 8, 9) > 0.5).float()
    plan = plan_motion(2 * image(62, 2, 9, 2, 8, 9) + kernel_grid()[:, :, None, None])

    def masked(inside, outside):
        return mask * inside + (1 - mask) * outside

    normed = block.norm1(features)
    mixed = block.conv2(block.conv1(normed))
    if 1 in positions:
        mixed = masked(mixed, normed.repeat(1, 2, 1, 1))
    attended = block.sca(block.gate(mixed))
    mixed = block.conv3(attended)
    if 2 in positions:
        mixed = masked(mixed, attended)
    middle = features + mixed * block.beta
    normed = block.norm2(middle)
    mixed = block.conv4(normed)
    if 3 in positions or deformable:
        mixed = masked(mixed, normed.repeat(1, 2, 1, 1))
    change = block.conv5(block.gate(block.dconv(mixed, plan))) * block.gamma
    wanted = middle + (change * mask if deformable else change)
    torch.testing.assert_close(block(features, mask, plan), wanted)


# Pruning


@pytest.mark.parametrize("positions", [[1], [2], [3], [1, 2, 3]])
@pytest.mark.parametrize("deformable", [False, True])
@pytest.mark.parametrize("motion_aware", [False, True])
@pytest.mark.parametrize("size", [(3, 13, 18), (1, 1, 1)])
@torch.no_grad()
def test_pruned_is_dense(positions, deformable, motion_aware, size):
    """For any mask, size and batch; and under the test-time local converter."""
    net = made_up(
        *SMALL,
        predictor_stages=[1, 2],
        motion_aware=motion_aware,
        mask_positions=positions,
        mask_deformable=deformable,
    )
    batch, height, width = size
    blurry = image(63, batch, 3, height, width)
    empty = torch.zeros(batch, 1, height, width)
    rectangle = empty.clone()
    rectangle[0, :, : height // 2 + 1, width // 3 :] = 1
    found = {}
    for mask in (None, empty, empty + 1, rectangle, (image(64, *empty.shape) > 0.7).float()):
        for tlc in (None, 8):
            net.set_tlc(tlc)
            for pruning in ("dense", "pruned", "auto"):
                net.pruning = pruning
                found[pruning] = net.analyze(blurry, mask=mask).restored
            for pruning in ("pruned", "auto"):
                torch.testing.assert_close(found[pruning], found["dense"], atol=1e-5, rtol=1e-5)


def test_pruning_computes_the_selected_pixels_alone(small, monkeypatch):
    """And is dense where that is faster, asked for, or where gradients are wanted."""
    blurry, mask = image(65, 1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    mask[..., :16, :16] = 1
    called = []
    original = M2ASBlock.pruned

    def noted(block, *arguments):
        called.append(arguments[1].selected_share)
        return original(block, *arguments)

    monkeypatch.setattr(M2ASBlock, "pruned", noted)

    def blocks_pruned(pruning, mask):
        small.pruning = pruning
        called.clear()
        small.analyze(blurry, mask=mask)
        return list(called)

    with torch.no_grad():
        assert blocks_pruned("auto", mask) == blocks_pruned("pruned", mask) == [1 / 16] * 2
        assert blocks_pruned("dense", mask) == []
        assert blocks_pruned("auto", torch.ones_like(mask)) == []
        assert blocks_pruned("pruned", torch.ones_like(mask)) == [1] * 2
    assert blocks_pruned("pruned", mask) == []
    small.train()
    with torch.no_grad():
        assert blocks_pruned("pruned", mask) == []


@torch.no_grad()
def test_what_is_left_out_cannot_be_seen(small):
    """Weights that are only multiplied with what is pruned may be anything."""
    blurry, empty = image(66, 1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    small.pruning = "pruned"
    before = small.analyze(blurry, mask=empty).restored
    for block in small.encoders[1]:
        block.conv1.weight.fill_(torch.nan)
        block.conv2.weight.fill_(torch.nan)
    assert torch.equal(small.analyze(blurry, mask=empty).restored, before)


@torch.no_grad()
def test_pruned_under_autocast(small):
    blurry = image(68, 1, 3, 32, 32)
    mask = (image(69, 1, 1, 32, 32) > 0.5).float()
    found = {}
    for pruning in ("dense", "pruned"):
        small.pruning = pruning
        with torch.autocast("cpu", torch.bfloat16):
            found[pruning] = small.analyze(blurry, mask=mask).restored
    torch.testing.assert_close(found["pruned"], found["dense"], atol=0.05, rtol=0.05)


# Memory


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, while they live.

    Args:
        net: whose weights are not counted, nor are views of them.

    Attributes:
        peak_bytes: the most at a time.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.peak_bytes = 0
        self._weights = {weight.untyped_storage().data_ptr() for weight in net.parameters()}
        self._living: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        results = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self._weights:
                reference = StorageWeakRef(tensor.untyped_storage())
                self._living[reference.cdata] = (reference, tensor.untyped_storage().nbytes())
        self._living = {key: kept for key, kept in self._living.items() if not kept[0].expired()}
        self.peak_bytes = max(self.peak_bytes, sum(size for _, size in self._living.values()))
        return results


@pytest.mark.parametrize("settings", [{}, {"mask_positions": [1, 2, 3]}, {"mask_deformable": True}])
@torch.no_grad()
def test_pruning_needs_no_more_memory_than_dense(settings, monkeypatch):
    # Small beside the features, as they are where memory matters.
    monkeypatch.setattr(deformable, "CHUNK_CPU", 20_000)
    monkeypatch.setattr(pruned_convolutions, "CHUNK_CPU", 20_000)
    net = made_up(16, [0, 0, 2], 0, [0, 0, 0], predictor_stages=[3], **settings)
    blurry = image(70, 1, 3, 192, 192)
    for share in (0, 0.1, 0.5, 1):
        mask = torch.zeros(1, 1, 192, 192)
        mask[:, :, : round(192 * share)] = 1
        peaks = {}
        for how in ("dense", "pruned", "auto"):
            net.pruning = how
            with PeakMemory(net) as memory:
                net.analyze(blurry, mask=mask)
            peaks[how] = memory.peak_bytes
        assert peaks["pruned"] <= peaks["dense"], (share, peaks)
        assert peaks["auto"] <= peaks["dense"], (share, peaks)
