import io
import struct

import pytest
from PIL import ExifTags, Image

from deblur_lab.images.exif import upright

MAKER_NOTE = b"MAKER\0\x01\x02 refers to byte 4711"


def exif_of_a_camera(order: str, thumbnail: bytes, *, behind: bytes = b"") -> bytes:
    """EXIF as cameras lay it out, by hand: Pillow would move and rewrite things."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    make, make_at, exif_at = b"Some Camera\0", 8 + 2 + 3 * 12 + 4, 80
    first = struct.pack(f"{order}H", 3)
    first += struct.pack(f"{order}HHII", 0x010F, 2, len(make), make_at)
    first += struct.pack(f"{order}HHIHH", 0x0112, 3, 1, 6, 0)
    first += struct.pack(f"{order}HHII", 0x8769, 4, 1, exif_at)
    first += struct.pack(f"{order}I", 200)
    inner = (
        struct.pack(f"{order}H", 1) + struct.pack(f"{order}HHII", 0x927C, 7, len(MAKER_NOTE), 110) + bytes(4)
    )
    second = struct.pack(f"{order}H", 2)
    second += struct.pack(f"{order}HHII", 0x0201, 4, 1, 240) + struct.pack(
        f"{order}HHII", 0x0202, 4, 1, len(thumbnail)
    )
    second += bytes(4)
    block = (head + first + make).ljust(exif_at, b"\0") + inner
    block = (block.ljust(110, b"\0") + MAKER_NOTE).ljust(200, b"\0") + second
    return block.ljust(240, b"\0") + thumbnail + behind


def read_back(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + block)
    return exif


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_orientation_and_thumbnail_go_and_all_else_stays_in_its_place(order: str, prefix: bytes) -> None:
    thumbnail = b"\xff\xd8 an old picture \xff\xd9"
    given = exif_of_a_camera(order, thumbnail)
    assert read_back(given)[ExifTags.Base.Orientation] == 6
    assert read_back(given).get_ifd(ExifTags.IFD.IFD1)
    made = upright(prefix + given)
    assert made is not None
    exif = read_back(made)
    assert ExifTags.Base.Orientation not in exif
    assert exif[ExifTags.Base.Make] == "Some Camera"
    assert exif.get_ifd(ExifTags.IFD.Exif)[0x927C] == MAKER_NOTE
    assert not exif.get_ifd(ExifTags.IFD.IFD1)
    assert b"old picture" not in made
    assert made.index(MAKER_NOTE) == given.index(MAKER_NOTE)
    assert upright(made) == made


def test_a_thumbnail_before_other_things_is_blanked() -> None:
    behind = b"what stands behind it"
    made = upright(exif_of_a_camera("<", b"old picture", behind=behind))
    assert made is not None
    assert b"old picture" not in made
    assert made.endswith(behind)
    assert len(made) == len(exif_of_a_camera("<", b"old picture", behind=behind))


@pytest.mark.parametrize("cut", range(0, 44, 3))
def test_what_makes_no_sense_is_left_out(cut: int) -> None:
    assert upright(exif_of_a_camera("<", b"")[:cut]) is None
    assert upright(b"no exif" + bytes(cut)) is None


def test_what_pillow_wrote_is_read() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    stream = io.BytesIO()
    Image.new("RGB", (2, 2)).save(stream, "JPEG", exif=exif)
    made = upright(Image.open(stream).info["exif"])
    assert made is not None
    assert dict(read_back(made)) == {}
