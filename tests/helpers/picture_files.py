"""Picture files, sound and not."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def blocks(side: int) -> Image.Image:
    """An RGB picture of 16 x 16 colours: quick to encode at any size."""
    colours = np.random.default_rng(5).integers(0, 256, (16, 16, 3), np.uint8)
    return Image.fromarray(colours).resize((side, side), Image.Resampling.NEAREST)


def png_chunk(name: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check


def tiff(tags: dict[int, int | list[int]], data: bytes = b"") -> bytes:
    """A little-endian TIFF; 273 and 324 (offsets) hold the place of ``data``, repeated."""
    start = 8 + 2 + 12 * len(tags) + 4
    lists = {tag: value for tag, value in tags.items() if isinstance(value, list)}
    place = start + 4 * sum(len(value) for value in lists.values() if len(value) > 1)
    entries = far = b""
    for tag, value in sorted(tags.items()):
        values = value if isinstance(value, list) else [value]
        packed = b"".join(struct.pack("<I", place if tag in (273, 324) else v) for v in values)
        if len(values) > 1:
            packed, far = struct.pack("<I", start + len(far)), far + packed
        entries += struct.pack("<HHI", tag, 4, len(values)) + packed
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + far + data


GREY_TIFF: dict[int, int | list[int]] = {258: 8, 259: 1, 262: 1, 277: 1}
