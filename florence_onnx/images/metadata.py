"""What stands around the pixels of a picture file, where it could cost more than the pixels do.

Pillow reads EXIF and the tags of TIFF when it opens a file, before the size is known. A number in
these takes up to 400 times as much memory as in the file, and microseconds.
"""

import re
import struct
from typing import IO

from florence_onnx.errors import ImageError

MOST_EXIF = 1 << 20
"""Bytes of EXIF; cameras write 64 KiB at most."""

# Numbers of one TIFF tag. The tags with one number per strip need the most, a strip being a row.
_MOST_NUMBERS = 1 << 18

# A marker of a JPEG; neither a byte 0xff of its data, which 0x00 follows, nor a restart.
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_WITHOUT_LENGTH = (0x01, 0xD8)
_END, _SCAN, _APP1 = 0xD9, 0xDA, 0xE1

_PLACES = (273, 324)
"""The tags of TIFF that say where strips and tiles are."""
_PRIVATE = 1024
"""Other tags from here on are not looked into."""
_TEXT_OR_BYTES = (1, 2, 7)
"""Types of TIFF that are kept as they are."""


def check_metadata(file: IO[bytes], name: str) -> int:
    """Checks a picture file before Pillow opens it.

    Args:
        file: The file.
        name: What the error calls it.

    Returns:
        How many scans it has if it is a JPEG, else 0: how often it goes over its picture.

    Raises:
        ImageError: It carries more than any camera or program writes.
    """
    file.seek(0)
    head = file.read(16)
    if head.startswith(b"\xff\xd8\xff"):
        file.seek(0)
        return _check_jpeg(file.read(), name)
    if head[:2] in (b"II", b"MM"):
        _check_tiff(file, head, name)
    return 0


def _check_jpeg(data: bytes, name: str) -> int:
    scans = exif = place = 0
    while (found := _MARKER.search(data, place)) and found[1][0] != _END:
        marker, place = found[1][0], found.end()
        if marker in _WITHOUT_LENGTH:
            continue
        length = int.from_bytes(data[place : place + 2], "big")
        scans += marker == _SCAN
        exif += length if marker == _APP1 and data.startswith(b"Exif\0\0", place + 2) else 0
        place += length
    if exif > MOST_EXIF:
        raise ImageError(f"{name} has {exif} bytes of EXIF; up to {MOST_EXIF} are read")
    return scans


def _check_tiff(file: IO[bytes], head: bytes, name: str) -> None:
    """Checks the first directory; the others are not read."""
    order, is_big = "<" if head.startswith(b"I") else ">", head[2:3] == b"+"
    offset, count, entry = ("Q", "Q", "HHQ8x") if is_big else ("L", "H", "HHL4x")
    start = head[8:16] if is_big else head[4:8]
    if len(start) < struct.calcsize(order + offset):
        return
    file.seek(min(struct.unpack(order + offset, start)[0], 1 << 62))
    number = file.read(struct.calcsize(order + count))
    if len(number) < struct.calcsize(order + count):
        return
    entries = min(struct.unpack(order + count, number)[0], 1 << 16)
    size = struct.calcsize(order + entry)
    data = file.read(entries * size)
    for tag, kind, numbers in struct.iter_unpack(order + entry, data[: len(data) // size * size]):
        is_read = tag in _PLACES or (tag < _PRIVATE and kind not in _TEXT_OR_BYTES)
        if is_read and numbers > _MOST_NUMBERS:
            raise ImageError(f"{name} has {numbers} numbers in tag {tag}; save it anew")
