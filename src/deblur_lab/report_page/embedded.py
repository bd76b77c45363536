"""Pictures inside a page that must not grow too large."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from deblur_lab.errors import DataError

# Wider pictures are shrunk for the page, which a browser would do anyway.
_WIDEST_PX = 1280
# Narrower ones would show nothing of deblurring.
_NARROWEST_PX = 320
_QUALITY = 88
# About what a pixel of a photograph takes at that quality, as text.
_BYTES_A_PIXEL = 0.36


@dataclass
class Budget:
    """How much of a page pictures may take, and what did not fit.

    Attributes:
        left_bytes: of text, as pictures stand in a page.
        left_out: how many did not fit.
    """

    left_bytes: int
    left_out: int = 0
    widest_px: int = _WIDEST_PX

    def share_out(self, sizes_px: Sequence[tuple[int, int]]) -> None:
        """Choose a width at which pictures of these sizes, (width, height), are likely to fit all."""
        for width_px in range(_WIDEST_PX, _NARROWEST_PX - 1, -80):
            pixels = sum(min(width, width_px) ** 2 * height / width for width, height in sizes_px)
            if pixels * _BYTES_A_PIXEL <= self.left_bytes:
                break
        self.widest_px = width_px

    def embed(self, picture: Image.Image) -> str | None:
        """A picture as a ``data:`` address, shrunk as far as must be; None if it does not fit."""
        if picture.width > self.widest_px:
            height_px = max(1, round(picture.height * self.widest_px / picture.width))
            picture = picture.resize((self.widest_px, height_px), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        # Small ones are there to be looked at pixel by pixel.
        picture.save(buffer, "WEBP", quality=95 if picture.width <= _NARROWEST_PX else _QUALITY, method=4)
        address = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
        if len(address) > self.left_bytes:
            self.left_out += 1
            return None
        self.left_bytes -= len(address)
        return address


def opened(path: Path) -> Image.Image:
    """A picture as RGB.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    except Exception as error:  # Pillow raises many kinds
        raise DataError(f"{path} cannot be read as a picture ({error}): remove it") from error


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a picture, from its header.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with Image.open(path) as file:
            return file.size
    except Exception as error:  # Pillow raises many kinds
        raise DataError(f"{path} cannot be read as a picture ({error}): remove it") from error
