"""Checks of a picture file's metadata, which could cost more than the pixels.

Pillow reads EXIF and the tags of TIFF when it opens a file, before the size is known. A number in
EXIF or a tag takes microseconds, and up to 400 times as much memory as in the file. The parts of a
file, which may be as short as a byte, take as much: a file of 50 MB with a picture of 8x8 pixels
could take a minute, or days.
"""

import os
import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import IO

from florence_onnx.errors import ImageError

MOST_EXIF = 1 << 20
"""Limit of EXIF in bytes; cameras write 64 KiB at most."""

# Numbers of one TIFF tag. The tags with one number per strip need the most, a strip being a row.
_MOST_NUMBERS = 1 << 18

# A marker of a JPEG; neither a byte 0xff of its data, which 0x00 follows, nor a restart.
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_WITHOUT_LENGTH = (0x01, 0xD8)
_END, _SCAN, _APP1 = 0xD9, 0xDA, 0xE1

_PLACES = (273, 324)
"""Tags of TIFF with the places of strips and tiles."""
_PRIVATE = 1024
"""First of the tags that are not checked."""
_TEXT_OR_BYTES = (1, 2, 7)
"""Types of TIFF whose values Pillow keeps as bytes."""
_MOST_TAGS = 4096

_MOST_PARTS = 20_000
"""Limit of the segments of a JPEG, chunks of a PNG, blocks of a GIF before the picture, which
Pillow reads one by one. A PNG may have one more chunk for each KiB of the file."""
_MOST_FILLED = 1 << 16
"""Limit of the bytes between the segments of a JPEG, and of the head of a PPM."""
_MOST_COMMENTS = 100
"""Limit of the comments of a plain PPM; each comment costs a copy of the file before it."""


def check_metadata(file: IO[bytes], name: str) -> int:
    """Checks a picture file before Pillow opens it.

    Args:
        file: The file.
        name: Name of the picture in the error.

    Returns:
        The number of scans of a JPEG, each of which covers the whole picture; else 0.

    Raises:
        ImageError: The file carries more metadata than any camera or program writes.
    """
    file.seek(0)
    head = file.read(16)
    if head.startswith(b"\xff\xd8\xff"):
        file.seek(0)
        return _check_jpeg(file.read(), name)
    if head[:2] in (b"II", b"MM"):
        _check_tiff(file, head, name)
    elif head.startswith(b"\x89PNG"):
        _check_png(file, name)
    elif head.startswith(b"GIF"):
        _check_gif(file, head, name)
    elif re.match(rb"P[1-7Fyf]", head):
        _check_ppm(file, name)
    return 0


def _too_many(name: str, what: str) -> ImageError:
    return ImageError(f"{name} has more than {what}; save it anew")


def _check_jpeg(data: bytes, name: str) -> int:
    scans = exif = place = parts = filled = 0
    while (found := _MARKER.search(data, place)) and found[1][0] != _END:
        filled += 0 if scans else found.start() - place
        marker, place = found[1][0], found.end()
        parts += 1
        if parts > _MOST_PARTS:
            raise _too_many(name, f"{_MOST_PARTS} segments")
        if marker in _WITHOUT_LENGTH:
            continue
        length = int.from_bytes(data[place : place + 2], "big")
        scans += marker == _SCAN
        exif += length if marker == _APP1 and data.startswith(b"Exif\0\0", place + 2) else 0
        place += length
    if exif > MOST_EXIF:
        raise ImageError(f"{name} has {exif} bytes of EXIF; up to {MOST_EXIF} are read")
    if filled > _MOST_FILLED:
        raise _too_many(name, f"{_MOST_FILLED} bytes between its segments")
    return scans


def _check_png(file: IO[bytes], name: str) -> None:
    size = file.seek(0, os.SEEK_END)
    place, parts = 8, 0
    while place < size:
        file.seek(place)
        place += 12 + int.from_bytes(file.read(4), "big")
        parts += 1
        if parts > _MOST_PARTS + (size >> 10):
            raise _too_many(name, f"{_MOST_PARTS} chunks")


def _check_gif(file: IO[bytes], head: bytes, name: str) -> None:
    colours = 3 * (2 << (head[10] & 7)) if len(head) > 10 and head[10] & 128 else 0
    file.seek(13 + colours)
    if sum(1 for _ in islice(_gif_blocks(file), _MOST_PARTS + 1)) > _MOST_PARTS:
        raise _too_many(name, f"{_MOST_PARTS} blocks before its picture")


def _gif_blocks(file: IO[bytes]) -> Iterator[None]:
    """Reads the part before the first picture, a block or a foreign byte at a time."""
    while (mark := file.read(1)) not in (b"", b",", b";"):
        yield
        if mark == b"!" and file.read(1):
            while (length := file.read(1)) > b"\0":
                file.seek(length[0], os.SEEK_CUR)
                yield


def _check_ppm(file: IO[bytes], name: str) -> None:
    file.seek(0)
    head = file.read(_MOST_FILLED)
    sizes = re.sub(rb"#[^\r\n]*", b"", head).split(maxsplit=4)
    if len(head) == _MOST_FILLED and len(sizes) < 4:
        raise _too_many(name, f"{_MOST_FILLED} bytes before its pixels")
    if head[1:2] in b"123":
        comments = head.count(b"#")
        while data := file.read(1 << 20):
            comments += data.count(b"#")
        if comments > _MOST_COMMENTS:
            raise _too_many(name, f"{_MOST_COMMENTS} comments")


def _check_tiff(file: IO[bytes], head: bytes, name: str) -> None:
    """Checks the first directory. Pillow does not read other directories."""
    order, is_big = "<" if head.startswith(b"I") else ">", head[2:3] == b"+"
    offset, count, entry = ("Q", "Q", "HHQ8x") if is_big else ("L", "H", "HHL4x")
    start = head[8:16] if is_big else head[4:8]
    if len(start) < struct.calcsize(order + offset):
        return
    file.seek(min(struct.unpack(order + offset, start)[0], 1 << 62))
    number = file.read(struct.calcsize(order + count))
    if len(number) < struct.calcsize(order + count):
        return
    entries = struct.unpack(order + count, number)[0]
    if entries > _MOST_TAGS:
        raise _too_many(name, f"{_MOST_TAGS} tags")
    size = struct.calcsize(order + entry)
    data = file.read(entries * size)
    for tag, kind, numbers in struct.iter_unpack(order + entry, data[: len(data) // size * size]):
        is_read = tag in _PLACES or (tag < _PRIVATE and kind not in _TEXT_OR_BYTES)
        if is_read and numbers > _MOST_NUMBERS:
            raise ImageError(f"{name} has {numbers} numbers in tag {tag}; save it anew")
