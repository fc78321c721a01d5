"""Picture files whose head costs more than their pixels."""

import struct
from collections.abc import Callable

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


JPEG, PNG, GIF = (encoded(Image.new("RGB", (8, 8)), name) for name in ("JPEG", "PNG", "GIF"))
SCREEN = 13 + 3 * (2 << (GIF[10] & 7))
"""Bytes of a GIF before its blocks."""
PARTS: dict[str, tuple[Callable[[int], bytes], str]] = {
    "jpeg comments": (lambda n: JPEG[:2] + b"\xff\xfe\0\2" * n + JPEG[2:], "20000 segments"),
    "jpeg fill": (lambda n: JPEG[:2] + b"\xff" * 4 * n + JPEG[2:], "65536 bytes between"),
    "png chunks": (lambda n: PNG[:33] + png_chunk(b"abCd", b"") * n + PNG[33:], "20000 chunks"),
    "png data": (lambda n: PNG[:33] + png_chunk(b"IDAT", b"") * n + PNG[33:], "20000 chunks"),
    "png end": (lambda n: PNG[:-12] + png_chunk(b"abCd", b"") * n + PNG[-12:], "20000 chunks"),
    "gif comments": (lambda n: GIF[:SCREEN] + b"!\xfe\1a\0" * n + GIF[SCREEN:], "20000 blocks"),
    "gif one comment": (
        lambda n: GIF[:SCREEN] + b"!\xfe" + b"\1a" * n + b"\0" + GIF[SCREEN:],
        "20000 blocks",
    ),
    "gif junk": (lambda n: GIF[:SCREEN] + b"\0" * n + GIF[SCREEN:], "20000 blocks"),
    "ppm comment": (lambda n: b"P6 #" + b"x" * 4 * n + b"\n8 8 255 " + bytes(192), "65536 bytes"),
    "ppm comments": (lambda n: b"P5\n8 8\n" + b"#\n" * 2 * n + b"255 " + bytes(64), "65536 bytes"),
    "ppm blanks": (lambda n: b"P4" + b" " * 4 * n + b"8 8 " + bytes(8), "65536 bytes"),
    "plain ppm": (lambda n: b"P2 8 8 255 " + b"#\n" * (n // 80) + b"0 " * 64, "100 comments"),
}


@pytest.mark.parametrize("kind", PARTS)
def test_many_parts(kind: str) -> None:
    """Pillow takes microseconds for each, and for comments of a plain PPM the square of them."""
    make, what = PARTS[kind]
    assert to_rgb(make(5_000)).shape == (8, 8, 3)
    with pytest.raises(ImageError, match=f"has more than {what}.*; save it anew"):
        to_rgb(make(40_000))


def test_a_png_of_many_small_parts() -> None:
    """Some programs write a chunk for every 4 KiB."""
    data = encoded(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9), np.uint8)), "PNG"
    )
    chunks = png_chunk(b"teXt", bytes(1 << 10)) * 25_000
    assert to_rgb(data[:33] + chunks + data[33:]).shape == (9, 9, 3)


def test_a_tiff_of_many_tags() -> None:
    entries = b"".join(struct.pack("<HHQQ", 60_000, 1, 1, 0) for _ in range(5000))
    data = b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, 5000) + entries
    with pytest.raises(ImageError, match="has more than 4096 tags; save it anew"):
        to_rgb(data)


def test_long_exif() -> None:
    """Cameras write 64 KiB; a number takes a microsecond and 20 times its memory."""
    assert to_rgb(jpeg_with(long_exif(5_000))).shape == (16, 8, 3)
    assert to_rgb(png_with(long_exif(20_000))).shape == (16, 8, 3)
    with pytest.raises(ImageError, match=r"has 12002\d\d bytes of EXIF; up to 1048576 are read"):
        to_rgb(jpeg_with(long_exif(150_000)))
    assert to_rgb(png_with(long_exif(150_000))).shape == (8, 16, 3), "its orientation is not read"
