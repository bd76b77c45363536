"""EXIF, kept byte for byte but for what is no longer true once a picture was turned and restored."""

import struct

_PREFIX = b"Exif\0\0"
_ORIENTATION = 0x0112
_THUMBNAIL_OFFSET, _THUMBNAIL_BYTES = 0x0201, 0x0202
_ENTRY_BYTES = 12


def upright(exif: bytes) -> bytes | None:
    """EXIF without its orientation, which was applied, and its thumbnail, which shows the old picture.

    Nothing else is moved or rewritten: what a camera's maker stores refers to itself by position.

    Args:
        exif: As a file holds it, with or without the words "Exif" before its TIFF header.

    Returns:
        From the TIFF header on; None if it makes no sense.
    """
    block = bytearray(exif.removeprefix(_PREFIX))
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(block[:4]))
    if order is None:
        return None
    try:
        (first,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, first)
        start, end = first + 2, first + 2 + count * _ENTRY_BYTES
        (thumbnail,) = struct.unpack_from(f"{order}I", block, end)
        entries = [bytes(block[at : at + _ENTRY_BYTES]) for at in range(start, end, _ENTRY_BYTES)]
        kept = [entry for entry in entries if struct.unpack_from(f"{order}H", entry)[0] != _ORIENTATION]
        # After the entries stands the position of the thumbnail's, which zeros stand for the lack of.
        size = end + 4 - first
        block[first : end + 4] = (struct.pack(f"{order}H", len(kept)) + b"".join(kept)).ljust(size, b"\0")
        if thumbnail:
            _blank_thumbnail(block, thumbnail, order)
    except struct.error:
        return None
    return bytes(block)


def _blank_thumbnail(block: bytearray, directory: int, order: str) -> None:
    """Cut the thumbnail's picture off where it stands last, or else overwrite it with zeros."""
    (count,) = struct.unpack_from(f"{order}H", block, directory)
    values = {}
    for number in range(count):
        at = directory + 2 + number * _ENTRY_BYTES
        tag, _, _, value = struct.unpack_from(f"{order}HHII", block, at)
        values[tag] = value
    start, length = values.get(_THUMBNAIL_OFFSET, 0), values.get(_THUMBNAIL_BYTES, 0)
    if not 8 <= start <= len(block):
        return
    end = min(start + length, len(block))
    if len(block) - end < 4:
        del block[start:]
    else:
        block[start:end] = bytes(end - start)
