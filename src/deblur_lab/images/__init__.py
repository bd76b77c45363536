"""Pure functions on pictures: read, check, write, convert, quantise, restore in tiles.

`files` holds what training and scoring read (8-bit RGB, masks), `photos` a person's photo with all that is
kept of it, `tensors` the way to the nets and back, `tiles` large pictures piece by piece.

The names are loaded when they are first used: reading files needs no PyTorch, which takes each worker process
seconds to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deblur_lab.images.files import (
        MAX_PIXELS,
        PICTURE_SUFFIXES,
        ImageError,
        check_picture,
        quoted,
        read_mask,
        read_rgb,
        write_png,
    )
    from deblur_lab.images.photos import Photo, read_photo, write_photo
    from deblur_lab.images.tensors import quantise, to_levels, to_tensor, to_uint8
    from deblur_lab.images.tiles import restore_tiled

_MODULES = {
    "MAX_PIXELS": "files",
    "PICTURE_SUFFIXES": "files",
    "ImageError": "files",
    "Photo": "photos",
    "check_picture": "files",
    "quantise": "tensors",
    "quoted": "files",
    "read_mask": "files",
    "read_photo": "photos",
    "read_rgb": "files",
    "restore_tiled": "tiles",
    "to_levels": "tensors",
    "to_tensor": "tensors",
    "to_uint8": "tensors",
    "write_photo": "photos",
    "write_png": "files",
}

__all__ = [
    "MAX_PIXELS",
    "PICTURE_SUFFIXES",
    "ImageError",
    "Photo",
    "check_picture",
    "quantise",
    "quoted",
    "read_mask",
    "read_photo",
    "read_rgb",
    "restore_tiled",
    "to_levels",
    "to_tensor",
    "to_uint8",
    "write_photo",
    "write_png",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names above
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
