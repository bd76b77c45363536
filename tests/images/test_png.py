import io
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from deblur_lab.images.png import encode_png

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (9, 4, 2), (1, 1, 3), (13, 6, 3), (5, 8, 4), (40, 30, 3)])
def test_other_decoders_read_what_was_written(
    shape: tuple[int, ...], dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deblur_lab.images.png._BAND_BYTES", 1000)
    pixels = RNG.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)
    contents = encode_png(pixels)
    read = cv2.imdecode(np.frombuffer(contents, np.uint8), cv2.IMREAD_UNCHANGED)
    if len(shape) == 2:
        expected = pixels
    elif shape[2] == 2:
        expected = pixels[..., [0, 0, 0, 1]]
    else:
        expected = pixels[..., [2, 1, 0, 3][: shape[2]]]
    assert np.array_equal(read, expected)
    assert read.dtype == dtype
    image = Image.open(io.BytesIO(contents))
    image.load()
    assert image.size == (shape[1], shape[0])
    if dtype == np.uint8:
        assert np.array_equal(np.asarray(image), pixels)


def test_profile_and_exif_are_embedded_as_they_are() -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[271] = "A camera"
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    image = Image.open(io.BytesIO(encode_png(np.zeros((2, 3), np.uint8), icc=icc, exif=block)))
    image.load()
    assert image.info["icc_profile"] == icc
    assert image.info["exif"] == b"Exif\0\0" + block
    assert image.getexif()[271] == "A camera"


def test_a_photograph_is_not_larger_than_by_pillow() -> None:
    y, x = np.mgrid[0:400, 0:600]
    smooth = 120 + 60 * np.sin(x / 37) * np.cos(y / 23)
    photo = (smooth[..., None] + RNG.normal(0, 2, (400, 600, 3))).clip(0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(photo).save(stream, "PNG")
    contents = encode_png(photo)
    assert len(contents) < len(stream.getvalue())
    assert zlib.crc32(contents) == zlib.crc32(encode_png(photo))
