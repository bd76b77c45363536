"""Restores pictures of any size with a net, in tiles where they are large, in the memory that there is."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from deblur_lab.errors import ConfigurationError, DivergedError, MachineError
from deblur_lab.images.tensors import to_levels, to_tensor
from deblur_lab.images.tiles import restored_rows, sample_windows
from deblur_lab.inside import Insight, Kept, insight, look_inside
from deblur_lab.machine import out_of_memory, peak_memory
from deblur_lab.models import AIBNet, M2AENet
from deblur_lab.models.channel_attention import ChannelLogits
from deblur_lab.models.decoupler import Decoupler
from deblur_lab.models.layers import AveragePool, HasConverter
from deblur_lab.restorations import Explaining, Restoration, restore

SMALLEST_TILE_PX = 64
"""Tiles that do not fit into memory are halved as long as they stay as large as this."""

EXPLAINED_PX = 1600
"""What a net says of a picture that is longer than this on a side is kept reduced by a whole factor."""

_SAMPLINGS = 2

Pixels = NDArray[Any]
Progress = Callable[[float], None]


class Explained(NamedTuple):
    """What a net says of a picture.

    Attributes:
        pixels: (H, W, 3), restored, of the type that came in.
        probability: (1, h, w) float32 on the CPU, that a pixel is blurred; None if the net does not say.
        motion: (N, 2, h, w) float32 on the CPU, displacements over the exposure in px of the whole picture,
            x then y; None likewise.
        reduction: The whole factor by which h and w are smaller than H and W (rounded up).
        insight: What its sub-decoders did, in maps of (h, w), on the CPU; None of a net without.
    """

    pixels: Pixels
    probability: Tensor | None
    motion: Tensor | None
    reduction: int
    insight: Insight | None = None


class Restorer:
    """A net that restores pictures of any size.

    A picture that is longer than `tile_px` on a side is restored in tiles. Two things make that the same as
    if it were restored at once, but for what a net sees around a tile's border, which lies in the overlap:

    - Tiles begin on the grid on which nets that halve the resolution work (`deblur_lab.images.tiles`).
    - Where a net averages over the whole picture, a tile alone would give it another average. So the net
      first looks at a sample of the picture, the middle quarter of each tile's place, twice: the second time
      with the averages that it found the first time. It is given those of the second time in all tiles. That
      takes about half as long again. Averages taken by `AveragePool` or `torch.nn.AdaptiveAvgPool2d(1)` are
      found, and so are the sums that AIBNet's attentions between channels are made of, which differ more
      from what they would be, and the filters of its Decoupler. With the test-time local converter, pools
      average over no whole picture.

    Where a tile does not fit into memory, tiles of half its side are tried, and kept for what follows.

    Args:
        net: Images in, restored images out; put into eval mode while it restores.
        device: Where it lies.
        tile_px: Side of a tile.
        overlap_px: By how much neighbouring tiles overlap at least; less than half of `tile_px`.
        say: Told in one line that tiles became smaller.

    Attributes:
        tile_px, overlap_px: As given, or smaller since a tile did not fit.

    Raises:
        ConfigurationError: `tile_px` or `overlap_px` are out of range.
    """

    def __init__(
        self,
        net: nn.Module,
        device: torch.device,
        *,
        tile_px: int = 1024,
        overlap_px: int = 128,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        if tile_px < 1 or not 0 <= 2 * overlap_px < tile_px:
            raise ConfigurationError(
                f"tile_px={tile_px}, overlap_px={overlap_px}: tiles of over twice the overlap are expected"
            )
        self.net = net
        self.device = device
        self.tile_px = tile_px
        self.overlap_px = overlap_px
        self.say = say

    def restore(self, pixels: Pixels, progress: Progress = lambda share: None) -> Pixels:
        """Restore a picture.

        Args:
            pixels: (H, W, 3) uint8 or uint16, RGB.
            progress: Told the share that is done, in [0, 1], after each tile.

        Returns:
            The same size and type.

        Raises:
            DivergedError: The net returns values that are not finite.
            MachineError: Not even the smallest tile fits into memory.
        """
        restored = np.empty(pixels.shape, pixels.dtype)

        def keep(rows: slice, values: Tensor) -> None:
            restored[rows] = to_levels(values[0], pixels.dtype)

        self._restore(
            lambda rows, columns: to_tensor(pixels[rows, columns])[None], pixels.shape[:2], keep, progress
        )
        return restored

    def restore_tensor(self, blurry: Tensor) -> Tensor:
        """Restore one picture.

        Args:
            blurry: (1, 3, H, W) float in [0, 1], on any device.

        Returns:
            The same size, type and device, clamped to [0, 1].

        Raises:
            DivergedError, MachineError: As `restore`.
        """
        restored = torch.empty_like(blurry, requires_grad=False)

        def keep(rows: slice, values: Tensor) -> None:
            restored[..., rows, :] = values.clamp(0, 1).to(blurry.device, blurry.dtype)

        self._restore(
            lambda rows, columns: blurry[..., rows, columns].detach().to(self.device, torch.float32),
            (blurry.shape[-2], blurry.shape[-1]),
            keep,
        )
        return restored

    def explain(self, pixels: Pixels, progress: Progress = lambda share: None) -> Explained:
        """Restore a picture, and tell what the net says of it: where it sees blur, which motion, what it did.

        Args:
            pixels: As for `restore`.
            progress: As for `restore`.

        Raises:
            DivergedError, MachineError: As `restore`.
        """
        height, width = pixels.shape[:2]
        reduction = -(-max(height, width) // EXPLAINED_PX)
        restored = np.empty(pixels.shape, pixels.dtype)
        maps: Tensor | None = None
        parts: list[int] = [0, 0]  # channels of the probability, and of the motion
        kept = _Shares()

        def say_all(tile: Tensor) -> Tensor:
            # What the network says is laid out as further channels, so that tiles are blended in it too.
            if isinstance(self.net, AIBNet):
                look = look_inside(self.net, tile)
                kept.add(look.kept, tile.shape[-2] * tile.shape[-1])
                return torch.cat([look.restored.float(), look.planes], dim=1)
            said: Restoration = restore(self.net, tile)
            more = [said.probability, None if said.motion is None else said.motion.flatten(1, 2)]
            parts[:] = [0 if part is None else part.shape[1] for part in more]
            return torch.cat([part.float() for part in (said.restored, *more) if part is not None], dim=1)

        def keep(rows: slice, values: Tensor) -> None:
            nonlocal maps
            restored[rows] = to_levels(values[0, :3], pixels.dtype)
            if rows.start == 0:
                size = (-(-height // reduction), -(-width // reduction))
                maps = torch.zeros(values.shape[1] - 3, *size)
            assert maps is not None, "rows come from the top"
            _add_reduced(maps, values[0, 3:], rows, reduction)

        self._restore(
            lambda rows, columns: to_tensor(pixels[rows, columns])[None],
            (height, width),
            keep,
            progress,
            say_all,
        )
        assert maps is not None, "there is at least one row"
        _divide_by_counts(maps, height, width, reduction)
        of_probability, of_motion = parts
        if isinstance(self.net, AIBNet):
            last = torch.zeros(3, *maps.shape[1:])
            _add_reduced(last, to_tensor(restored), slice(0, height), reduction)
            _divide_by_counts(last, height, width, reduction)
            seen = insight(self.net, last, maps, kept.means())
            return Explained(restored, None, None, reduction, seen)
        return Explained(
            restored,
            maps[:of_probability] if of_probability else None,
            torch.unflatten(maps[of_probability:], 0, (of_motion // 2, 2)) if of_motion else None,
            reduction,
        )

    def _restore(
        self,
        tile_of: Callable[[slice, slice], Tensor],
        size: tuple[int, ...],
        keep: Callable[[slice, Tensor], None],
        progress: Progress = lambda share: None,
        run: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Restore in tiles that fit, and hand over finished rows; from the top again with smaller tiles."""
        height, width = size
        run = run or cast(Callable[[Tensor], Tensor], self.net)
        given = self.tile_px
        with torch.no_grad(), _in_eval_mode(self.net):
            while not _fits(lambda: self._restore_in_tiles(tile_of, (height, width), keep, progress, run)):
                gc.collect()
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                self._halve(max(height, width))
        if self.tile_px < given:
            self.say(
                f"tiles of {min(given, max(height, width))} px do not fit into memory: "
                f"from here on they are {self.tile_px} px, with overlap_px={self.overlap_px}"
            )

    def _restore_in_tiles(
        self,
        tile_of: Callable[[slice, slice], Tensor],
        size: tuple[int, int],
        keep: Callable[[slice, Tensor], None],
        progress: Progress,
        run: Callable[[Tensor], Tensor],
    ) -> None:
        averages = _Averages(self.net)
        sampled = 0.0

        def restored(rows: slice, columns: slice) -> Tensor:
            pixels = (rows.stop - rows.start) * (columns.stop - columns.start)
            with averages.exchanged(pixels / (size[0] * size[1])):
                return run(tile_of(rows, columns).to(self.device)).float().cpu()

        if max(size) > self.tile_px and averages.any:
            windows = sample_windows(size, self.tile_px)
            sampled = 1 / 3  # of the time; each of them is a quarter of a tile
            for number, (rows, columns) in enumerate(windows * _SAMPLINGS, start=1):
                restored(rows, columns)
                averages.weigh((rows.stop - rows.start) * (columns.stop - columns.start))
                if number % len(windows) == 0:
                    averages.settle()
                progress(sampled * number / (_SAMPLINGS * len(windows)))
        finished = restored_rows(
            restored,
            size,
            tile_px=self.tile_px,
            overlap_px=self.overlap_px,
            progress=lambda done, total: progress(sampled + (1 - sampled) * done / total),
        )
        for rows, values in finished:
            # One value that is not finite makes the sum so; it costs a fraction of asking each.
            if not bool(values.sum().isfinite()):
                raise DivergedError("what the network makes of it is not finite: its weights are damaged")
            keep(rows, values)

    def _halve(self, longest_px: int) -> None:
        """Go on with tiles of half the side.

        Raises:
            MachineError: They would be smaller than `SMALLEST_TILE_PX`.
        """
        tried_px = min(self.tile_px, longest_px)
        half_px = tried_px // 2
        if half_px < SMALLEST_TILE_PX:
            raise MachineError(
                f"out of memory: a tile of {tried_px} px does not fit; at most {peak_memory(self.device)} "
                "was used: end what else needs memory here, or use another machine or device"
            )
        self.overlap_px = self.overlap_px * half_px // self.tile_px
        self.tile_px = half_px


def _fits(attempt: Callable[[], None]) -> bool:
    """Whether memory was enough. When this returns, nothing refers to what the attempt has held."""
    try:
        attempt()
    except Exception as error:
        if not out_of_memory(error):
            raise
        return False
    return True


class _Shares:
    """Means of what masks keep, over tiles, each weighing as much as it has pixels."""

    def __init__(self) -> None:
        self._sums: list[list[Tensor | None]] = []
        self._pixels = 0

    def add(self, kept: Kept, pixels: int) -> None:
        """Add those of a tile, of one picture."""
        weighed = [[None if one is None else one[0].cpu() * pixels for one in scales] for scales in kept]
        sums = self._sums or [[None] * len(scales) for scales in weighed]
        self._sums = [
            [one if total is None or one is None else total + one for total, one in zip(*both, strict=True)]
            for both in zip(sums, weighed, strict=True)
        ]
        self._pixels += pixels

    def means(self) -> Kept:
        """Over all that was added."""
        return [[None if one is None else one / self._pixels for one in scales] for scales in self._sums]


class _Averages:
    """The averages that a net takes over the whole picture, of which a tile knows its own part alone.

    So are the sums over all pixels that attention between channels is made of; they grow with the picture,
    and those of a tile are extrapolated.
    """

    def __init__(self, net: nn.Module) -> None:
        self._pools = [module for module in net.modules() if _averages_all(module)]
        # Of the averages that a Decoupler takes by itself, it makes the same map whatever they are.
        self._pools += [module.conv for module in net.modules() if isinstance(module, Decoupler)]
        self._share = 1.0  # of the picture's pixels, in this pass through the net
        self._heard: list[Tensor] = []  # in this pass through the net, in order
        self._sums: list[Tensor] = []
        self._weight = 0
        self._told: list[Tensor] | None = None

    @property
    def any(self) -> bool:
        """Whether there are such averages."""
        return bool(self._pools)

    @contextmanager
    def exchanged(self, share: float) -> Iterator[None]:
        """In one pass through the net, listen to its averages, and tell it those of the whole if known.

        Args:
            share: of the picture's pixels that the net is given.
        """
        self._heard, self._share = [], share
        hooks = [pool.register_forward_hook(self._exchange) for pool in self._pools]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def weigh(self, weight: int) -> None:
        """Add what was heard in the last pass to the sums."""
        values = [value.double() if value.dtype == torch.float64 else value.float() for value in self._heard]
        if self._sums:
            assert len(values) == len(self._sums), "a net takes the same averages of each tile"
            for total, value in zip(self._sums, values, strict=True):
                total += weight * value
        else:
            self._sums = [weight * value for value in values]
        self._weight += weight

    def settle(self) -> None:
        """Tell the net from now on what was summed up, and begin to sum anew."""
        self._told = [total / self._weight for total in self._sums]
        self._sums, self._weight = [], 0

    def _exchange(self, module: nn.Module, inputs: tuple[Any, ...], average: Tensor) -> Tensor | None:
        if isinstance(module, ChannelLogits):
            if not module.normalize:
                average = average / self._share
            self._heard.append(average.detach())
            return average if self._told is None else self._told[len(self._heard) - 1].to(average.dtype)
        if average.shape[-2:] != (1, 1):
            return None  # local: of the converter's windows
        self._heard.append(average.detach())
        return None if self._told is None else self._told[len(self._heard) - 1].to(average.dtype)


def _averages_all(module: nn.Module) -> bool:
    if isinstance(module, AveragePool):
        return module.window_px is None
    if isinstance(module, ChannelLogits):
        return True
    return isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1))


@contextmanager
def converter(net: nn.Module, size_px: int | None) -> Iterator[None]:
    """Switch the test-time local converter on, and back to what it was.

    Args:
        net: That has one.
        size_px: The side of the patches that the net was trained on; None: leave everything as it is.

    Raises:
        ConfigurationError: The net has no converter.
    """
    if size_px is None:
        yield
        return
    if not isinstance(net, HasConverter):
        raise ConfigurationError(f"tlc=on: {type(net).__name__} has no test-time local converter")
    before = [(module, module.window_px) for module in net.modules() if isinstance(module, AveragePool)]
    net.set_tlc(size_px)
    try:
        yield
    finally:
        net.set_tlc(None)
        for module, window_px in before:
            module.window_px = window_px


def device_named(name: str) -> torch.device:
    """The device that a setting names; "auto" is a GPU if there is one.

    Raises:
        ConfigurationError: There is no such kind of device.
        MachineError: This machine has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ConfigurationError(f"device={name}: auto, cpu or cuda is expected") from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        kind = "no GPU that PyTorch can use" if device.type == "cuda" else str(error).splitlines()[0]
        raise MachineError(f"device={name} cannot be used here: {kind}: choose device=cpu or auto") from error
    return device


def can_explain(net: nn.Module) -> bool:
    """Whether a net says where it sees blur, how that moved, or what its sub-decoders do.

    An M2AENet without masks and motion does not.
    """
    if isinstance(net, M2AENet):
        return len(net.mask_predictors) + len(net.analyzers) > 0
    return isinstance(net, Explaining | AIBNet)


@contextmanager
def _in_eval_mode(net: nn.Module) -> Iterator[None]:
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _add_reduced(maps: Tensor, values: Tensor, rows: slice, reduction: int) -> None:
    """Add rows of (C, H, W) to sums over squares of `reduction` pixels a side: (C, h, w), in place."""
    width = values.shape[-1]
    columns = torch.unflatten(F.pad(values, (0, -width % reduction)), -1, (-1, reduction)).sum(-1)
    maps.index_add_(1, torch.arange(rows.start, rows.stop) // reduction, columns)


def _divide_by_counts(maps: Tensor, height: int, width: int, reduction: int) -> None:
    """Make means of sums: at the right and the bottom, squares may hold fewer pixels."""
    for dim, length in ((1, height), (2, width)):
        counts = torch.full((maps.shape[dim],), float(reduction))
        counts[-1] = length - reduction * (maps.shape[dim] - 1)
        maps /= counts[:, None] if dim == 1 else counts
