"""Files of tiles: patches to the last bit, places of blurred pixels, and every way to break a file."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deblur_lab.data.prepared.tiles import (
    MAGIC,
    TILE_PX,
    SourceStamp,
    Tiles,
    TilesError,
    content_hash,
    file_bytes,
    is_sound,
    read_header,
    write_tiles,
)
from deblur_lab.data.transforms import MaskPixels
from deblur_lab.errors import MachineError

STAMPS = (SourceStamp("train/a b/ä\udc80.png", 12, 3), SourceStamp("../gt.png", 4, 5))
# Of one tile, exactly two by one, and with a rest in both directions; a width that is no multiple of eight.
SIZES = [(5, 7), (TILE_PX, 2 * TILE_PX), (150, 203), (65, 300)]

Picture = NDArray[np.uint8]


def pair(height: int, width: int, share: float = 0.2) -> tuple[Picture, Picture, Picture]:
    rng = np.random.default_rng([height, width])
    pictures = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    return pictures[0], pictures[1], (rng.random((height, width)) < share).astype(np.uint8)


def written(path: Path, height: int = 150, width: int = 203, *, masked: bool = True) -> Tiles:
    blurry, sharp, mask = pair(height, width)
    write_tiles(path, "s01/00", blurry, sharp, mask if masked else None, STAMPS)
    return read_header(path)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_patch_is_that_of_the_pictures(tmp_path: Path, height: int, width: int, masked: bool) -> None:
    blurry, sharp, mask = pair(height, width)
    scene = written(tmp_path / "a.tiles", height, width, masked=masked).open()
    assert scene.size == (height, width)
    rng = np.random.default_rng(1)
    for _ in range(60):
        side = int(rng.integers(1, min(height, width) + 1))
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        whole = [blurry, sharp, mask if masked else np.ones_like(mask)]
        for patch, picture in zip(scene.crop((top, left), side), whole, strict=True):
            assert patch.dtype == np.uint8
            assert np.array_equal(patch, picture[top : top + side, left : left + side])


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_blurred_pixels_are_found_by_their_number(tmp_path: Path, share: float) -> None:
    blurry, sharp, mask = pair(40, 75, share)
    write_tiles(tmp_path / "a.tiles", "a", blurry, sharp, mask, STAMPS)
    blurred, expected = read_header(tmp_path / "a.tiles").open().blurred, MaskPixels(mask)
    assert blurred is not None
    assert (blurred.size, blurred.count) == (expected.size, expected.count)
    assert [blurred.place(number) for number in range(blurred.count)] == [
        expected.place(number) for number in range(expected.count)
    ]


def test_without_a_mask_all_is_blurred_or_it_is_not_known(tmp_path: Path) -> None:
    tiles = written(tmp_path / "a.tiles", masked=False)
    assert tiles.open().blurred is None
    blurred = tiles.open(blurred_all_over=True).blurred
    assert blurred is not None
    assert (blurred.count, blurred.place(203 * 4 + 9)) == (150 * 203, (4, 9))


def test_a_file_tells_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.tiles"
    tiles = written(path)
    blurry, sharp, mask = pair(150, 203)
    assert tiles.sources == STAMPS
    assert tiles.name == "s01/00"
    assert tiles.content_hash == content_hash(blurry, sharp, mask)
    assert tiles.blurred == np.count_nonzero(mask)
    assert tiles.file_bytes == path.stat().st_size == file_bytes(150, 203, has_mask=True)
    assert is_sound(tiles)
    # By the description alone, as another program would read it.
    contents = path.read_bytes()
    assert contents.startswith(MAGIC)
    length = struct.unpack_from("<I", contents, 20)[0]
    told = json.loads(contents[28 : 28 + length])
    body = contents[-(-(28 + length) // 4096) * 4096 :]
    first = np.frombuffer(body, np.uint8, TILE_PX * TILE_PX * 3, told["sections"]["tiles"])
    assert np.array_equal(first.reshape(TILE_PX, TILE_PX, 3), blurry[:TILE_PX, :TILE_PX])


def test_hashes_tell_pairs_apart() -> None:
    blurry, sharp, mask = pair(6, 8)
    hashes = {
        content_hash(blurry, sharp, mask),
        content_hash(sharp, blurry, mask),
        content_hash(blurry, sharp, None),
        content_hash(blurry, sharp, 1 - mask),
        content_hash(blurry.reshape(8, 6, 3), sharp.reshape(8, 6, 3), mask.reshape(8, 6)),
    }
    assert len(hashes) == 5


def test_damage_anywhere_is_seen_by_the_hash_or_before(tmp_path: Path) -> None:
    path = tmp_path / "a.tiles"
    written(path)
    whole = path.read_bytes()
    body = -(-(28 + struct.unpack_from("<I", whole, 20)[0]) // 4096) * 4096
    bits_of_mask = body + 4 * 150 + 30
    for place in (3, 40, bits_of_mask, len(whole) - TILE_PX * 3 * TILE_PX * 2 * 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        if place < body:
            with pytest.raises(TilesError, match=r"a\.tiles is (no file of tiles|damaged)"):
                read_header(path)
        else:
            assert not is_sound(read_header(path))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda whole: b"", "is no file of tiles"),
        (lambda whole: b"PNG" + whole, "is no file of tiles"),
        (lambda whole: whole[:16] + b"\7" + whole[17:], "is of version 7 of the tiles, not 1"),
        (lambda whole: whole[:200], "is damaged: its header is not whole"),
        (lambda whole: whole[:60] + b"?" + whole[61:], "is damaged: its header is not whole"),
        (lambda whole: whole[:-1], "is damaged: it has .* bytes and should have"),
        (lambda whole: whole + b"0", "is damaged: it has .* bytes and should have"),
    ],
)
def test_what_is_no_whole_file_is_refused(tmp_path: Path, spoil, message: str) -> None:
    path = tmp_path / "a.tiles"
    written(path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(TilesError, match=message) as caught:
        read_header(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "b.tiles")


def test_a_file_that_was_changed_or_cut_off_since_is_not_mapped(tmp_path: Path) -> None:
    path = tmp_path / "a.tiles"
    tiles = written(path)
    state = path.stat()
    os.truncate(path, 5000)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(TilesError, match=r"a\.tiles was changed while the run went on"):
        tiles.open()
    written(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(TilesError, match=r"a\.tiles was changed while the run went on"):
        tiles.open()
    path.unlink()
    with pytest.raises(TilesError, match=r"a\.tiles cannot be read: No such file"):
        tiles.open()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, little_space: None) -> None:
    path = tmp_path / "a.tiles"
    path.write_bytes(b"old")
    with pytest.raises(MachineError, match=r"a\.tiles cannot be written: File too large"):
        written(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.tiles"]


def test_what_the_disk_does_not_give_back_as_it_was_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A disk that loses the last bit of what it is given, after it was asked to keep it.
    kept = os.fsync

    def lossy(descriptor: int) -> None:
        kept(descriptor)
        end = os.fstat(descriptor).st_size - TILE_PX * 3 * (TILE_PX - 1) - 1000 * 3
        os.pwrite(descriptor, b"\xab\xcd\xef", end)

    monkeypatch.setattr(os, "fsync", lossy)
    with pytest.raises(MachineError, match=r"a\.tiles: what the disk gave back is not what was written"):
        written(tmp_path / "a.tiles", TILE_PX, TILE_PX)
    assert os.listdir(tmp_path) == []
