"""Pictures inside a page that must not grow too large."""

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

from deblur_lab.errors import DataError
from deblur_lab.report_page.markup import escaped

# Wider pictures are shrunk for the page, which a browser would do anyway.
_WIDEST_PX = 1280
# Narrower ones would show nothing of deblurring.
_NARROWEST_PX = 320
_QUALITY = 88
# Small ones are there to be looked at pixel by pixel.
_SMALL_QUALITY = 92
# About what a pixel of a photograph takes at that quality, as text.
_BYTES_A_PIXEL = 0.36


@dataclass
class Budget:
    """How much of a page pictures may take, and what did not fit.

    Attributes:
        left_bytes: of text, as pictures stand in a page.
        left_out: how many did not fit.
        widest_px: wider ones are shrunk to this.
        quality: of those that are not small; 0 to 100.
        prefix: of their addresses within the page.
    """

    left_bytes: int
    left_out: int = 0
    widest_px: int = _WIDEST_PX
    quality: int = _QUALITY
    prefix: str = "picture"
    _anchors: dict[str, str] = field(default_factory=dict)

    def share_out(self, sizes_px: Sequence[tuple[int, int]]) -> None:
        """Choose a width at which pictures of these sizes, (width, height), are likely to fit all."""
        for width_px in range(_WIDEST_PX, _NARROWEST_PX - 1, -80):
            pixels = sum(min(width, width_px) ** 2 * height / width for width, height in sizes_px)
            if pixels * _BYTES_A_PIXEL <= self.left_bytes:
                break
        self.widest_px = width_px

    def image(self, path: Path, told: str, shape: tuple[int, int] | None = None) -> str | None:
        """A picture as an ``img``; of one that stands in the page already, whatever its file, its address.

        Args:
            path: of the picture.
            told: what it shows, in words.
            shape: (width, height) whose ratio it is to have: what is below that is cut off.

        Returns:
            The element; None if it does not fit.

        Raises:
            DataError: it cannot be read.
        """
        digest = digest_of(path)
        anchor = self._anchors.get(digest)
        if anchor is not None:
            again = f'<img data-same="{anchor}" alt="{escaped(told)}">'
            self.left_bytes -= len(again)
            return again
        picture = opened(path)
        if shape is not None:
            inside = round(picture.width * shape[1] / shape[0])
            picture = picture.crop((0, 0, picture.width, min(inside, picture.height)))
        if picture.width > self.widest_px:
            height_px = max(1, round(picture.height * self.widest_px / picture.width))
            picture = picture.resize((self.widest_px, height_px), Image.Resampling.LANCZOS)
        address = self._encoded(picture)
        anchor = f"{self.prefix}-{len(self._anchors) + 1}"
        size = f'width="{picture.width}" height="{picture.height}"'
        drawn = f'<img id="{anchor}" src="{address}" alt="{escaped(told)}" {size} loading=lazy>'
        if len(drawn) > self.left_bytes:
            self.left_out += 1
            return None
        self.left_bytes -= len(drawn)
        self._anchors[digest] = anchor
        return drawn

    def state(self) -> tuple[int, dict[str, str]]:
        """What `back` returns to."""
        return self.left_bytes, dict(self._anchors)

    def back(self, state: tuple[int, dict[str, str]]) -> None:
        """Forget the pictures since then, which are not in the page after all."""
        self.left_bytes, self._anchors = state[0], dict(state[1])

    def _encoded(self, picture: Image.Image) -> str:
        """A picture as a ``data:`` address."""
        buffer = io.BytesIO()
        small = picture.width <= _NARROWEST_PX
        picture.save(buffer, "WEBP", quality=_SMALL_QUALITY if small else self.quality, method=4)
        return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def digest_of(path: Path) -> str:
    """What two files of the same contents have in common.

    Raises:
        DataError: it cannot be read.
    """
    try:
        known = path.stat()
        return _digest(path, known.st_size, known.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{path} cannot be read as a picture ({error}): remove it") from error


@cache
def _digest(path: Path, size: int, changed_ns: int) -> str:
    """Read once for as long as a file stays as it is: pictures of all runs are asked for several times."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
