"""Nets side by side: counted, compared and timed in turns, on one picture under one mask."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from deblur_lab.errors import MachineError
from deblur_lab.measuring import Measured, available_bytes, measured
from deblur_lab.models import M2AENet
from deblur_lab.models.m2aenet import Pruning
from deblur_lab.multiply_adds import counted
from deblur_lab.net_parts import NetPart, counted_parts, summed
from deblur_lab.ops.pruning import dilate
from deblur_lab.writing import amount

TOLERANCE = 1e-4
"""Of the largest change of the picture: by how much pruned and dense may differ, in float32."""

_BLOB_PX = 192  # a person's head or a ball, in the pictures of ReLoBlur
_SMALL_PX = 256  # a side of the part of the picture that each net sees before anything is measured
# A pixel of a large picture was measured to take about half the memory of one of that part: large tensors are
# handed back to the system as soon as they are freed, small ones leave holes.
_SPARED = 0.5
_PATIENCE_S = 120.0
_FEWEST, _MOST = 2, 20  # timed passes, if their number is not given


@dataclass
class Candidate:
    """One column of the table: a net, and how it is run.

    Attributes:
        name: of the column.
        net: in eval mode, on the device.
        pruning: how its masked convolutions are computed; None if it has no masks.
        multiply_adds: by name, once they are counted.
        parts: of the net, with what each takes of that, once they are counted; none of most nets.
        passes: what the timed passes took.
    """

    name: str
    net: nn.Module
    pruning: Pruning | None = None
    multiply_adds: dict[str, int] = field(default_factory=dict)
    parts: list[NetPart] = field(default_factory=list)
    passes: list[Measured] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.net.parameters())

    @property
    def seconds(self) -> list[float]:
        """Of each timed pass."""
        return [one.seconds for one in self.passes]

    @property
    def peak_bytes(self) -> int | None:
        """The most that a timed pass needed; None if that cannot be told."""
        peaks = [one.peak_bytes for one in self.passes if one.peak_bytes is not None]
        return max(peaks, default=None)

    def restore(self, blurry: Tensor, mask: Tensor | None) -> Tensor:
        """One pass: (B, 3, H, W) to (B, 3, H, W), what the mask selects being taken for blurred."""
        if self.pruning is None:
            restored: Tensor = self.net(blurry)
            return restored
        assert isinstance(self.net, M2AENet), "other nets have no masks"
        self.net.pruning = self.pruning
        return self.net.analyze(blurry, mask=mask).restored


@dataclass(frozen=True)
class Comparison:
    """What pruned and dense have in common.

    Attributes:
        selected_share: of the pixels of the stages with masks, what the mask selects.
        dilated_share: these and their eight neighbours.
        difference: the largest between the pruned picture and the dense one, as a share of the largest change
            of the blurry one.
    """

    selected_share: float
    dilated_share: float
    difference: float


def has_masks(net: nn.Module) -> bool:
    """Whether a net predicts masks, by which it can be pruned."""
    return isinstance(net, M2AENet) and len(net.mask_predictors) > 0


def blob_mask(net: M2AENet, size_px: tuple[int, int], share: float, generator: torch.Generator) -> Tensor:
    """Make a mask of round blobs that selects a share of a picture, to within a pixel of a stage.

    Args:
        net: with mask predictors, at whose coarsest stage the mask is made: in the full resolution, a blob is
            made of whole pixels of that stage.
        size_px: height and width of the picture.
        share: of the stage's pixels that lie in the picture with more than half of their area.
        generator: of where the blobs are.

    Returns:
        (1, 1, H, W), 0 or 1.
    """
    scale_px = 2 ** (max(map(int, net.mask_predictors)) - 1)
    inside = [_inside(side, scale_px) for side in size_px]
    rows, columns = inside
    places = [max(2, round(count * scale_px / _BLOB_PX) + 1) for count in inside]
    coarse = torch.rand(1, 1, places[0], places[1], generator=generator)
    # The highest places of a smooth landscape are round.
    landscape = F.interpolate(coarse, (rows, columns), mode="bicubic", align_corners=True)
    chosen = torch.zeros(rows * columns)
    chosen[landscape.flatten().topk(round(share * rows * columns)).indices] = 1
    grown = chosen.view(1, 1, rows, columns).repeat_interleave(scale_px, 2).repeat_interleave(scale_px, 3)
    height_px, width_px = size_px
    missing = (max(width_px - grown.shape[3], 0), max(height_px - grown.shape[2], 0))
    return F.pad(grown, (0, missing[0], 0, missing[1]))[..., :height_px, :width_px]


def _inside(side_px: int, scale_px: int) -> int:
    """How many pixels of a stage lie in the picture with more than half of their side; at least one."""
    whole, rest = divmod(side_px, scale_px)
    return max(whole + (2 * rest > scale_px), 1)


def compare(
    candidates: Sequence[Candidate],
    blurry: Tensor,
    mask: Tensor | None,
    precision: str,
    turns: int | None,
) -> Comparison | None:
    """Fill in what the candidates cost; without gradients.

    Each is run once on a part of the picture, then counted, and then timed in turns, so that all meet the
    same load. The two that have masks, pruned and dense, are seen to return the same: in float32, TF32 left
    out, whatever is timed, so that nothing differs but the order of sums.

    Args:
        candidates: on the picture's device.
        blurry: (1, 3, H, W), RGB in [0, 1].
        mask: (1, 1, H, W), 1 = blurred; needed where candidates have masks.
        precision: "32-true" or "bf16-mixed", of what is timed.
        turns: how many; None: as many as fit into two minutes with all that comes before.

    Raises:
        MachineError: the picture would take more main memory than there is.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[what]}"))
    with Progress(*columns, TimeElapsedColumn()) as progress:
        bar = progress.add_task("profiling", total=None, what="")

        def show(what: str) -> None:
            progress.update(bar, what=what)

        started = time.perf_counter()
        _prepare(candidates, blurry, mask, show)
        pruned = _count(candidates, blurry, mask, show)
        comparison = None
        is_exact = blurry.device.type == "cpu" and precision == "32-true"
        for candidate in candidates:
            if candidate.pruning == "dense" and not is_exact:
                show("comparing pruned and dense")
                with _exact_products():
                    comparison = _compared(candidate, candidate.restore(blurry, mask), pruned, blurry, mask)
        spent = time.perf_counter() - started
        progress.update(bar, completed=0, total=None if turns is None else turns * len(candidates))
        number = 0
        with _precision(precision, blurry.device):
            while turns is None or number < turns:
                # Each begins a turn in its turn: whatever the first place costs or gives, all have it.
                for place in range(len(candidates)):
                    candidate = candidates[(place + number) % len(candidates)]
                    total = "" if turns is None else f" of {turns}"
                    show(f"timing {candidate.name}, pass {number + 1}{total}")
                    picture, took = measured(partial(candidate.restore, blurry, mask), blurry.device)
                    candidate.passes.append(took)
                    if candidate.pruning == "dense" and comparison is None:
                        comparison = _compared(candidate, picture, pruned, blurry, mask)
                    progress.update(bar, advance=1)
                number += 1
                if turns is None:
                    a_turn = sum(candidate.seconds[-1] for candidate in candidates)
                    turns = _turns_that_fit(a_turn, _PATIENCE_S - spent)
                    progress.update(bar, total=turns * len(candidates))
        show("done")
    return comparison


def _prepare(
    candidates: Sequence[Candidate],
    blurry: Tensor,
    mask: Tensor | None,
    show: Callable[[str], None],
) -> None:
    """Run each once on a small part of the picture, so that nothing is measured that happens only once.

    Raises:
        MachineError: by what that takes, the whole picture would take more main memory than there is.
    """
    small = blurry[..., :_SMALL_PX, :_SMALL_PX]
    part = None if mask is None else mask[..., :_SMALL_PX, :_SMALL_PX]
    expected = 0.0
    for candidate in candidates:
        show(f"preparing {candidate.name}")
        candidate.restore(small, part)
        if blurry.device.type == "cpu" and small.shape != blurry.shape:
            _, took = measured(partial(candidate.restore, small, part), blurry.device)
            part_bytes = _SPARED * (took.peak_bytes or 0)
            expected = max(expected, part_bytes * blurry.numel() / small.numel())
    available = available_bytes()
    if available is not None and expected > available:
        size = f"{blurry.shape[3]}x{blurry.shape[2]}"
        raise MachineError(
            f"size={size}: about {amount(expected)} of main memory would be needed, and {amount(available)} "
            "are free: try a smaller size="
        )


def _turns_that_fit(a_turn_s: float, left_s: float) -> int:
    return max(_FEWEST, min(_MOST, int(left_s / max(a_turn_s, 1e-9))))


def _count(
    candidates: Sequence[Candidate], blurry: Tensor, mask: Tensor | None, show: Callable[[str], None]
) -> Tensor | None:
    """Count what each does; return the picture that the pruned one makes, if there is one."""
    pruned = None
    for candidate in candidates:
        show(f"counting {candidate.name}")
        if candidate.pruning == "pruned":
            # What is left out depends on the mask's numbers.
            with _exact_products():
                pruned, candidate.multiply_adds = counted(partial(candidate.restore, blurry, mask))
            continue
        candidate.parts = counted_parts(candidate.net, blurry)
        if candidate.parts:
            candidate.multiply_adds = summed(candidate.parts)
        else:
            candidate.multiply_adds = _counted_without_numbers(candidate, blurry, mask)
    return pruned


def _compared(
    dense: Candidate, picture: Tensor, pruned: Tensor | None, blurry: Tensor, mask: Tensor | None
) -> Comparison:
    """See that a net returns the same pruned and dense.

    Raises:
        AssertionError: it does not, by more than `TOLERANCE`.
    """
    assert pruned is not None, "what is run dense is run pruned as well"
    assert mask is not None, "what has masks is given one"
    assert isinstance(dense.net, M2AENet), "other nets have no masks"
    change = float((picture - blurry).abs().max())
    difference = float((picture - pruned).abs().max()) / max(change, 1e-12)
    assert difference < TOLERANCE, f"pruned and dense differ by {difference:.1e} of the largest change"
    return Comparison(*_shares(dense.net, mask), difference)


def _shares(net: M2AENet, mask: Tensor) -> tuple[float, float]:
    """What a mask selects at the stages with predictors, of the padded picture as the net sees it."""
    padded = net.pad(mask)
    selected = dilated = pixels = 0.0
    for stage in map(int, net.mask_predictors):
        seen = (F.avg_pool2d(padded, 2 ** (stage - 1)) > 0.5).float()
        selected += float(seen.sum())
        dilated += float(dilate(seen).sum())
        pixels += seen.numel()
    return selected / pixels, dilated / pixels


def _counted_without_numbers(candidate: Candidate, blurry: Tensor, mask: Tensor | None) -> dict[str, int]:
    """Count what follows from the size of the picture alone: all but what is pruned.

    PyTorch's "meta" device runs the same operations without their numbers, in no time. A net of somebody's
    own that cannot do without is run as it is.
    """
    try:
        shadow = Candidate(candidate.name, copy.deepcopy(candidate.net).to("meta"), candidate.pruning)
        sizes = torch.empty_like(blurry, device="meta"), None if mask is None else mask.to("meta")
        _, multiply_adds = counted(partial(shadow.restore, *sizes))
    except (RuntimeError, TypeError):  # PyTorch's, where numbers are asked for; if it is real it comes again
        _, multiply_adds = counted(partial(candidate.restore, blurry, mask))
    return multiply_adds


@contextmanager
def _exact_products() -> Iterator[None]:
    """Let a GPU's convolutions and matrix products have all digits of float32."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products


@contextmanager
def _precision(name: str, device: torch.device) -> Iterator[None]:
    with torch.autocast(device.type, torch.bfloat16, enabled=name == "bf16-mixed"):
        yield
