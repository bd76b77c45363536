"""Pure functions on pictures: read, check, write, convert, quantise, restore in tiles.

`files` holds what training and scoring read (8-bit RGB, masks), `photos` a person's photo with all that is
kept of it, `tensors` the way to the nets and back, `tiles` large pictures piece by piece.
"""

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
