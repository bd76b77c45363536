"""Pictures in files: what may be read, how a file is checked, and how one is written whole or not at all.

`read_rgb` and `read_mask` are for training and scoring: 8 bits, three channels, no metadata. A person's own
photo is read by `deblur_lab.images.photos`, which keeps more of it. What a file may hold, and what `read_rgb`
makes of it:

- EXIF (and XMP) orientation is applied: every size and pixel here is that of the picture as it is displayed.
- Gray and two-level pictures become RGB with three equal channels.
- 16 bits a channel are scaled to 8, never clipped: gray is rounded to the nearest of v / 257; of colour the
  upper byte is taken.
- Palettes are looked up. Transparency is composited over white, as on paper.
- CMYK is converted without a colour profile; embedded profiles (ICC) are not applied: values stay as stored.
- Of several frames the first is read.
- 32-bit integers and floating point are refused, because what is white in them is not known.
- HEIC needs the package pillow-heif, and the error says so.
"""

import importlib
import os
import re
import secrets
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from deblur_lab.errors import DataError, MachineError
from deblur_lab.images.png import SIGNATURE, encode_png

MAX_PIXELS = 200_000_000
"""A picture with more pixels than this is refused before it is decoded, unless the caller says otherwise."""

PICTURE_SUFFIXES = frozenset(
    [
        ".avif",
        ".bmp",
        ".gif",
        ".heic",
        ".heif",
        ".jp2",
        ".jpeg",
        ".jpg",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
"""The endings, in lower case, by which a file in a folder is taken for a picture."""

# No format that runs another program (EPS starts Ghostscript) or that is not a picture of pixels.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "GIF", "AVIF", "JPEG2000")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_READ_BYTES = 1 << 18
_UNFINISHED = re.compile(r"\.(\d+)-[0-9a-f]{8}\.tmp")
_PILLOW_LIMIT = threading.Lock()


class ImageError(DataError):
    """A picture that cannot be read, or not as a picture; one line that begins with its path."""


def quoted(path: Path | str) -> str:
    """A path as it can stand in a line of a message: as it is, or escaped where it would break the line."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def shown_names(names: Sequence[str], most: int) -> str:
    """The first of some names, as they can stand in a line of a message, and how many more there are."""
    text = ", ".join(quoted(name) for name in names[:most])
    return f"{text} and {len(names) - most} more" if len(names) > most else text


def read_rgb(path: Path, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a picture as 8-bit RGB, converted as the module's description says.

    Args:
        path: The file, of any kind that Pillow reads.
        max_pixels: A larger picture is refused from its header, before anything is decoded.

    Returns:
        (H, W, 3) uint8, as displayed.

    Raises:
        ImageError: The file is missing, empty, truncated, corrupt, too large or of a kind that is not read.
    """
    with opened(path, max_pixels) as image:
        ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image, path)


def read_mask(path: Path, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a mask: whatever is not zero is blurred.

    A coloured or palette pixel is zero where it is black; transparency is not looked at. Masks should not be
    stored as JPEG, whose compression leaves values that are not zero beside every edge.

    Returns:
        (H, W) uint8 in {0, 1}, as displayed.

    Raises:
        ImageError: As `read_rgb`.
    """
    with opened(path, max_pixels) as image:
        return np.asarray(mask_levels(image) != 0, dtype=np.uint8)


def mask_levels(image: Image.Image) -> NDArray[Any]:
    """The values of a mask, (H, W) as displayed: of a coloured or palette pixel the greatest of the three."""
    ImageOps.exif_transpose(image, in_place=True)
    has_one_channel = image.mode in {"1", "L", "I", "F"} or image.mode.startswith("I;16")
    values = np.atleast_3d(np.asarray(image if has_one_channel else image.convert("RGB")))
    levels: NDArray[Any] = values.max(axis=2)
    return levels


def check_picture(
    path: Path, *, full: bool = False, as_mask: bool = False, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """The (width, height) of a picture as displayed, after a check that its file can be read.

    As much is looked at as the format needs, and not more, for there may be thousands of pictures:

    - PNG: all bytes are read and the checksum of every chunk is compared, but nothing is decompressed.
    - JPEG: the header and the end marker; damage between them is seen with `full` at most. A file without the
      marker is decoded, and only refused where that fails, as phones append data.
    - Other formats, which have neither, are decoded.

    Args:
        path: The file.
        full: Decode every file.
        as_mask: Check for `read_mask`, which takes pictures that `read_rgb` does not.
        max_pixels: As in `read_rgb`.

    Raises:
        ImageError: The file is missing, empty, damaged, truncated, too large or cannot be read.
    """
    with opened(path, max_pixels) as image:
        size, seems_whole = _inspected(image, path)
        if full or not seems_whole:
            image.load()
        if not as_mask:
            require_white(image, path)
        return size


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a picture as PNG, whole or not at all.

    Args:
        path: The file, in a folder that exists; an older one is replaced.
        image: (H, W, 3) RGB or (H, W) gray, uint8.

    Raises:
        MachineError: The file cannot be written.
    """
    assert image.dtype == np.uint8, "a picture is stored as 8 bits"
    assert image.ndim == 2 or image.shape[2:] == (3,), "(H, W, 3) or (H, W)"
    write_whole(path, encode_png(image))


def write_whole(path: Path, contents: bytes) -> None:
    """Write a file whole or not at all, whatever ends the program.

    Args:
        path: The file, in a folder that exists; an older one is replaced.
        contents: Of the file.

    Raises:
        MachineError: The file cannot be written.
    """
    unfinished = path.parent / f".{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        try:
            with unfinished.open("xb") as file:
                file.write(contents)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise MachineError(f"{quoted(path)} cannot be written: {error.strerror or error}") from error


def remove_unfinished(folder: Path) -> None:
    """Remove from a folder what processes that were killed have left of their writing."""
    for left in folder.glob(".*.tmp"):
        written_by = _UNFINISHED.fullmatch(left.name)
        if written_by is None:
            continue
        try:
            os.kill(int(written_by[1]), 0)
        except ProcessLookupError:
            left.unlink(missing_ok=True)
        except OSError:
            pass  # somebody else's, and alive


def _to_rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    require_white(image, path)
    if has_16_bits(image):
        wide = np.asarray(image).astype(np.uint32)
        gray = ((wide * 255 + 32767) // 65535).astype(np.uint8)
        if white_is_zero(image):
            gray = 255 - gray
        return np.repeat(gray[..., None], 3, axis=2)
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        paper = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        image = Image.alpha_composite(paper, picture)
    return np.array(image.convert("RGB"))


def has_16_bits(image: Image.Image) -> bool:
    """Whether a picture is gray of 16 bits, in which white is 65535."""
    # Netpbm files of more than 8 bits come as 32-bit integers that are already scaled to 16 bits.
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in {"PNG", "PPM"})


def white_is_zero(image: Image.Image) -> bool:
    """Whether it is a TIFF's 16-bit gray negative, which Pillow does not undo as it does that of 8 bits."""
    return image.format == "TIFF" and _tiff_tag(image, ExifTags.Base.PhotometricInterpretation) == 0


def require_white(image: Image.Image, path: Path) -> None:
    """Whether it is known what the numbers of a picture mean.

    Raises:
        ImageError: It is not.
    """
    if image.mode in {"I", "F"} and not has_16_bits(image):
        number = "floating-point numbers" if image.mode == "F" else "32-bit integers"
        raise ImageError(
            f"{quoted(path)}: {number}, in which white is not defined: save it with 8 or 16 bits a channel"
        )
    in_planes = image.format == "TIFF" and _tiff_tag(image, ExifTags.Base.PlanarConfiguration) == 2
    if in_planes and 16 in (_tiff_tag(image, ExifTags.Base.BitsPerSample) or ()) and not has_16_bits(image):
        # Pillow and OpenCV take one channel's pixels for those of all three.
        raise ImageError(
            f"{quoted(path)}: 16 bits a channel, each channel by itself, are not read: save it with "
            "interleaved channels"
        )


def _tiff_tag(image: Image.Image, tag: int) -> Any:  # noqa: ANN401 - what a TIFF may hold
    return image.tag_v2.get(int(tag))  # type: ignore[attr-defined]


@contextmanager
def opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """A picture whose header is read; every way in which it cannot be used becomes an ImageError.

    Args:
        path: The file.
        max_pixels: A larger picture is refused.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{quoted(path)}: not a file")
        if status.st_size == 0:
            raise ImageError(f"{quoted(path)}: the file is empty (0 bytes)")
        # Pillow's warnings, of EXIF that is damaged, would stand among a command's lines.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            image = _identified(file, path)
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(
                    f"{quoted(path)}: {width} x {height} pixels are more than max_pixels={max_pixels}, "
                    "the largest that is decoded"
                )
            yield image
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{quoted(path)}: there is no such file") from error
    except UnidentifiedImageError as error:
        if _begins_as_tiff(path):
            raise ImageError(
                f"{quoted(path)}: a TIFF that is damaged, or not read here (floating-point colour, say): "
                "save it with 8 or 16 bits a channel"
            ) from error
        raise ImageError(
            f"{quoted(path)}: not a picture of a kind that is read here "
            "(PNG, JPEG, TIFF, BMP, WebP, GIF, AVIF, JPEG 2000, Netpbm)"
        ) from error
    except MemoryError as error:
        raise ImageError(f"{quoted(path)}: there is not enough memory to decode it") from error
    except Exception as error:  # decoders raise far more than OSError on files that are not whole
        detail = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = " ".join(detail.split()) or type(error).__name__
        raise ImageError(f"{quoted(path)}: cannot be read as a picture ({reason})") from error


def _begins_as_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _identified(file: BinaryIO, path: Path) -> Image.Image:
    formats = list(_FORMATS)
    start = file.read(12)
    file.seek(0)
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS:
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except ImportError as error:
            raise ImageError(
                f"{quoted(path)}: HEIC pictures need the package pillow-heif (pip install pillow-heif)"
            ) from error
        formats = ["HEIF"]
    # Pillow's own limit, a global, warns below ours and raises where a caller allows more.
    with _PILLOW_LIMIT:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(file, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _inspected(image: Image.Image, path: Path) -> tuple[tuple[int, int], bool]:
    """The size as displayed, and whether the file is known to be whole without being decoded."""
    seems_whole = False
    if image.format == "PNG":
        names, seems_whole = _png_chunks(path)
        behind_pixels = names[names.index(b"IDAT") :] if b"IDAT" in names else []
        # Some programs store the orientation there; only then are the pixels decoded to come to it.
        if seems_whole and not {b"eXIf", b"iTXt", b"zTXt"}.isdisjoint(behind_pixels):
            image.load()
    elif image.format in {"JPEG", "MPO"}:
        with path.open("rb") as file:
            file.seek(-min(64, path.stat().st_size), os.SEEK_END)
            seems_whole = file.read().rstrip(b"\0").endswith(b"\xff\xd9")
    width, height = image.size
    # Pillow turns a TIFF itself; of a PNG its own getexif would decode the pixels.
    if image.format != "TIFF" and Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1) in {
        5,
        6,
        7,
        8,
    }:
        width, height = height, width
    return (width, height), seems_whole


def _png_chunks(path: Path) -> tuple[list[bytes], bool]:
    """The names of a PNG's chunks in order, and whether all are whole, up to the one that ends the picture.

    Raises:
        ImageError: The checksum of a chunk that is needed for the picture is wrong.
    """
    names: list[bytes] = []
    seems_whole = True
    with path.open("rb") as file:
        file.seek(len(SIGNATURE))
        while names[-1:] != [b"IEND"]:
            start = file.read(8)
            if len(start) < 8:
                return names, False
            length, name = struct.unpack(">I4s", start)
            checksum = zlib.crc32(name)
            while length:
                # Piece by piece: a damaged length may be 4 GB.
                piece = file.read(min(length, _READ_BYTES))
                if not piece:
                    return names, False
                checksum = zlib.crc32(piece, checksum)
                length -= len(piece)
            stored = file.read(4)
            if len(stored) < 4:
                return names, False
            if stored != checksum.to_bytes(4, "big"):
                if name[:1].isupper():  # what is not needed has a lower-case name
                    raise ImageError(
                        f"{quoted(path)}: the file is damaged (wrong checksum in its part "
                        f"{name.decode('latin-1')!r}): fetch or save it again"
                    )
                seems_whole = False
            names.append(name)
    return names, seems_whole
