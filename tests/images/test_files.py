import io
import itertools
import os
import struct
import subprocess
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from deblur_lab.errors import DataError, MachineError
from deblur_lab.images import ImageError, check_picture, quoted, read_mask, read_rgb, write_png
from deblur_lab.images.files import remove_unfinished


def picture(height: int = 6, width: int = 10, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def raw_png(width: int, height: int, bits: int, kind: int, rows: bytes, behind: bytes = b"") -> bytes:
    """A PNG written by hand, so that what Pillow reads is not checked against what Pillow wrote."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    end = png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(rows)) + behind + end


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


# Reading


def test_rgb_png_is_read_as_it_was_written(tmp_path: Path) -> None:
    image = picture()
    write_png(tmp_path / "a.png", image)
    assert np.array_equal(read_rgb(tmp_path / "a.png"), image)
    assert check_picture(tmp_path / "a.png") == (10, 6)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("levels", [0, 255, 256, 257, 30000, 65535])
def test_16_bit_gray_is_scaled(tmp_path: Path, levels: int) -> None:
    path = tmp_path / "gray16.png"
    path.write_bytes(raw_png(1, 1, 16, 0, b"\0" + struct.pack(">H", levels)))
    assert read_rgb(path).tolist() == [[[round(levels / 257)] * 3]]


def test_16_bit_gray_keeps_what_8_bits_can_say(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint16)[None] * 257
    path = saved(tmp_path / "ramp.tif", Image.fromarray(ramp))
    assert np.array_equal(read_rgb(path)[0, :, 0], np.arange(256))
    binary = b"P5 256 1 65535\n" + ramp.astype(">u2").tobytes()
    (tmp_path / "ramp.pgm").write_bytes(binary)
    assert np.array_equal(read_rgb(tmp_path / "ramp.pgm")[0, :, 0], np.arange(256))


def test_16_bit_colour_is_scaled(tmp_path: Path) -> None:
    ramp = (np.arange(256, dtype=np.uint16) * 257).astype(">u2")
    pixels = np.stack([ramp, ramp[::-1], ramp], axis=1)
    path = tmp_path / "rgb16.png"
    path.write_bytes(raw_png(256, 1, 16, 2, b"\0" + pixels.tobytes()))
    values = read_rgb(path)[0]
    assert np.array_equal(values[:, 0], np.arange(256))
    assert np.array_equal(values[:, 1], np.arange(256)[::-1])


@pytest.mark.parametrize("mode", ["1", "L"])
def test_gray_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = saved(tmp_path / "gray.png", Image.new(mode, (3, 2), 255))
    assert read_rgb(path).tolist() == [[[255, 255, 255]] * 3] * 2


def test_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert read_rgb(saved(tmp_path / "palette.png", image)).tolist() == [[[200, 100, 50]] * 2]


def test_transparency_is_composited_over_white(tmp_path: Path) -> None:
    clear, half, solid = (10, 20, 30, 0), (0, 0, 0, 128), (10, 20, 30, 255)
    image = Image.new("RGBA", (3, 1))
    image.putdata([clear, half, solid])
    values = read_rgb(saved(tmp_path / "alpha.png", image))[0].tolist()
    assert values == [[255, 255, 255], [127, 127, 127], [10, 20, 30]]
    gray = saved(tmp_path / "la.png", Image.new("LA", (1, 1), (40, 0)))
    assert read_rgb(gray).tolist() == [[[255, 255, 255]]]
    image = Image.new("P", (1, 1), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    clear_entry = saved(tmp_path / "clear.png", image, transparency=1)
    assert read_rgb(clear_entry).tolist() == [[[255, 255, 255]]]


def test_cmyk_is_converted(tmp_path: Path) -> None:
    path = saved(tmp_path / "cmyk.tif", Image.new("CMYK", (2, 1), (255, 0, 0, 0)))
    assert read_rgb(path).tolist() == [[[0, 255, 255]] * 2]
    path = saved(tmp_path / "cmyk.jpg", Image.new("CMYK", (16, 16), (0, 0, 0, 255)), quality=100)
    assert read_rgb(path).max() <= 2


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :16, 0] = 250  # left half red
    stored[:8, 16:, 1] = 250  # upper right green
    # EXIF: which side of what is seen the first stored row and column are.
    seen = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored.transpose(1, 0, 2)[:, ::-1],
        7: stored.transpose(1, 0, 2)[::-1, ::-1],
        8: stored.transpose(1, 0, 2)[::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}.get(suffix, {})
    path = saved(tmp_path / f"turned{suffix}", Image.fromarray(stored), exif=exif, **options)
    values = read_rgb(path)
    assert values.shape == seen.shape
    assert np.abs(values.astype(int) - seen).max() <= 4
    assert check_picture(path) == (seen.shape[1], seen.shape[0])


def test_orientation_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    behind = png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    path = tmp_path / "behind.png"
    path.write_bytes(raw_png(3, 2, 8, 0, b"\0\1\2\3" * 2, behind))
    assert read_rgb(path).shape == (3, 2, 3)
    assert check_picture(path) == (2, 3)


def test_of_several_frames_the_first_is_read(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (4, 3), (255, 0, 0)), Image.new("RGB", (4, 3), (0, 0, 255))
    path = saved(tmp_path / "frames.gif", first, save_all=True, append_images=[second])
    assert read_rgb(path)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("array", [np.full((2, 2), 0.5, np.float32), np.full((2, 2), 70000, np.int32)])
def test_numbers_without_a_white_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    path = saved(tmp_path / "wide.tif", Image.fromarray(array))
    with pytest.raises(ImageError, match=r"wide\.tif: .* white is not defined: save it with 8 or 16 bits"):
        read_rgb(path)
    with pytest.raises(ImageError, match="white is not defined"):
        check_picture(path)
    assert check_picture(path, as_mask=True) == (2, 2)


def test_heic_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "phone.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    with pytest.raises(ImageError, match=r"phone\.heic: HEIC pictures need .*pip install pillow-heif"):
        read_rgb(path)


def test_heic_is_handed_to_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_heif(file: object, name: object) -> Image.Image:
        return Image.new("RGB", (5, 4), (1, 2, 3))

    def register() -> None:
        Image.register_open("HEIF", open_heif, lambda start: start[4:8] == b"ftyp")

    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register))
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    path = tmp_path / "phone.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    assert read_rgb(path).shape == (4, 5, 3)


def test_16_bit_gray_negatives_are_undone(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint16)[None] * 257
    tifffile.imwrite(tmp_path / "negative.tif", ramp, photometric="miniswhite")
    assert np.array_equal(read_rgb(tmp_path / "negative.tif")[0, :, 0], 255 - np.arange(256))


def test_colour_in_floating_point_is_refused_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "float.tif"
    tifffile.imwrite(path, np.full((4, 5, 3), 0.5, np.float32), photometric="rgb")
    with pytest.raises(ImageError, match=r"not read here \(floating-point colour, say\): save"):
        read_rgb(path)


def test_16_bit_channels_by_themselves_are_refused(tmp_path: Path) -> None:
    planes = np.random.default_rng(0).integers(0, 65536, (3, 5, 7), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate")
    for read in (read_rgb, check_picture):
        with pytest.raises(ImageError, match=r"planes\.tif: 16 bits .* save it with interleaved channels"):
            read(tmp_path / "planes.tif")
    shallow = (planes >> 8).astype(np.uint8)
    tifffile.imwrite(tmp_path / "planes.tif", shallow, photometric="rgb", planarconfig="separate")
    assert np.array_equal(read_rgb(tmp_path / "planes.tif"), shallow.transpose(1, 2, 0))


# Files that cannot be read


def broken_files() -> dict[str, bytes]:
    whole: dict[str, bytes] = {}
    for kind, mode in itertools.product(("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM"), ("RGB", "L")):
        stream = io.BytesIO()
        Image.fromarray(picture(40, 40)).convert(mode).save(stream, kind)
        whole[f"{kind}-{mode}"] = stream.getvalue()
    cut = {
        f"{name}-{part}": data[: len(data) * part // 100]
        for name, data in whole.items()
        for part in (3, 40, 80)
    }
    rng = np.random.default_rng(1)
    noise = {f"{name}-noise": data[:16] + rng.bytes(300) for name, data in whole.items()}
    return cut | noise | {"text": b"no picture at all", "empty": b"", "one byte": b"\x89"}


@pytest.mark.parametrize("name", broken_files())
def test_what_cannot_be_decoded_is_an_image_error_of_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(broken_files()[name])
    for read in (read_rgb, read_mask, lambda path: check_picture(path, full=True)):
        with pytest.raises(ImageError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_missing_files_folders_and_pipes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in {"none.png": "no such file", ".": "not a file", "pipe": "not a file"}.items():
        with pytest.raises(ImageError, match=reason):
            read_rgb(tmp_path / name)
        with pytest.raises(ImageError, match=reason):
            check_picture(tmp_path / name)
    assert issubclass(ImageError, DataError)


def test_pixel_bombs_are_refused_from_the_header(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(raw_png(60000, 60000, 8, 2, b"\0"))
    for read in (read_rgb, read_mask, check_picture):
        with pytest.raises(ImageError, match=r"bomb\.png: 60000 x 60000 pixels .* max_pixels=200000000"):
            read(bomb)
    write_png(tmp_path / "small.png", picture())
    assert read_rgb(tmp_path / "small.png", max_pixels=60).shape == (6, 10, 3)
    with pytest.raises(ImageError, match="max_pixels=59"):
        read_rgb(tmp_path / "small.png", max_pixels=59)


def test_our_limit_is_the_only_one_and_pillows_is_left_alone(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    before = Image.MAX_IMAGE_PIXELS
    large = tmp_path / "large.png"
    large.write_bytes(raw_png(20000, 20000, 8, 2, b"\0"))  # Pillow refuses 179 megapixels, warns of 89
    assert check_picture(large, max_pixels=400_000_000) == (20000, 20000)
    assert before == Image.MAX_IMAGE_PIXELS
    assert not recwarn.list


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_cut_off_files_are_seen_without_decoding_all(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path / f"a.{kind}", Image.fromarray(picture(64, 64)))
    data = path.read_bytes()
    assert check_picture(path) == (64, 64)
    for end in (len(data) - 40, len(data) // 2):
        path.write_bytes(data[:end])
        with pytest.raises(ImageError, match=f"a.{kind}"):
            check_picture(path)
    path.write_bytes(data + b"appended by a phone")
    assert check_picture(path) == (64, 64)
    assert read_rgb(path).shape == (64, 64, 3)


def test_a_flipped_bit_is_seen_in_a_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_png(path, picture(64, 64))
    data = path.read_bytes()
    start = data.index(b"IDAT") + 4
    for place in (start, len(data) // 2, len(data) - 17, len(data) - 13):  # the last are the checksum's
        damaged = bytearray(data)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(
            ImageError, match=r"a\.png: the file is damaged \(wrong checksum .*'IDAT'\)"
        ) as caught:
            check_picture(path)
        assert "\n" not in str(caught.value)


def test_damage_in_what_a_picture_does_not_need_is_left_to_the_decoder(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    behind = bytearray(png_chunk(b"tIME", bytes(7)))
    behind[-1] ^= 1
    path.write_bytes(raw_png(3, 2, 8, 0, b"\0\1\2\3" * 2, bytes(behind)))
    assert check_picture(path) == (3, 2)
    assert read_rgb(path).shape == (2, 3, 3)


def test_pixels_that_were_written_wrong_are_seen_by_decoding(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    right = raw_png(3, 2, 8, 0, b"\0\1\2\3" * 2)
    pixels = zlib.compress(b"\0\1\2\3" * 2)
    path.write_bytes(right.replace(png_chunk(b"IDAT", pixels), png_chunk(b"IDAT", b"\xff" * len(pixels))))
    assert check_picture(path) == (3, 2)
    with pytest.raises(ImageError, match=r"a\.png: cannot be read"):
        check_picture(path, full=True)


def test_names_of_every_kind(tmp_path: Path) -> None:
    image = picture()
    for name in ("a b.png", "[1]*?.png", "ü.MP4.png", "日本.png", "x=1,{y}.png"):
        write_png(tmp_path / name, image)
        assert np.array_equal(read_rgb(tmp_path / name), image)
    (tmp_path / "two\nlines.png").write_bytes(b"")
    with pytest.raises(ImageError, match="empty") as caught:
        read_rgb(tmp_path / "two\nlines.png")
    assert "\n" not in str(caught.value)
    assert quoted(Path("a b.png")) == "a b.png"
    assert quoted("caf\udce9.png") == "'caf\\udce9.png'"


# Masks


def test_whatever_is_not_zero_is_blurred(tmp_path: Path) -> None:
    values = np.array([[0, 1, 128, 255]], np.uint8)
    expected = [[0, 1, 1, 1]]
    assert read_mask(saved(tmp_path / "l.png", Image.fromarray(values))).tolist() == expected
    wide = Image.fromarray(values.astype(np.uint16))
    assert read_mask(saved(tmp_path / "wide.png", wide)).tolist() == expected
    blue = np.zeros((1, 4, 3), np.uint8)
    blue[..., 2] = values
    assert read_mask(saved(tmp_path / "rgb.png", Image.fromarray(blue))).tolist() == expected
    opaque = np.concatenate([blue, np.full((1, 4, 1), 255, np.uint8)], axis=2)
    assert read_mask(saved(tmp_path / "rgba.png", Image.fromarray(opaque))).tolist() == expected
    two = Image.fromarray(values).point(lambda value: value and 255).convert("1")
    assert read_mask(saved(tmp_path / "two.png", two)).tolist() == expected
    assert read_mask(tmp_path / "two.png").dtype == np.uint8
    palette = Image.fromarray((values > 0).astype(np.uint8)).convert("L")
    palette.putpalette([0, 0, 0, 128, 0, 0])
    assert read_mask(saved(tmp_path / "palette.png", palette)).tolist() == expected


# Writing


def test_write_png_fails_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"a\.png cannot be written: No such file"):
        write_png(tmp_path / "missing" / "a.png", picture())
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(MachineError, match=r"folder\.png cannot be written"):
        write_png(tmp_path / "folder.png", picture())
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.png"]


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    kept = [tmp_path / name for name in (f".{os.getpid()}-0123abcd.tmp", ".mine.tmp", "0-0123abcd.tmp")]
    for path in (*kept, tmp_path / f".{ended.pid}-0123abcd.tmp"):
        path.touch()
    remove_unfinished(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
