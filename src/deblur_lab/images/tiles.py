"""Large pictures, in overlapping tiles that are blended into each other."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from deblur_lab.errors import ConfigurationError

ALIGNMENT_PX = 64
"""Tiles begin at multiples of this. A net that halves the resolution works on a grid, and a tile that begins
between its points is restored otherwise than the same place of the whole picture, by several levels of
255."""


class Stretch(NamedTuple):
    """What a tile covers along one side of a picture.

    Attributes:
        start: Its first pixel.
        weights: Of its pixels; over all tiles they sum to one at each pixel.
    """

    start: int
    weights: Tensor

    @property
    def pixels(self) -> slice:
        """The pixels of the picture."""
        return slice(self.start, self.start + len(self.weights))


def restore_tiled(
    restore: Callable[[Tensor], Tensor],
    image: Tensor,
    *,
    tile_px: int,
    overlap_px: int,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Restore a large picture in overlapping tiles, as `restored_rows` does.

    Args:
        restore: (B, C, h, w) -> (B, C', h, w).
        image: (B, C, H, W).
        tile_px: The side of a tile; a picture that fits into one is restored at once.
        overlap_px: The width of a seam.
        progress: Called after each tile with the number of tiles done and their total.

    Returns:
        (B, C', H, W).

    Raises:
        ConfigurationError: `tile_px` is not positive, or `overlap_px` not in 0 <= overlap_px < tile_px.
    """
    height, width = image.shape[-2:]
    restored: Tensor | None = None
    dtype = image.dtype

    def tile(rows: slice, columns: slice) -> Tensor:
        nonlocal dtype
        made = restore(image[..., rows, columns])
        dtype = made.dtype
        return made

    finished = restored_rows(tile, (height, width), tile_px=tile_px, overlap_px=overlap_px, progress=progress)
    for rows, values in finished:
        if restored is None:
            restored = values.new_empty((*values.shape[:-2], height, width), dtype=dtype)
        restored[..., rows, :] = values
    assert restored is not None, "there is at least one tile"
    return restored


def restored_rows(
    restore: Callable[[slice, slice], Tensor],
    size: tuple[int, int],
    *,
    tile_px: int,
    overlap_px: int,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[slice, Tensor]]:
    """Restore a picture tile by tile, and hand on its rows as they are finished, from the top to the bottom.

    The tiles are spread evenly and begin at multiples of `ALIGNMENT_PX` (of less where they are small);
    neighbours overlap by `overlap_px` or more. In the middle of an overlap one tile fades into the next over
    `overlap_px` pixels; elsewhere every pixel is one tile's alone. The weights of the tiles sum to one at
    each pixel. No more is held in memory than one row of tiles.

    Args:
        restore: From the rows and the columns of a tile to that tile restored, (..., h, w).
        size: Height and width of the picture.
        tile_px: The side of a tile; a picture that fits into one is restored at once.
        overlap_px: The width of a seam.
        progress: Called after each tile with the number of tiles done and their total.

    Yields:
        Rows, and their restored values, (..., rows, W), in single precision at least.

    Raises:
        ConfigurationError: `tile_px` is not positive, or `overlap_px` not in 0 <= overlap_px < tile_px.
    """
    if tile_px < 1 or not 0 <= overlap_px < tile_px:
        raise ConfigurationError(
            f"tile_px={tile_px} and overlap_px={overlap_px} make no tiles: choose 0 <= overlap_px < tile_px"
        )
    height, width = size
    downwards = _stretches(height, tile_px, overlap_px)
    across = _stretches(width, tile_px, overlap_px)
    total, done = len(downwards) * len(across), 0
    begun: Tensor | None = None  # rows that tiles above have a part in
    for number, rows in enumerate(downwards):
        band: Tensor | None = None
        for columns in across:
            tile = restore(rows.pixels, columns.pixels)
            assert tile.shape[-2:] == (len(rows.weights), len(columns.weights)), "as large as the tile"
            # Summed in single precision at least: in half precision the seams would show.
            wide = torch.promote_types(tile.dtype, torch.float32)
            if total == 1:
                band = tile.to(wide)
            else:
                if band is None:
                    band = tile.new_zeros((*tile.shape[:-1], width), dtype=wide)
                    if begun is not None:
                        band[..., : begun.shape[-2], :] = begun
                        begun = None
                weights = (rows.weights[:, None] * columns.weights).to(tile.device, wide)
                band[..., columns.pixels] += tile * weights
            del tile
            done += 1
            if progress is not None:
                progress(done, total)
        assert band is not None, "there is at least one tile"
        following = downwards[number + 1].start if number + 1 < len(downwards) else height
        count = following - rows.start
        yield slice(rows.start, following), band[..., :count, :]
        begun = band[..., count:, :].clone() if following < height else None
        del band


def sample_windows(size: tuple[int, int], tile_px: int) -> list[tuple[slice, slice]]:
    """Windows that stand for a picture that is restored in tiles: about a quarter of it, evenly spread.

    The picture is divided into equal parts that are no larger than a tile. A window is the middle of a part,
    half as high and wide. All are equally large, so that their means have the same weight.

    Args:
        size: Height and width of the picture.
        tile_px: The side of a tile.

    Returns:
        The rows and the columns of each.
    """
    sides = [_middles(length, tile_px) for length in size]
    return [(rows, columns) for rows in sides[0] for columns in sides[1]]


def _middles(length: int, tile_px: int) -> list[slice]:
    count = -(-length // tile_px)
    part = length / count
    grid = ALIGNMENT_PX
    while grid > max(1, part / 8):
        grid //= 2
    # A net would fill up a window that does not end on its grid, and the filling would count in its means.
    side = max(1, int(part / 2) // grid * grid)
    starts = [round((number * part + (part - side) / 2) / grid) * grid for number in range(count)]
    return [slice(start, start + side) for start in starts]


def _stretches(length: int, tile_px: int, overlap_px: int) -> list[Stretch]:
    """How tiles cover one side of a picture."""
    if length <= tile_px:
        return [Stretch(0, torch.ones(length, dtype=torch.float64))]
    alignment = ALIGNMENT_PX
    while alignment > tile_px - overlap_px:
        alignment //= 2
    last = -(-(length - tile_px) // alignment)
    count = -(-last // ((tile_px - overlap_px) // alignment)) + 1
    starts = [alignment * (index * last // (count - 1)) for index in range(count)]
    ends = [min(start + tile_px, length) for start in starts]
    weights = torch.zeros(count, length, dtype=torch.float64)
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        weights[index, start:end] = 1
    fade = (torch.arange(overlap_px, dtype=torch.float64) + 0.5) / max(overlap_px, 1)
    for index in range(count - 1):
        # The seam is in the middle of the overlap, as a net knows least at the border of a tile.
        seam = starts[index + 1] + (ends[index] - starts[index + 1] - overlap_px) // 2
        weights[index + 1, :seam] = 0
        weights[index + 1, seam : seam + overlap_px] *= fade
        weights[index, seam : seam + overlap_px] *= 1 - fade
        weights[index, seam + overlap_px :] = 0
    # Where tiles are so narrow that seams meet, the products above need not sum to one.
    weights /= weights.sum(dim=0)
    return [
        Stretch(start, weights[index, start:end])
        for index, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]
