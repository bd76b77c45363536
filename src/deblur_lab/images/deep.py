"""Reads 16-bit colours from PNG and TIFF, of which Pillow reads the upper byte only.

OpenCV reads them whole, but says less about a file. So both decode it, and what OpenCV says is taken only if
its upper bytes are Pillow's: else channels might be swapped, or the picture turned, with nobody the wiser.
"""

import struct
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from deblur_lab.images.png import SIGNATURE

Pixels = NDArray[Any]

_GRAY, _GRAY_WITH_ALPHA = 0, 4  # PNG's colour types
_PREMULTIPLIED = (1,)
_BAND_ROWS = 512


class DeepColour(NamedTuple):
    """Colours of 16 bits, as displayed.

    Attributes:
        pixels: (H, W, 3) uint16, RGB.
        alpha: (H, W) uint16, or None.
        gray: Whether the three channels are one.
    """

    pixels: Pixels
    alpha: Pixels | None
    gray: bool


def holds_deep_colour(path: Path, image: Image.Image) -> bool:
    """Whether a picture has 16 bits a channel and more than one channel."""
    if image.format == "PNG":
        depth, colour_type = _depth_and_type(path)
        return depth == 16 and colour_type != _GRAY
    if image.format == "TIFF":
        depths = _tag(image, ExifTags.Base.BitsPerSample) or ()
        return len(depths) > 1 and 16 in depths and image.mode in {"RGB", "RGBA", "CMYK"}
    return False


def read_deep_colour(path: Path, image: Image.Image, orientation: int) -> DeepColour | None:
    """Read 16-bit colours.

    Args:
        path: The file, for which `holds_deep_colour` is true.
        image: The same, decoded by Pillow; TIFF is then turned as displayed, PNG is not.
        orientation: Of the file's EXIF.

    Returns:
        The colours; None if both decoders do not agree on them, or they are of inks.
    """
    if image.mode not in {"RGB", "RGBA"}:
        return None
    contents = path.read_bytes()
    is_png = image.format == "PNG"
    decoded = _decoded(_bare_png(contents) if is_png else contents)
    if decoded is None:
        return None
    shallow = np.asarray(image)
    # OpenCV turns TIFFs, or does not, by version.
    candidates = [decoded] if is_png else [decoded, turned(decoded, orientation)]
    for candidate in candidates:
        found = _parted(candidate, image, shallow)
        if found is not None:
            break
    else:
        return None
    pixels, alpha = found
    if is_png:
        key = image.info.get("transparency")
        if isinstance(key, tuple):
            opaque = (pixels != np.array(key, np.uint16)).any(axis=2)
            alpha = np.where(opaque, 65535, 0).astype(np.uint16)
        pixels = turned(pixels, orientation)
        alpha = None if alpha is None else turned(alpha, orientation)
    return DeepColour(pixels, alpha, is_png and _depth_and_type(path)[1] == _GRAY_WITH_ALPHA)


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """(H, W, ...) as EXIF's orientation, 1 to 8, says that it is displayed."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in {3, 4, 7, 8} else 1)
    columns = slice(None, None, -1 if orientation in {2, 3, 6, 7} else 1)
    return pixels[rows, columns]


def _decoded(contents: bytes) -> Pixels | None:
    """What OpenCV makes of a file, if that has 16 bits and three or four channels: (H, W, C), BGR."""
    logging = cv2.utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        decoded = cv2.imdecode(np.frombuffer(contents, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    finally:
        logging.setLogLevel(level)
    usable = decoded is not None and decoded.dtype == np.uint16 and decoded.shape[2:] in {(3,), (4,)}
    return decoded if usable else None


def _parted(wide: Pixels, image: Image.Image, shallow: Pixels) -> tuple[Pixels, Pixels | None] | None:
    """RGB and alpha of what OpenCV decoded, if it agrees with what Pillow decoded."""
    has_alpha = image.mode == "RGBA"
    if wide.shape[:2] != shallow.shape[:2] or (has_alpha and wide.shape[2] < 4):
        return None
    colours = np.ascontiguousarray(wide[..., 2::-1])
    if not has_alpha:
        return (colours, None) if _agree(colours, shallow) else None
    alpha = np.ascontiguousarray(wide[..., 3])
    if not _agree(alpha, shallow[..., 3]):
        return None
    if image.format == "TIFF" and _tag(image, ExifTags.Base.ExtraSamples) == _PREMULTIPLIED:
        # Pillow has undone it with 8 bits, which of faint pixels makes another colour: not compared.
        opacity = np.maximum(alpha, 1)[..., None].astype(np.float32) / 65535
        return np.rint(np.minimum(colours / opacity, 65535)).astype(np.uint16), alpha
    return (colours, alpha) if _agree(colours, shallow[..., :3]) else None


def _agree(wide: Pixels, shallow: Pixels) -> bool:
    """Whether 8-bit levels are what 16-bit ones come to, however they are rounded."""
    for top in range(0, len(wide), _BAND_ROWS):
        rows = slice(top, top + _BAND_ROWS)
        difference = (wide[rows] >> 8).astype(np.int16) - shallow[rows]
        if np.abs(difference).max() > 1:
            return False
    return True


def _depth_and_type(path: Path) -> tuple[int, int]:
    """The bits a channel of a PNG, and its colour type."""
    with path.open("rb") as file:
        header = file.read(26)
    return header[24], header[25]


def _tag(image: Image.Image, tag: int) -> Any:  # noqa: ANN401 - what a TIFF may hold
    return image.tag_v2.get(int(tag))  # type: ignore[attr-defined]


def _bare_png(contents: bytes) -> bytes:
    """A PNG without all that is not needed for its pixels, about which decoders may have opinions."""
    parts, at = [SIGNATURE], len(SIGNATURE)
    while at + 8 <= len(contents):
        length, name = struct.unpack_from(">I4s", contents, at)
        if name in {b"IHDR", b"IDAT", b"IEND"}:
            parts.append(contents[at : at + length + 12])
        if name == b"IEND":
            break
        at += length + 12
    return b"".join(parts)
