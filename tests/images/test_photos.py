import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from deblur_lab.errors import MachineError
from deblur_lab.images import ImageError, Photo, read_photo, write_photo
from deblur_lab.images.deep import turned
from deblur_lab.images.photos import image_of, over_white, restored_photo, shown, written_kind
from tests.images.profiles import cmyk_profile
from tests.images.test_exif import exif_of_a_camera
from tests.images.test_files import broken_files, picture, png_chunk, raw_png, saved

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def deep(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65536, shape, dtype=np.uint16)


def png16(pixels: np.ndarray, *chunks: bytes) -> bytes:
    """A 16-bit PNG written by hand."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    height, width = pixels.shape[:2]
    made = raw_png(width, height, 16, kind, rows)
    start = made.index(b"IDAT") - 4
    return made[:start] + b"".join(chunks) + made[start:]


# 16 bits


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_16_bit_png_keeps_every_level(tmp_path: Path, channels: int, orientation: int) -> None:
    pixels = deep(5, 9, channels)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    turn = png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "deep.png").write_bytes(png16(pixels, turn))
    photo = read_photo(tmp_path / "deep.png")
    expected = turned(pixels, orientation)
    colours = 3 if channels > 2 else 1
    assert photo.pixels.dtype == np.uint16
    assert np.array_equal(photo.pixels, np.broadcast_to(expected[..., :colours], (*expected.shape[:2], 3)))
    assert photo.gray == (channels < 3)
    assert (photo.alpha is None) == (channels in (1, 3))
    if photo.alpha is not None:
        assert np.array_equal(photo.alpha, expected[..., -1])
    # And back: what another decoder reads of what is written.
    write_photo(tmp_path / "out.png", photo, "png")
    read = cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED)
    order = {1: [0], 2: [0, 0, 0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    assert np.array_equal(read.reshape(*expected.shape[:2], -1), expected[..., order])
    again = read_photo(tmp_path / "out.png")
    assert np.array_equal(again.pixels, photo.pixels)
    assert Image.open(tmp_path / "out.png").getexif().get(ExifTags.Base.Orientation, 1) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_16_bit_tiff_keeps_every_level_and_is_turned_once(
    tmp_path: Path, orientation: int, compression: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    pixels = deep(5, 9, 3)
    tags = [(274, "H", 1, orientation, True), (50000, "s", 0, "of some program", True)]
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", compression=compression, extratags=tags)
    photo = read_photo(path)
    assert np.array_equal(photo.pixels, turned(pixels, orientation))
    assert not photo.notes
    said = capfd.readouterr()
    assert said.err == ""  # OpenCV has opinions on tags


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_16_bit_tiff_with_alpha(tmp_path: Path, byteorder: str) -> None:
    pixels = deep(4, 6, 4)
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["unassalpha"], byteorder=byteorder)
    photo = read_photo(path)
    assert np.array_equal(photo.pixels, pixels[..., :3])
    assert np.array_equal(photo.alpha, pixels[..., 3])
    # Stored multiplied by alpha.
    pixels[..., 3] = np.maximum(pixels[..., 3], 20000)
    stored = pixels.copy()
    stored[..., :3] = np.rint(pixels[..., :3] * (pixels[..., 3:] / 65535))
    tifffile.imwrite(path, stored, photometric="rgb", extrasamples=["assocalpha"], byteorder=byteorder)
    photo = read_photo(path)
    assert np.abs(photo.pixels.astype(int) - pixels[..., :3]).max() <= 3
    assert np.array_equal(photo.alpha, pixels[..., 3])


def test_16_bit_gray_of_all_kinds(tmp_path: Path) -> None:
    gray = deep(4, 6)
    tifffile.imwrite(tmp_path / "a.tif", gray)
    tifffile.imwrite(tmp_path / "negative.tif", 65535 - gray, photometric="miniswhite")
    (tmp_path / "a.pgm").write_bytes(b"P5 6 4 65535\n" + gray.astype(">u2").tobytes())
    for name in ("a.tif", "negative.tif", "a.pgm"):
        photo = read_photo(tmp_path / name)
        assert photo.gray, name
        assert np.array_equal(photo.pixels[..., 1], gray), name
    key = png_chunk(b"tRNS", struct.pack(">H", gray[1, 2]))
    (tmp_path / "key.png").write_bytes(png16(gray[..., None], key))
    assert np.argwhere(read_photo(tmp_path / "key.png").alpha == 0).tolist() == [[1, 2]]


def test_one_colour_may_stand_for_transparency_in_16_bits(tmp_path: Path) -> None:
    pixels = deep(4, 6, 3)
    pixels[3, 3] = pixels[1, 2] + 1  # nearly it
    key = png_chunk(b"tRNS", pixels[1, 2].astype(">u2").tobytes())
    (tmp_path / "key.png").write_bytes(png16(pixels, key))
    photo = read_photo(tmp_path / "key.png")
    assert np.array_equal(photo.pixels, pixels)
    assert np.argwhere(photo.alpha == 0).tolist() == [[1, 2]]
    assert photo.alpha.max() == 65535


def test_what_the_two_decoders_do_not_agree_on_is_read_with_8_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = deep(4, 6, 3)
    (tmp_path / "a.png").write_bytes(png16(pixels))
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *given: decode(*given)[..., ::-1])  # channels swapped
    photo = read_photo(tmp_path / "a.png")
    assert photo.pixels.dtype == np.uint8
    assert np.array_equal(photo.pixels, pixels >> 8)
    assert photo.notes == ("its 16 bits a channel are stored in a way of which only 8 are read",)


# Gray, palettes, transparency, inks


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_each_mode_is_kept_or_becomes_what_is_nearest(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(picture(8, 8)).convert(mode)
    path = saved(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), image)
    photo = read_photo(path)
    written = write_photo(tmp_path / "b.png", photo, "png")
    assert not written
    after = Image.open(tmp_path / "b.png")
    expected = {"1": "L", "P": "RGB", "CMYK": "RGB"}.get(mode, mode)
    assert after.mode == expected
    assert np.array_equal(np.asarray(after), np.asarray(image.convert(expected)))


def test_a_palette_with_a_clear_entry_becomes_rgba(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 1)
    image.putpixel((1, 0), 0)
    image.putpalette([0, 0, 0, 200, 100, 50])
    photo = read_photo(saved(tmp_path / "clear.png", image, transparency=1))
    assert photo.pixels.tolist() == [[[200, 100, 50], [0, 0, 0]]]
    assert photo.alpha.tolist() == [[0, 255]]
    two_levels = saved(tmp_path / "two.png", Image.new("1", (2, 1), 255), transparency=0)
    photo = read_photo(two_levels)
    assert photo.gray
    assert photo.alpha.tolist() == [[255, 255]]


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_inks_are_converted_through_their_profile(tmp_path: Path, suffix: str) -> None:
    inks = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    options = {"quality": 100} if suffix == ".jpg" else {}
    plain = read_photo(saved(tmp_path / f"plain{suffix}", inks, **options))
    assert np.abs(plain.pixels[8, 8].astype(int) - (0, 255, 255)).max() <= 3
    assert plain.notes == ("CMYK without a colour profile: its colours are approximate",)
    # By this profile one ink makes L = 80, which is sRGB's 198.
    exact = read_photo(saved(tmp_path / f"exact{suffix}", inks, icc_profile=cmyk_profile(), **options))
    assert np.abs(exact.pixels[8, 8].astype(int) - 198).max() <= 3
    assert not exact.notes
    assert exact.icc is None
    useless = read_photo(saved(tmp_path / f"useless{suffix}", inks, icc_profile=SRGB, **options))
    assert useless.notes == ("CMYK with a profile that is of no use: its colours are approximate",)
    assert useless.icc is None


def test_hidden_colours_do_not_reach_the_net_and_come_back() -> None:
    pixels, alpha = picture(20, 30), np.full((20, 30), 255, np.uint8)
    alpha[5:12, 8:20] = 0
    alpha[0, 0] = 1  # faint, but visible
    photo = Photo(pixels, alpha)
    seen = shown(photo)
    visible = alpha > 0
    assert np.array_equal(seen[visible], pixels[visible])
    # Each hidden pixel has the colour of the visible one that is nearest (or as near as another).
    ys, xs = np.nonzero(visible)
    for y, x in np.argwhere(~visible):
        distance = np.hypot(ys - y, xs - x)
        near = distance <= distance.min() + 0.1
        assert seen[y, x].tolist() in pixels[ys[near], xs[near]].tolist()
    after = restored_photo(photo, 255 - seen)
    assert np.array_equal(after.pixels[visible], 255 - pixels[visible])
    assert np.array_equal(after.pixels[~visible], pixels[~visible])
    assert after.alpha is alpha
    for level in (0, 255):
        even = Photo(pixels, np.full((20, 30), level, np.uint8))
        assert shown(even) is pixels


def test_gray_stays_gray_as_bright_as_it_was_restored() -> None:
    gray = picture(6, 5)[..., 0]
    photo = Photo(np.broadcast_to(gray[..., None], (6, 5, 3)), gray=True)
    tinted = np.stack([gray, gray, np.zeros_like(gray)], axis=2)
    after = restored_photo(photo, tinted)
    assert after.gray
    assert np.array_equal(after.pixels[..., 0], np.rint(gray * (0.299 + 0.587)).astype(np.uint8))
    assert np.array_equal(restored_photo(photo, np.array(photo.pixels)).pixels, photo.pixels)


# Metadata


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once_and_told_no_more(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :16, 0] = 250
    stored[:8, 16:, 1] = 250
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "Some Camera"
    options = {
        ".jpg": {"quality": 100, "subsampling": 0},
        ".webp": {"lossless": True},
        ".avif": {"quality": 95},
    }
    path = saved(tmp_path / f"a{suffix}", Image.fromarray(stored), exif=exif, **options.get(suffix, {}))
    photo = read_photo(path)
    kind = "jpeg" if suffix == ".jpg" else "png"
    target = tmp_path / f"b{suffix if kind == 'jpeg' else '.png'}"
    write_photo(target, photo, kind)
    after = Image.open(target)
    assert ExifTags.Base.Orientation not in after.getexif()
    assert after.getexif()[ExifTags.Base.Make] == "Some Camera"
    difference = np.asarray(after).astype(int) - turned(stored, orientation)
    assert np.abs(difference).mean() < 12 if suffix == ".avif" else np.abs(difference).max() <= 8


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_profiles_are_kept_byte_for_byte(tmp_path: Path, suffix: str, mode: str) -> None:
    icc = SRGB + b"to the last byte"
    path = saved(
        tmp_path / f"a{suffix}", Image.new(mode, (9, 9), 77 if mode == "L" else (7, 77, 177)), icc_profile=icc
    )
    photo = read_photo(path)
    assert photo.icc == icc
    for kind in ("png", "jpeg"):
        write_photo(tmp_path / f"b.{kind}", photo, kind)
        assert Image.open(tmp_path / f"b.{kind}").info["icc_profile"] == icc


def test_what_a_camera_stores_comes_through(tmp_path: Path) -> None:
    given = exif_of_a_camera("<", b"\xff\xd8 an old picture \xff\xd9")
    path = saved(tmp_path / "a.jpg", Image.new("RGB", (32, 16)), exif=b"Exif\0\0" + given)
    photo = read_photo(path)
    assert photo.size == (16, 32)
    for kind in ("png", "jpeg"):
        write_photo(tmp_path / f"b.{kind}", photo, kind)
        exif = Image.open(tmp_path / f"b.{kind}").info["exif"]
        assert exif == b"Exif\0\0" + photo.exif
        assert b"MAKER" in exif
        assert b"old picture" not in exif


def test_a_tiff_keeps_what_was_said_of_it_and_not_how_it_was_stored(tmp_path: Path) -> None:
    tags = [(271, "s", 0, "Some Camera", True), (306, "s", 0, "2024:05:06 07:08:09", True)]
    tifffile.imwrite(tmp_path / "a.tif", deep(4, 6, 3), photometric="rgb", extratags=tags, metadata=None)
    write_photo(tmp_path / "b.png", read_photo(tmp_path / "a.tif"), "png")
    exif = Image.open(tmp_path / "b.png").getexif()
    assert exif[ExifTags.Base.Make] == "Some Camera"
    assert exif[ExifTags.Base.DateTime] == "2024:05:06 07:08:09"
    assert not {int(tag) for tag in exif} & {256, 257, 258, 259, 262, 273, 279}


def test_exif_that_is_damaged_is_left_out(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = saved(tmp_path / "a.jpg", Image.new("RGB", (8, 8)), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_photo(path).exif is None
    assert not recwarn.list  # Pillow's would stand among the lines of a command


def test_of_several_frames_the_first_with_a_note(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ((255, 0, 0), (0, 0, 255), (0, 9, 0))]
    for suffix in (".gif", ".tif", ".webp"):
        options = {"lossless": True} if suffix == ".webp" else {}
        path = saved(tmp_path / f"a{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
        photo = read_photo(path)
        assert photo.pixels[0, 0].tolist() == [255, 0, 0]
        assert photo.notes == ("of its 3 frames or pages the first is restored",)


# Writing


def test_jpeg_has_full_colour_resolution_and_the_quality_asked_for(tmp_path: Path) -> None:
    photo = Photo(picture(64, 64))
    sizes = []
    for quality in (50, 95):
        assert not write_photo(tmp_path / "a.jpg", photo, "jpeg", jpeg_quality=quality)
        image = Image.open(tmp_path / "a.jpg")
        assert {(h, v) for _, h, v, _ in image.layer} == {(1, 1)}
        sizes.append((tmp_path / "a.jpg").stat().st_size)
    assert sizes[0] < 0.7 * sizes[1]


def test_what_a_jpeg_cannot_hold_is_told(tmp_path: Path) -> None:
    alpha = np.zeros((8, 8), np.uint16)
    photo = Photo(deep(8, 8, 3), alpha, exif=b"II*\0" + bytes(70_000))
    notes = write_photo(tmp_path / "a.jpg", photo, "jpeg")
    assert notes == (
        "its transparency was laid over white, as JPEG has none",
        "its 16 bits a channel became 8, as JPEG has no more",
        "its EXIF is too long for a JPEG and was left out",
    )
    assert np.asarray(Image.open(tmp_path / "a.jpg")).min() == 255
    wide = Photo(np.zeros((1, 65_501, 3), np.uint8))
    with pytest.raises(ImageError, match=r"b\.jpg: a JPEG has no more than 65500 pixels a side"):
        write_photo(tmp_path / "b.jpg", wide, "jpeg")


def test_over_white_is_as_on_paper() -> None:
    pixels = np.array([[[10, 20, 30], [0, 0, 0], [10, 20, 30]]], np.uint8)
    alpha = np.array([[0, 128, 255]], np.uint8)
    assert over_white(Photo(pixels, alpha)).pixels.tolist() == [[[255] * 3, [127] * 3, [10, 20, 30]]]
    wide = over_white(Photo(pixels.astype(np.uint16) * 257, alpha.astype(np.uint16) * 257)).pixels
    assert wide.tolist() == [[[65535] * 3, [32639] * 3, [2570, 5140, 7710]]]


def test_a_full_disk_leaves_no_file(tmp_path: Path, little_space: None) -> None:
    with pytest.raises(MachineError, match=r"a\.png cannot be written: File too large"):
        write_photo(tmp_path / "a.png", Photo(picture(100, 100)), "png")
    assert not list(tmp_path.iterdir())


def test_pillow_images_have_the_metadata_too() -> None:
    photo = Photo(picture(), icc=SRGB, exif=exif_of_a_camera("<", b""))
    stream = io.BytesIO()
    image_of(photo).save(stream, "PNG", exif=image_of(photo).info["exif"])
    again = Image.open(stream)
    assert again.info["icc_profile"] == SRGB
    assert again.getexif()[ExifTags.Base.Make] == "Some Camera"


def test_what_a_photo_stays(tmp_path: Path) -> None:
    saved(tmp_path / "wrong.png", Image.new("RGB", (8, 8)), format="JPEG")
    saved(tmp_path / "a.webp", Image.new("RGB", (8, 8)))
    (tmp_path / "empty.JPG").touch()
    kinds = {name: written_kind(tmp_path / name) for name in ("wrong.png", "a.webp", "empty.JPG", "none.png")}
    assert kinds == {"wrong.png": "jpeg", "a.webp": "png", "empty.JPG": "jpeg", "none.png": "png"}


# Files that cannot be read


@pytest.mark.parametrize("name", broken_files())
def test_what_cannot_be_decoded_is_an_image_error_of_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(broken_files()[name])
    with pytest.raises(ImageError) as caught:
        read_photo(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_cut_off_16_bit_pictures_are_image_errors(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "png":
        path.write_bytes(png16(deep(40, 40, 3)))
    else:
        tifffile.imwrite(path, deep(40, 40, 3), photometric="rgb")
    whole = path.read_bytes()
    for part in (10, 50, 90):
        path.write_bytes(whole[: len(whole) * part // 100])
        with pytest.raises(ImageError, match=f"a.{kind}"):
            read_photo(path)
    assert capfd.readouterr().err == ""


def test_16_bit_bombs_are_refused_from_the_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(raw_png(30000, 30000, 16, 2, b"\0"))
    with pytest.raises(ImageError, match=r"30000 x 30000 pixels .* max_pixels=200000000"):
        read_photo(path)
    assert zlib.crc32(path.read_bytes())
