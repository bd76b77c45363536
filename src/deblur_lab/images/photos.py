"""A person's photo: what is read of it, what is shown to a net, and how it is written again.

More is kept than of training pictures: 16 bits a channel, gray, transparency, the colour profile, EXIF. What
a file may hold, and what comes of it:

- Orientation (EXIF, XMP) is applied once, and left out of the EXIF that is kept; so is the thumbnail. XMP and
  other metadata are not kept.
- Gray stays gray, and two-level pictures become gray. Palettes become RGB, or RGB with alpha.
- 16 bits a channel are kept: of PNG and TIFF, and of gray in JPEG 2000 and Netpbm too. Other formats that
  have more than 8 are read as 8.
- Transparency is kept beside the colours.
- CMYK becomes sRGB through the profile that the file carries, or without a profile by the plain formula.
- Profiles of gray and RGB pictures are kept as they are, and values with them: nothing is converted.
- Of several frames or pages the first is read.
- 32-bit integers and floating point are refused, because what is white in them is not known.
"""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from deblur_lab.images.deep import holds_deep_colour, read_deep_colour, turned
from deblur_lab.images.exif import upright
from deblur_lab.images.files import (
    MAX_PIXELS,
    ImageError,
    has_16_bits,
    opened,
    quoted,
    require_white,
    white_is_zero,
    write_whole,
)
from deblur_lab.images.png import SIGNATURE, encode_png

Pixels = NDArray[Any]
Kind = Literal["jpeg", "png"]

JPEG_SUFFIXES = frozenset([".jpg", ".jpeg", ".jpe", ".jfif"])

LUMA = np.array((0.299, 0.587, 0.114), np.float32)
"""What red, green and blue add to how bright a pixel is (ITU-R BT.601)."""

_PREFIX = b"Exif\0\0"
_JPEG_EXIF_BYTES = 65_533 - len(_PREFIX)  # what a segment of a JPEG holds
_BAND_ROWS = 512
# What of a TIFF's tags says how its pixels are stored is not kept: the picture is stored otherwise.
_TIFF_TAGS_KEPT = tuple(
    map(
        int,
        (
            ExifTags.Base.ImageDescription,
            ExifTags.Base.Make,
            ExifTags.Base.Model,
            ExifTags.Base.Software,
            ExifTags.Base.DateTime,
            ExifTags.Base.Artist,
            ExifTags.Base.Copyright,
        ),
    )
)


@dataclass(frozen=True)
class Photo:
    """A photo as displayed, and what is kept beside its colours.

    Attributes:
        pixels: (H, W, 3) uint8 or uint16, RGB; three equal channels if it is gray.
        alpha: (H, W) of the same type, 0 = transparent; None without transparency.
        gray: Whether it has one channel.
        icc: Its colour profile.
        exif: From its TIFF header on, without orientation and thumbnail.
        notes: What was not kept and may be missed, a few words each.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    gray: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]


def read_photo(path: Path, *, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a photo with all that the module's description lists.

    Args:
        path: The file, of any kind that Pillow reads.
        max_pixels: A larger picture is refused from its header, before anything is decoded.

    Raises:
        ImageError: The file is missing, empty, truncated, corrupt, too large or of a kind that is not read.
    """
    with opened(path, max_pixels) as image:
        notes = _of_several(image)
        require_white(image, path)
        # Pillow turns a TIFF while it decodes it, and then knows no more of it.
        of_tiff = _orientation(image) if image.format == "TIFF" else None
        image.load()
        if holds_deep_colour(path, image):
            deep = read_deep_colour(path, image, of_tiff or _orientation(image))
            if deep is not None:
                icc = image.info.get("icc_profile")
                return Photo(deep.pixels, deep.alpha, deep.gray, icc, _exif(image), notes)
            notes += ("its 16 bits a channel are stored in a way of which only 8 are read",)
        photo = photo_of(image)
        return replace(photo, notes=notes + photo.notes)


def photo_of(image: Image.Image) -> Photo:
    """What a Pillow image shows, as displayed, with what is kept of its metadata.

    Args:
        image: Of any mode but "I" and "F", in which white is not defined ("I" of Netpbm is 16 bits).
    """
    image.load()
    orientation, exif = _orientation(image), _exif(image)
    icc = image.info.get("icc_profile")
    notes: tuple[str, ...] = ()
    alpha: Pixels | None = None
    is_gray = has_16_bits(image) or image.mode in {"1", "L", "LA", "La"}
    if has_16_bits(image):
        key = image.info.get("transparency")
        pixels = np.asarray(image).astype(np.uint16)
        alpha = np.where(pixels == key, 0, 65535).astype(np.uint16) if isinstance(key, int) else None
        if white_is_zero(image):
            pixels = 65535 - pixels
    else:
        if image.mode == "CMYK":
            image, notes = _without_inks(image, icc)
            icc = None
        if image.has_transparency_data:
            image = image.convert("RGBA")
            alpha = np.asarray(image.getchannel("A"))
        mode = "L" if is_gray else "RGB"
        # To convert to what it is would be to copy it.
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    pixels = turned(pixels, orientation)
    alpha = None if alpha is None else turned(alpha, orientation)
    return Photo(_three(pixels) if is_gray else pixels, alpha, is_gray, icc, exif, notes)


def shown(photo: Photo) -> Pixels:
    """The pixels that a net is to see.

    Under full transparency there may be any colour, often black, which a net would mix into what is visible
    beside it. Each such pixel is given the colour of the nearest one that is visible.

    Returns:
        (H, W, 3), of the photo's type.
    """
    if photo.alpha is None or bool(photo.alpha.all()) or not bool(photo.alpha.any()):
        return photo.pixels
    hidden = np.ascontiguousarray(photo.alpha == 0)
    _, labels = cv2.distanceTransformWithLabels(
        hidden.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colours = np.empty((int(labels.max()) + 1, 3), photo.pixels.dtype)
    colours[labels[~hidden]] = photo.pixels[~hidden]
    filled = np.array(photo.pixels)
    filled[hidden] = colours[labels[hidden]]
    return filled


def restored_photo(photo: Photo, pixels: Pixels) -> Photo:
    """The photo with other colours: gray if it is gray, and as it was where it is fully transparent.

    Args:
        photo: Before.
        pixels: (H, W, 3) of the photo's type, restored; written to.
    """
    assert pixels.shape == photo.pixels.shape, "the same size"
    assert pixels.dtype == photo.pixels.dtype, "the same type"
    if photo.gray:
        luma = np.empty(pixels.shape[:2], pixels.dtype)
        for top in range(0, len(pixels), _BAND_ROWS):
            rows = slice(top, top + _BAND_ROWS)
            np.rint(pixels[rows].astype(np.float32) @ LUMA, out=luma[rows], casting="unsafe")
        pixels = _three(luma)
    if photo.alpha is not None:
        hidden = photo.alpha == 0
        if bool(hidden.any()):
            pixels = np.where(hidden[..., None], photo.pixels, pixels)
    return replace(photo, pixels=pixels)


def write_photo(path: Path, photo: Photo, kind: Kind, *, jpeg_quality: int = 95) -> tuple[str, ...]:
    """Write a photo, whole or not at all.

    PNG holds all of it. JPEG (4:4:4) has 8 bits and no transparency: that is laid over white.

    Args:
        path: The file, in a folder that exists; an older one is replaced.
        photo: With metadata, which are written too.
        kind: "png" or "jpeg".
        jpeg_quality: 1 to 100.

    Returns:
        Notes: what the file could not hold.

    Raises:
        ImageError: JPEG cannot hold a picture of this size.
        MachineError: The file cannot be written.
    """
    if kind == "png":
        write_whole(path, encode_png(_channels(photo), icc=photo.icc, exif=photo.exif))
        return ()
    width, height = photo.size
    if max(width, height) > 65500:
        raise ImageError(f"{quoted(path)}: a JPEG has no more than 65500 pixels a side: use format=png")
    notes = []
    if photo.alpha is not None:
        photo = over_white(photo)
        notes.append("its transparency was laid over white, as JPEG has none")
    if photo.pixels.dtype != np.uint8:
        photo = replace(photo, pixels=eight_bits(photo.pixels))
        notes.append("its 16 bits a channel became 8, as JPEG has no more")
    exif = photo.exif
    if exif is not None and len(exif) > _JPEG_EXIF_BYTES:
        exif = None
        notes.append("its EXIF is too long for a JPEG and was left out")
    stream = io.BytesIO()
    pixels = np.ascontiguousarray(_channels(photo))
    Image.fromarray(pixels).save(
        stream,
        "JPEG",
        quality=jpeg_quality,
        subsampling=0,
        icc_profile=photo.icc,
        exif=b"" if exif is None else _PREFIX + exif,
    )
    write_whole(path, stream.getvalue())
    return tuple(notes)


def image_of(photo: Photo) -> Image.Image:
    """The photo as a Pillow image: L, LA, RGB or RGBA, or I;16; with its metadata in `info`.

    16 bits become 8 where Pillow has no more: of colours, and beside alpha.
    """
    if photo.pixels.dtype == np.uint16 and not (photo.gray and photo.alpha is None):
        alpha = None if photo.alpha is None else eight_bits(photo.alpha)
        photo = replace(photo, pixels=eight_bits(photo.pixels), alpha=alpha)
    image = Image.fromarray(np.ascontiguousarray(_channels(photo)))
    if photo.icc is not None:
        image.info["icc_profile"] = photo.icc
    if photo.exif is not None:
        image.info["exif"] = _PREFIX + photo.exif
    return image


def over_white(photo: Photo) -> Photo:
    """The photo laid over white, as on paper, without alpha."""
    if photo.alpha is None:
        return photo
    white = np.iinfo(photo.pixels.dtype).max
    pixels = np.empty(photo.pixels.shape, photo.pixels.dtype)
    for top in range(0, len(pixels), _BAND_ROWS):
        rows = slice(top, top + _BAND_ROWS)
        opacity = photo.alpha[rows, :, None].astype(np.float32) / white
        mixed = photo.pixels[rows] * opacity + white * (1 - opacity)
        np.rint(mixed, out=pixels[rows], casting="unsafe")
    return replace(photo, pixels=pixels, alpha=None)


def eight_bits(pixels: Pixels) -> NDArray[np.uint8]:
    """Pixels of 8 or 16 bits as 8 bits, rounded to the nearest."""
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def written_kind(path: Path) -> Kind:
    """How a photo is written that shall stay what it is: JPEG if its file is one, else PNG.

    What cannot be read is judged by its name.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(SIGNATURE))
    except OSError:
        start = b""
    if len(start) < 3:
        return "jpeg" if path.suffix.lower() in JPEG_SUFFIXES else "png"
    return "jpeg" if start.startswith(b"\xff\xd8\xff") else "png"


def _three(gray: Pixels) -> Pixels:
    """(H, W) as (H, W, 3), without a copy."""
    return np.broadcast_to(gray[..., None], (*gray.shape, 3))


def _channels(photo: Photo) -> Pixels:
    """What is stored of a photo: (H, W) gray, or (H, W, C) with colours and alpha."""
    colours = photo.pixels[..., :1] if photo.gray else photo.pixels
    if photo.alpha is not None:
        return np.concatenate([colours, photo.alpha[..., None]], axis=2)
    return colours[..., 0] if photo.gray else colours


def _of_several(image: Image.Image) -> tuple[str, ...]:
    if image.format == "MPO":  # of a phone or a camera: a photo, and what it adds for itself
        return ()
    count = getattr(image, "n_frames", 1)
    return (f"of its {count} frames or pages the first is restored",) if count > 1 else ()


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(ExifTags.Base.Orientation, 1)
    return value if value in range(1, 9) else 1


def _exif(image: Image.Image) -> bytes | None:
    """EXIF of a decoded picture (of PNG some stands behind the pixels), without what is no longer true."""
    stored = image.info.get("exif")
    if isinstance(stored, bytes) and image.format != "TIFF":
        return upright(stored)
    found = image.getexif()
    kept = Image.Exif()
    for tag in _TIFF_TAGS_KEPT if image.format == "TIFF" else tuple(found):
        if tag in found and tag != ExifTags.Base.Orientation:
            kept[tag] = found[tag]
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        entries = found.get_ifd(directory)
        if entries:
            kept[int(directory)] = dict(entries)
    if not kept:
        return None
    try:
        return upright(kept.tobytes())
    except Exception:  # values that Pillow reads but cannot write; the picture is worth more
        return None


def _without_inks(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, tuple[str, ...]]:
    """CMYK as RGB, with a note where its colours are only roughly right."""
    if icc is None:
        return image.convert("RGB"), ("CMYK without a colour profile: its colours are approximate",)
    try:
        converted = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(icc)),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError):
        return image.convert("RGB"), ("CMYK with a profile that is of no use: its colours are approximate",)
    assert converted is not None, "it was not asked to be converted in place"
    return converted, ()
