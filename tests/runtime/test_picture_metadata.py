"""Picture files whose head costs more than their pixels."""

import struct

import numpy as np
import pytest
from PIL import Image

from florence_onnx.errors import ImageError
from florence_onnx.images.pixels import to_rgb
from tests.helpers.picture_files import GREY_TIFF, blocks, encoded, png_chunk, tiff

# Pixels that are named more than once


def test_a_tiff_tile_larger_than_its_picture() -> None:
    tags = {**GREY_TIFF, 256: 16, 257: 16, 259: 8, 322: 16384, 323: 16384, 324: 0, 325: 9}
    with pytest.raises(ImageError, match=r"claims 16x16 pixels, and decoding it may take 1281 MiB"):
        to_rgb(tiff(tags, b"x" * 9))


def test_a_tiff_that_draws_the_same_strip_again_and_again() -> None:
    data = np.arange(256, dtype=np.uint8).tobytes()
    tags = {**GREY_TIFF, 256: 16, 257: 16, 278: 15}
    once = tiff({**tags, 273: [0] * 2, 279: [256] * 2}, data)
    assert to_rgb(once)[0, :, 0].tolist() == list(range(16))
    with pytest.raises(ImageError, match="names the same pixels again and again; save it anew"):
        to_rgb(tiff({**tags, 273: [0] * 400, 279: [256] * 400}, data))


def scans(side: int, count: int, extra: bytes = b"") -> bytes:
    """A progressive JPEG of one grey whose last scan comes again, ``extra`` after each."""
    data = encoded(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2] + extra
    return data[:-2] + last * count + b"\xff\xd9"


@pytest.mark.parametrize("extra", [b"", b"\xff\xfe\x00\x06\xff\xd9\0\0"], ids=["", "false end"])
def test_a_jpeg_of_many_scans(extra: bytes) -> None:
    """Ends that stand in a comment do not end it."""
    assert to_rgb(scans(64, 300, extra)).shape == (64, 64, 3)
    with pytest.raises(ImageError, match="goes over its 1000000 pixels 3006 times; save it anew"):
        to_rgb(scans(1000, 3000, extra))


def test_what_follows_a_jpeg_is_none_of_its_scans() -> None:
    """A motion photo: a film is put behind the picture."""
    data = encoded(Image.new("L", (1000, 1000)), "JPEG") + b"\xff\xda\0\x02" * 40_000
    assert to_rgb(data).shape == (1000, 1000, 3)


# What stands around the pixels


def test_a_tiff_of_many_strips() -> None:
    """Each takes 250 bytes of memory when Pillow opens the file."""
    rows, many = 1000, (1 << 18) + 1
    tags = {**GREY_TIFF, 256: 1, 257: rows, 278: 1}
    assert to_rgb(tiff({**tags, 273: [0] * rows, 279: [1] * rows}, b"x")).shape == (rows, 1, 3)
    with pytest.raises(ImageError, match=f"{many} numbers in tag 273; save it anew"):
        to_rgb(tiff({**tags, 273: [0] * many, 279: 1}, b"x"))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 3, 5])
def test_tags_of_both_byte_orders_and_sizes(order: str, kind: int) -> None:
    mark, many = {"<": b"II", ">": b"MM"}[order], 1 << 19
    entry = struct.pack(f"{order}HHHLL", 1, 324, kind, many, 0)
    plain = mark + struct.pack(f"{order}HL", 42, 8) + entry
    big_entry = struct.pack(f"{order}QHHQQ", 1, 324, kind, many << 9, 0)
    big = mark + b"+\0" + struct.pack(f"{order}HHQ", 8, 0, 16) + big_entry
    for data, count in ((plain, many), (big, many << 9)):
        with pytest.raises(ImageError, match=f"{count} numbers in tag 324"):
            to_rgb(data)
        for length in range(3, len(data)):
            with pytest.raises(ImageError):
                to_rgb(data[:length])


def long_exif(count: int) -> bytes:
    """An orientation and a resolution of many numbers."""
    entries = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHII", 0x011A, 5, count, 38)
    return b"II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4) + b"\1\0\0\0" * 2 * count


def jpeg_with(exif: bytes) -> bytes:
    """EXIF that is longer than a segment goes on in the next."""
    parts = [b"Exif\0\0" + exif[at : at + 60_000] for at in range(0, len(exif), 60_000)]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in parts)
    data = encoded(blocks(16).crop((0, 0, 16, 8)), "JPEG")
    return data[:2] + segments + data[2:]


def png_with(exif: bytes) -> bytes:
    data = encoded(blocks(16).crop((0, 0, 16, 8)), "PNG")
    return data[:33] + png_chunk(b"eXIf", exif) + data[33:]


def test_long_exif() -> None:
    """Cameras write 64 KiB; a number takes a microsecond and 20 times its memory."""
    assert to_rgb(jpeg_with(long_exif(5_000))).shape == (16, 8, 3)
    assert to_rgb(png_with(long_exif(20_000))).shape == (16, 8, 3)
    with pytest.raises(ImageError, match=r"has 12002\d\d bytes of EXIF; up to 1048576 are read"):
        to_rgb(jpeg_with(long_exif(150_000)))
    assert to_rgb(png_with(long_exif(150_000))).shape == (8, 16, 3), "its orientation is not read"
