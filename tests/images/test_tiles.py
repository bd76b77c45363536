import itertools

import pytest
import torch

from deblur_lab.errors import ConfigurationError
from deblur_lab.images import restore_tiled
from deblur_lab.images.tiles import ALIGNMENT_PX, restored_rows, sample_windows


@pytest.mark.parametrize(
    ("height", "width", "tile_px", "overlap_px"),
    [(40, 57, 16, 4), (33, 32, 32, 16), (50, 50, 7, 6), (20, 90, 24, 0), (1, 50, 8, 3)],
)
def test_nothing_changes_where_nothing_is_done(
    height: int, width: int, tile_px: int, overlap_px: int
) -> None:
    image = torch.rand(1, 3, height, width)
    calls: list[tuple[int, int]] = []
    restored = restore_tiled(
        lambda tile: tile,
        image,
        tile_px=tile_px,
        overlap_px=overlap_px,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert (restored - image).abs().max() <= 1e-6
    assert calls == [(done, len(calls)) for done in range(1, len(calls) + 1)]
    assert len(calls) > 1


def test_small_pictures_are_restored_at_once() -> None:
    seen = []
    image = torch.rand(1, 3, 16, 9)
    assert torch.equal(
        restore_tiled(lambda tile: seen.append(tile.shape) or tile * 2, image, tile_px=16, overlap_px=4),
        image * 2,
    )
    assert seen == [image.shape]


@pytest.mark.parametrize("length", [17, 20, 29, 47, 64, 100])
def test_tiles_are_never_larger_than_asked_and_seams_never_wider(length: int) -> None:
    tile_px, overlap_px = 16, 4
    numbers = itertools.count()
    shapes = []

    def constant(tile: torch.Tensor) -> torch.Tensor:
        shapes.append(tile.shape[-2:])
        return torch.full_like(tile, float(next(numbers)))

    restored = restore_tiled(constant, torch.zeros(1, 1, 5, length), tile_px=tile_px, overlap_px=overlap_px)
    # All but the last are whole; that one may be shorter, as tiles begin on a grid.
    assert set(shapes[:-1]) == {(5, 16)}
    assert 8 < shapes[-1][1] <= 16
    row = restored[0, 0, 0]
    assert torch.equal(restored, row.expand(1, 1, 5, length))
    assert (row.diff() >= 0).all()  # each tile fades into the next
    mixed = [not float(value).is_integer() for value in row]
    widths = [sum(1 for _ in run) for is_mixed, run in itertools.groupby(mixed) if is_mixed]
    assert widths == [overlap_px] * (len(shapes) - 1)
    assert row[0] == 0
    assert row[-1] == len(shapes) - 1


def test_what_a_net_sees_around_a_pixel_is_kept_inside_tiles() -> None:
    kernel = torch.ones(1, 1, 5, 5) / 25

    def blur(tile: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(tile, kernel, padding=2)

    # Tiles of 24 at 0 and 6: the seam of 4 pixels lies 7 pixels inside either, more than the kernel reaches.
    image = torch.rand(1, 1, 30, 30)
    assert (restore_tiled(blur, image, tile_px=24, overlap_px=4) - blur(image)).abs().max() <= 1e-6


def test_half_precision_is_blended_in_single() -> None:
    image = torch.rand(1, 3, 40, 40).to(torch.bfloat16)
    restored = restore_tiled(lambda tile: tile, image, tile_px=16, overlap_px=8)
    assert restored.dtype == torch.bfloat16
    assert torch.equal(restored, image)


@pytest.mark.parametrize(("tile_px", "overlap_px"), [(0, 0), (16, 16), (16, -1), (-4, 0)])
def test_tiles_that_cannot_be_are_refused(tile_px: int, overlap_px: int) -> None:
    with pytest.raises(ConfigurationError, match=f"tile_px={tile_px} and overlap_px={overlap_px}"):
        restore_tiled(lambda tile: tile, torch.zeros(1, 3, 64, 64), tile_px=tile_px, overlap_px=overlap_px)


@pytest.mark.parametrize(
    ("length", "tile_px", "overlap_px"), [(3001, 1024, 128), (1025, 1024, 0), (999, 256, 120)]
)
def test_tiles_begin_on_the_grid_and_are_spread_evenly(length: int, tile_px: int, overlap_px: int) -> None:
    seen = []

    def tile(rows: slice, columns: slice) -> torch.Tensor:
        seen.append(columns)
        return torch.zeros(1, 3, rows.stop - rows.start, columns.stop - columns.start)

    list(restored_rows(tile, (7, length), tile_px=tile_px, overlap_px=overlap_px))
    starts = [columns.start for columns in seen]
    assert all(start % ALIGNMENT_PX == 0 for start in starts)
    assert seen[-1].stop == length
    steps = [after - before for before, after in itertools.pairwise(starts)]
    assert max(steps) <= tile_px - overlap_px
    assert max(steps) - min(steps) <= ALIGNMENT_PX


def test_rows_come_once_each_and_from_the_top() -> None:
    image = torch.rand(1, 3, 300, 210)
    finished = list(
        restored_rows(lambda rows, columns: image[..., rows, columns], (300, 210), tile_px=96, overlap_px=40)
    )
    assert [rows.start for rows, _ in finished] == [0, *(rows.stop for rows, _ in finished[:-1])]
    assert finished[-1][0].stop == 300
    assert len(finished) > 3
    assert (torch.cat([values for _, values in finished], dim=-2) - image).abs().max() <= 1e-6


def test_samples_are_a_quarter_of_the_picture_from_all_over_it() -> None:
    seen = torch.zeros(2000, 3000)
    for rows, columns in sample_windows((2000, 3000), 512):
        assert rows.start % 32 == columns.start % 32 == 0
        seen[rows, columns] += 1
    assert 0.2 < seen.mean() < 0.3
    assert seen.max() == 1
    parts = torch.nn.functional.avg_pool2d(seen[None], (500, 500))
    assert parts.min() > 0.1
    # Neither side is preferred, or a picture that is brighter there would be taken for a brighter one.
    for dim, length in ((1, 2000), (0, 3000)):
        centre = (seen.mean(dim) * (torch.arange(length) + 0.5)).sum() / seen.mean(dim).sum()
        assert abs(centre / length - 0.5) < 0.01
    assert sample_windows((1, 1), 512) == [(slice(0, 1), slice(0, 1))]
    for length in range(1, 400):
        windows = [rows for rows, _ in sample_windows((length, 1), 60)]
        assert all(0 <= rows.start < rows.stop <= length for rows in windows)
        assert len({rows.stop - rows.start for rows in windows}) == 1
