"""Colour profiles, made by hand: none of CMYK can be relied on to be anywhere."""

import struct


def cmyk_profile() -> bytes:
    """A CMYK profile whose colours are surely not those of the plain formula: each ink makes gray.

    From the four inks to Lab by a table of two points a side; L falls by 20 an ink, a and b are 0.
    """
    curve = bytes(range(256))
    table = bytearray()
    for corner in range(16):
        lightness = 100 - 20 * corner.bit_count()
        table += bytes([round(lightness * 255 / 100), 128, 128])
    identity = struct.pack(">9i", *(65536 * one for one in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + 4 * curve + bytes(table) + 3 * curve
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    text = b"text" + bytes(4) + b"test\0"
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut, b"wtpt": white, b"cprt": text})


def _profile(kind: bytes, colours: bytes, space: bytes, tags: dict[bytes, bytes]) -> bytes:
    offset = 128 + 4 + 12 * len(tags)
    table, contents = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        padded = data + bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(contents), len(data))
        contents += padded
    header = bytearray(128)
    header[0:4] = struct.pack(">I", offset + len(contents))
    header[8:12] = bytes([2, 0x40, 0, 0])
    header[12:16], header[16:20], header[20:24] = kind, colours, space
    header[36:40] = b"acsp"
    header[68:80] = struct.pack(">3i", 63190, 65536, 54061)
    return bytes(header) + table + contents
