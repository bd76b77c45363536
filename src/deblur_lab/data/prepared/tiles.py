"""Tiles: the decoded pictures of one pair in one file, of which a patch is read without the rest.

A PNG is decoded whole for a patch that is a fiftieth of it. Here the bytes of a patch are mapped into memory
and copied: the blurry and the sharp picture are stored uncompressed, cut into squares of `TILE_PX` pixels, so
that a patch lies in a few pieces and not in each of its rows.

The file, all numbers little-endian:

- 16 bytes `MAGIC`; three uint32: the version, the header's length in bytes, and its CRC-32.
- The header, JSON: name, width and height of the pair; the tile's side; of each source file the path below
  the dataset's folder, the size in bytes and the time of its last change; the SHA-256 hash of the decoded
  content; how many pixels are blurred; where each section begins, counted from the body's first byte.
- The body, from the next multiple of 4096 on. With a mask: for each row how many pixels are blurred in it and
  above, uint32; then the mask, a bit a pixel, each row from a byte of its own, by which the place of the k-th
  blurred pixel is found and a patch of it read. From the next multiple of 4096 on the tiles, row by row, each
  the blurry and then the sharp tile, (TILE_PX, TILE_PX, 3) uint8; what is beyond the picture is zero.
"""

import contextlib
import hashlib
import json
import mmap
import os
import secrets
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deblur_lab.data.transforms import BlurredPixels, Corner
from deblur_lab.errors import DataError, MachineError
from deblur_lab.images import quoted
from deblur_lab.writing import flush_folder, unwritable

MAGIC = b"deblur_lab tiles"
VERSION = 1
TILE_PX = 64
SUFFIX = ".tiles"

_ALIGNED_BYTES = 4096
_FIXED = struct.Struct("<16sIII")
_LONGEST_HEADER_BYTES = 1 << 20
_CHANNELS = 3
_TILE_BYTES = TILE_PX * TILE_PX * _CHANNELS


class TilesError(DataError):
    """A file of tiles that cannot be used; one line that begins with its path."""


@dataclass(frozen=True)
class SourceStamp:
    """A file that a pair was read from, as it was then.

    Attributes:
        path: Below the dataset's folder, with slashes.
        size_bytes: Its size.
        mtime_ns: When it was last changed, in nanoseconds.
    """

    path: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Tiles:
    """What the header of a file of tiles says; its content is read by `open`.

    Attributes:
        path: The file.
        name: The pair's.
        height: In pixels.
        width: In pixels.
        sources: Of the blurry picture, the sharp one, and the mask if there is one.
        content_hash: Of the decoded content, see `content_hash`.
        blurred: How many pixels the mask shows as blurred; None where there is no mask.
        body: Where the body begins, in bytes.
        file_bytes: The file's size.
        mtime_ns: When it was last changed, by which a change during a run is noticed.
    """

    path: Path
    name: str
    height: int
    width: int
    sources: tuple[SourceStamp, ...]
    content_hash: str
    blurred: int | None
    body: int
    file_bytes: int
    mtime_ns: int

    def open(self, *, blurred_all_over: bool = False) -> "TiledScene":
        """Map the file.

        Args:
            blurred_all_over: See `sources.PictureScenes`.

        Raises:
            TilesError: It cannot be read, or is not as it was when its header was read.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            try:
                state = os.fstat(descriptor)
                # Also because to touch what is mapped beyond a file's end kills a process.
                if (state.st_size, state.st_mtime_ns) != (self.file_bytes, self.mtime_ns):
                    raise TilesError(
                        f"{quoted(self.path)} was changed while the run went on: start anew, or go on with "
                        "resume="
                    )
                mapped = mmap.mmap(descriptor, self.file_bytes, access=mmap.ACCESS_READ)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise TilesError(f"{quoted(self.path)} cannot be read: {error.strerror or error}") from error
        return TiledScene(self, mapped, blurred_all_over=blurred_all_over)


class TiledScene:
    """A pair whose patches are read from a mapped file; see `views.SceneView`.

    Args:
        tiles: Of the file.
        mapped: All of the file.
        blurred_all_over: See `sources.PictureScenes`.
    """

    def __init__(self, tiles: Tiles, mapped: mmap.mmap, *, blurred_all_over: bool = False) -> None:
        self.name = tiles.name
        self.size = (tiles.height, tiles.width)
        self._tiles = tiles
        self._mapped = mapped
        self._sections = _Sections(tiles.height, tiles.width, has_mask=tiles.blurred is not None)
        shape = (*self._sections.grid, 2, TILE_PX, TILE_PX * _CHANNELS)
        first = tiles.body + self._sections.tiles
        count = self._sections.grid[0] * self._sections.grid[1] * 2 * _TILE_BYTES
        self._grid = np.frombuffer(mapped, np.uint8, count, first).reshape(shape)
        self._first = first
        self.blurred: BlurredPixels | None = None
        self._mask: _MappedMask | None = None
        if tiles.blurred is not None:
            self._mask = _MappedMask(tiles, mapped, self._sections, tiles.blurred)
            self.blurred = self._mask
        elif blurred_all_over:
            self.blurred = _AllOver(self.size)

    def crop(self, corner: Corner, patch_size: int) -> list[NDArray[np.uint8]]:
        """A patch of the blurry picture, of the sharp one and of the mask; see `views.SceneView`."""
        if self._mask is not None:
            self._mask.want(corner, patch_size)
        pictures = self._cut(corner, (patch_size, patch_size))
        if self._mask is None:
            return [*pictures, np.ones((patch_size, patch_size), np.uint8)]
        return [*pictures, self._mask.crop(corner, patch_size)]

    def content_hash(self) -> str:
        """The hash of what the file holds, read whole; equals `Tiles.content_hash` where it is sound."""
        blurry, sharp = self._cut((0, 0), self.size)
        return content_hash(blurry, sharp, None if self._mask is None else self._mask.whole())

    def _cut(self, corner: Corner, size: tuple[int, int]) -> list[NDArray[np.uint8]]:
        (top, left), (height, width) = corner, size
        rows = slice(top // TILE_PX, -(-(top + height) // TILE_PX))
        columns = slice(left // TILE_PX, -(-(left + width) // TILE_PX))
        record = 2 * _TILE_BYTES
        for row in range(rows.start, rows.stop):
            start = self._first + (row * self._grid.shape[1] + columns.start) * record
            _want(self._mapped, start, start + (columns.stop - columns.start) * record)
        touched = self._grid[rows, columns]
        # (rows, columns, picture, y, x and channel) to (picture, rows and y, columns, x and channel): a copy
        whole = touched.transpose(2, 0, 3, 1, 4).reshape(2, touched.shape[0] * TILE_PX, -1)
        y, x = top - rows.start * TILE_PX, (left - columns.start * TILE_PX) * _CHANNELS
        return [
            picture[y : y + height, x : x + width * _CHANNELS].reshape(height, width, _CHANNELS)
            for picture in whole
        ]


def _want(mapped: mmap.mmap, start: int, stop: int) -> None:
    """Let the disk begin to read a part of a file that is about to be touched.

    Without that it would be read page after page, each waited for by itself.
    """
    aligned = start // mmap.PAGESIZE * mmap.PAGESIZE
    if hasattr(mapped, "madvise"):
        with contextlib.suppress(OSError):  # it is a hint
            mapped.madvise(mmap.MADV_WILLNEED, aligned, stop - aligned)


def content_hash(blurry: NDArray[np.uint8], sharp: NDArray[np.uint8], mask: NDArray[np.uint8] | None) -> str:
    """The SHA-256 hash, in hexadecimal, of a pair's size and decoded content.

    Args:
        blurry: (H, W, 3) uint8.
        sharp: (H, W, 3) uint8.
        mask: (H, W) uint8 in {0, 1}; None where there is none.
    """
    digest = hashlib.sha256()
    digest.update(struct.pack("<II?", *blurry.shape[:2], mask is not None))
    for part in (blurry, sharp, mask):
        if part is not None:
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def file_bytes(height: int, width: int, *, has_mask: bool) -> int:
    """The size of the file of tiles of a pair, for a header as long as they are."""
    sections = _Sections(height, width, has_mask=has_mask)
    return _ALIGNED_BYTES + sections.end


def write_tiles(
    path: Path,
    name: str,
    blurry: NDArray[np.uint8],
    sharp: NDArray[np.uint8],
    mask: NDArray[np.uint8] | None,
    sources: tuple[SourceStamp, ...],
) -> int:
    """Write a pair's file, whole or not at all; it takes its name when it has been read back from the disk.

    Args:
        path: Of the file, in a folder that exists; an older one is replaced.
        name: The pair's.
        blurry: (H, W, 3) uint8.
        sharp: (H, W, 3) uint8.
        mask: (H, W) uint8 in {0, 1}; None where there is none.
        sources: What they were read from, in this order.

    Returns:
        The size of the file in bytes.

    Raises:
        MachineError: It cannot be written, or what was read back is not what was written.
    """
    height, width = blurry.shape[:2]
    sections = _Sections(height, width, has_mask=mask is not None)
    header = _header(name, sections, sources, content_hash(blurry, sharp, mask), mask)
    unfinished = path.parent / f".{os.getpid()}-{secrets.token_hex(4)}.tmp"  # as `images.files` takes away
    body = _aligned(_FIXED.size + len(header))
    try:
        try:
            with unfinished.open("xb") as file:
                file.write(_FIXED.pack(MAGIC, VERSION, len(header), zlib.crc32(header)) + header)
                if mask is not None:
                    file.seek(body)
                    file.write(np.cumsum(np.count_nonzero(mask, axis=1)).astype("<u4").tobytes())
                    file.write(np.packbits(mask, axis=1).tobytes())
                file.seek(body + sections.tiles)
                file.write(_tiled(blurry, sharp, sections.grid))
                file.flush()
                os.fsync(file.fileno())
                if hasattr(os, "posix_fadvise"):
                    # Or what is read back would be what is still in memory, whatever the disk holds.
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            _require_sound(read_header(unfinished), path)
            os.replace(unfinished, path)
            flush_folder(path.parent)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error, body + sections.end) from error
    return body + sections.end


def read_header(path: Path) -> Tiles:
    """What a file of tiles says of itself, of a file that is as long as it should be.

    Raises:
        FileNotFoundError: There is no such file.
        TilesError: It is no file of tiles, one of another version, damaged or cut off.
    """
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            start = file.read(_FIXED.size)
            if len(start) < _FIXED.size or not start.startswith(MAGIC):
                raise TilesError(f"{quoted(path)} is no file of tiles")
            _, version, length, checksum = _FIXED.unpack(start)
            if version != VERSION:
                raise TilesError(f"{quoted(path)} is of version {version} of the tiles, not {VERSION}")
            header = file.read(min(length, _LONGEST_HEADER_BYTES))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise TilesError(f"{quoted(path)} cannot be read: {error.strerror or error}") from error
    if len(header) != length or zlib.crc32(header) != checksum:
        raise TilesError(f"{quoted(path)} is damaged: its header is not whole")
    told = json.loads(header)
    body = _aligned(_FIXED.size + length)
    sections = _Sections(told["height"], told["width"], has_mask=told["blurred"] is not None)
    if state.st_size != body + sections.end:
        raise TilesError(
            f"{quoted(path)} is damaged: it has {state.st_size} bytes and should have {body + sections.end}"
        )
    return Tiles(
        path,
        told["name"],
        told["height"],
        told["width"],
        tuple(SourceStamp(**source) for source in told["sources"]),
        told["content_hash"],
        told["blurred"],
        body,
        state.st_size,
        state.st_mtime_ns,
    )


def is_sound(tiles: Tiles) -> bool:
    """Whether the content of a file has the hash that its header says; reads all of it."""
    return tiles.open().content_hash() == tiles.content_hash


@dataclass(frozen=True)
class _Sections:
    """Where the sections of a body begin, in bytes from its first.

    Attributes:
        height: Of the pictures in pixels.
        width: Of the pictures in pixels.
        has_mask: Whether there is a mask.
    """

    height: int
    width: int
    has_mask: bool

    @property
    def grid(self) -> tuple[int, int]:
        """How many tiles there are, up to down and left to right."""
        return -(-self.height // TILE_PX), -(-self.width // TILE_PX)

    @property
    def row_bytes(self) -> int:
        """Of the mask."""
        return -(-self.width // 8)

    @property
    def mask_rows(self) -> int:
        """Where the mask's bits begin; the rows' sums begin at 0."""
        return 4 * self.height

    @property
    def tiles(self) -> int:
        """Where the tiles begin."""
        return _aligned(self.mask_rows + self.height * self.row_bytes) if self.has_mask else 0

    @property
    def end(self) -> int:
        """Where the file ends."""
        return self.tiles + self.grid[0] * self.grid[1] * 2 * _TILE_BYTES


class _MappedMask:
    """The mask in a mapped file; see `transforms.BlurredPixels`."""

    def __init__(self, tiles: Tiles, mapped: mmap.mmap, sections: _Sections, count: int) -> None:
        self.size = (sections.height, sections.width)
        self.count = count
        self._path = tiles.path
        self._sums = np.frombuffer(mapped, "<u4", sections.height, tiles.body)
        self._mapped = mapped
        self._first = tiles.body + sections.mask_rows
        self._rows = np.frombuffer(
            mapped, np.uint8, sections.height * sections.row_bytes, self._first
        ).reshape(sections.height, sections.row_bytes)

    def place(self, number: int) -> tuple[int, int]:
        """The row and column of a blurred pixel; reads its row alone."""
        row = int(np.searchsorted(self._sums, number, side="right"))
        above = int(self._sums[row - 1]) if row else 0
        columns = np.flatnonzero(np.unpackbits(self._rows[row])) if row < self.size[0] else np.empty(0, int)
        if number - above >= len(columns):
            raise TilesError(f"{quoted(self._path)} is damaged: its mask is not what its header says")
        return row, int(columns[number - above])

    def want(self, corner: Corner, patch_size: int) -> None:
        """Let the disk begin to read what a patch needs."""
        start = self._first + corner[0] * self._rows.shape[1]
        _want(self._mapped, start, start + patch_size * self._rows.shape[1])

    def crop(self, corner: Corner, patch_size: int) -> NDArray[np.uint8]:
        """A patch, (P, P) uint8 in {0, 1}."""
        top, left = corner
        first = left // 8
        bits = self._rows[top : top + patch_size, first : -(-(left + patch_size) // 8)]
        patch: NDArray[np.uint8] = np.unpackbits(bits, axis=1)[:, left - 8 * first :][:, :patch_size]
        return patch

    def whole(self) -> NDArray[np.uint8]:
        """All of it, (H, W) uint8 in {0, 1}."""
        return np.unpackbits(self._rows, axis=1, count=self.size[1])


@dataclass(frozen=True)
class _AllOver:
    """Every pixel of a picture; see `transforms.BlurredPixels`."""

    size: tuple[int, int]

    @property
    def count(self) -> int:
        """How many they are."""
        return self.size[0] * self.size[1]

    def place(self, number: int) -> tuple[int, int]:
        """The row and column of a pixel."""
        row, column = divmod(number, self.size[1])
        return row, column


def _header(
    name: str,
    sections: _Sections,
    sources: tuple[SourceStamp, ...],
    hashed: str,
    mask: NDArray[np.uint8] | None,
) -> bytes:
    offsets: Mapping[str, int | None] = {
        "row_sums": 0 if sections.has_mask else None,
        "mask_rows": sections.mask_rows if sections.has_mask else None,
        "tiles": sections.tiles,
    }
    told: dict[str, Any] = {
        "name": name,
        "height": sections.height,
        "width": sections.width,
        "tile_px": TILE_PX,
        "sources": [vars(source) for source in sources],
        "content_hash": hashed,
        "blurred": None if mask is None else int(np.count_nonzero(mask)),
        "sections": offsets,
    }
    return json.dumps(told).encode("ascii")


def _tiled(blurry: NDArray[np.uint8], sharp: NDArray[np.uint8], grid: tuple[int, int]) -> memoryview:
    """Both pictures as they lie in a file."""
    height, width = blurry.shape[:2]
    padded = np.zeros((2, grid[0] * TILE_PX, grid[1] * TILE_PX, _CHANNELS), np.uint8)
    padded[0, :height, :width], padded[1, :height, :width] = blurry, sharp
    split = padded.reshape(2, grid[0], TILE_PX, grid[1], TILE_PX * _CHANNELS)
    return np.ascontiguousarray(split.transpose(1, 3, 0, 2, 4)).data


def _require_sound(tiles: Tiles, path: Path) -> None:
    if not is_sound(tiles):
        raise MachineError(
            f"{quoted(path)}: what the disk gave back is not what was written: look after the disk"
        )


def _aligned(count: int) -> int:
    return -(-count // _ALIGNED_BYTES) * _ALIGNED_BYTES
