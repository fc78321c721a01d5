"""Pictures from strangers: formats by name, and memory and time that follow the promise."""

import io
import json
import os
import re
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, features

from florence_onnx.cli.program import main
from florence_onnx.errors import ImageError
from florence_onnx.images import pixels
from florence_onnx.images.limits import MEMORY_VARIABLE
from florence_onnx.images.pixels import to_rgb
from tests.helpers import peak_memory
from tests.helpers.strange_files import KINDS, strange_file
from tests.helpers.tiny import TINY, run_python

MIB = 1 << 20

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def blocks(side: int) -> Image.Image:
    """An RGB picture of 16 x 16 colours: quick to encode at any size."""
    colours = np.random.default_rng(5).integers(0, 256, (16, 16, 3), np.uint8)
    return Image.fromarray(colours).resize((side, side), Image.Resampling.NEAREST)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def plain_ppm(side: int) -> bytes:
    values = b" ".join(b"%d" % value for value in np.asarray(blocks(side)).ravel())
    return b"P3 %d %d 255\n" % (side, side) + values


def pictures(side: int) -> dict[str, bytes]:
    """One file for every way in which decoders use memory."""
    rgb = blocks(side)
    rgba, cmyk, palette = rgb.convert("RGBA"), rgb.convert("CMYK"), rgb.quantize(64)
    rgba.putalpha(rgb.convert("L"))
    deep = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    files = {
        "baseline": encoded(rgb, "JPEG"),
        "turned": encoded(rgb, "JPEG", exif=turned(6)),
        "progressive": encoded(rgb, "JPEG", progressive=True, subsampling=0),
        "progressive cmyk": encoded(cmyk, "JPEG", progressive=True),
        "png": encoded(rgb, "PNG", compress_level=1),
        "png rgba": encoded(rgba, "PNG", compress_level=1),
        "png palette": encoded(palette, "PNG", compress_level=1, transparency=bytes(range(64))),
        "png 16": encoded(deep, "PNG", compress_level=1),
        "lossy webp": encoded(rgba, "WEBP", method=0),
        "lossless webp": encoded(rgb, "WEBP", lossless=True, method=0),
        "gif": encoded(palette, "GIF"),
        "bmp": encoded(rgb, "BMP"),
        "tiff": encoded(rgb, "TIFF"),
        "tiff strips": encoded(cmyk, "TIFF", compression="tiff_deflate"),
        "tiff turned": encoded(rgb, "TIFF", compression="tiff_lzw", exif=turned(6)),
        "ppm": encoded(rgb, "PPM"),
        "ppm 16": encoded(deep, "PPM"),
    }
    if features.check("avif"):
        files["avif"] = encoded(rgba, "AVIF", speed=10, subsampling="4:4:4")
    return files


def measured(folder: Path, files: dict[str, bytes], mib: int) -> list[tuple[int, str]]:
    """Bytes of memory that reading each file took at most, and its error."""
    paths = [folder / f"{number}" for number in range(len(files))]
    for path, data in zip(paths, files.values(), strict=True):
        path.write_bytes(data)
    script = str(peak_memory.__file__)
    ran = run_python(script, *map(str, paths), env={MEMORY_VARIABLE: str(mib)})
    assert ran.returncode == 0, ran.stderr
    return [(size, error) for size, error in json.loads(ran.stdout)]


# Formats


@pytest.mark.parametrize("file_format", ["EPS", "ICO", "TGA", "JPEG2000", "PCX", "SGI", "PDF"])
def test_other_formats_are_refused_by_every_way_in(
    file_format: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def start(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", start)
    data = encoded(blocks(16), file_format)
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    words = (
        "is not a picture in a format that Pillow reads here: JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM"
    )
    for picture in (data, path, str(path)):
        with pytest.raises(ImageError, match=words):
            to_rgb(picture)
    if file_format == "EPS":
        assert main(["run", str(path), "--task", "od", "--model", str(TINY)]) == 2
        assert words in capsys.readouterr().err


def test_the_formats_that_are_read() -> None:
    for name, data in pictures(16).items():
        assert to_rgb(data).shape == (16, 16, 3), name


def test_a_camera_file_of_several_pictures_is_its_first() -> None:
    first, second = blocks(16), blocks(32)
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    np.testing.assert_array_equal(to_rgb(data), np.asarray(Image.open(io.BytesIO(data))))


def test_without_avif(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow before 11.3."""
    monkeypatch.setattr("florence_onnx.images.limits.find_spec", lambda name: None)
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    with pytest.raises(ImageError, match=r"TIFF, PPM; open others with Pillow"):
        to_rgb(b"\0\0\0\x1cftypavif")
    assert to_rgb(encoded(blocks(16), "WEBP")).shape == (16, 16, 3)


@pytest.mark.skipif(os.name != "posix", reason="fifos and devices have paths on POSIX")
@pytest.mark.parametrize("kind", KINDS)
def test_fifos_and_devices_are_no_pictures(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with strange_file(kind, tmp_path) as path:
        with pytest.raises(ImageError, match=f"cannot read the picture '{path}': Not a regular"):
            to_rgb(path)
        if kind == "fifo":
            assert main(["run", str(path), "--task", "od", "--model", str(TINY)]) == 2
            assert "Not a regular file" in capsys.readouterr().err


# What a picture is made of


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_strips_are_the_whole(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = blocks(50).convert("L" if mode in ("LA", "PA") else "RGB").convert(mode)
    monkeypatch.setattr(pixels, "_STRIP", 7 * 50)
    np.testing.assert_array_equal(to_rgb(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_strips_of_16_bits_are_the_whole(file_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    monkeypatch.setattr(pixels, "_STRIP", 1000)
    found = to_rgb(encoded(Image.fromarray(values), file_format))
    np.testing.assert_array_equal(found, np.dstack([np.round(values / 257)] * 3))


def png_chunk(name: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check


def many_frames_gif() -> bytes:
    """The frames after the first hold no data at all."""
    first = encoded(blocks(16).quantize(4), "GIF")
    return first[:-1] + (b"," + struct.pack("<4HB", 0, 0, 16, 16, 0) + b"\x02\0") * 100_000


def many_frames_png() -> bytes:
    first = encoded(blocks(16), "PNG")
    control = struct.pack(">IIIIHHBB", 16, 16, 0, 0, 1, 1, 0, 0)
    frames = b"".join(
        png_chunk(b"fcTL", struct.pack(">I", 2 * n + 1) + control)
        + png_chunk(b"fdAT", struct.pack(">I", 2 * n + 2) + b"not a picture")
        for n in range(10_000)
    )
    head = first[:33] + png_chunk(b"acTL", struct.pack(">II", 10_001, 0))
    return head + png_chunk(b"fcTL", struct.pack(">I", 0) + control) + first[33:-12] + frames


@pytest.mark.parametrize("make", [many_frames_gif, many_frames_png])
def test_of_many_frames_only_the_first_is_decoded(make: Callable[[], bytes]) -> None:
    assert to_rgb(make()).shape == (16, 16, 3)


# Memory


@on_linux
def test_no_decoder_takes_more_than_its_picture_was_said_to(tmp_path: Path) -> None:
    files = pictures(2048)
    names = list(files)
    refused = measured(tmp_path, files, 16)
    told = []
    for name, (peak, error) in zip(names, refused, strict=True):
        claim = re.search(r"claims 2048x2048 pixels, and decoding it may take (\d+) MiB", error)
        assert claim, (name, error)
        told.append(int(claim[1]))
        assert peak < 8 * MIB, f"{name}: the picture was decoded before it was refused"
    for name, (peak, error), allowed in zip(
        names, measured(tmp_path, files, max(told)), told, strict=True
    ):
        assert not error, (name, error)
        # Strips, the file and the decoders' tables; a copy of the picture would be 12 MiB.
        assert peak < (allowed + 8) * MIB, f"{name}: {peak / MIB:.0f} of {allowed} MiB"


def flat_webp(side: int) -> bytes:
    """A lossless WebP of one colour in 34 bytes: the file that first took 1.6 GB."""
    data = b"\x2f" + struct.pack("<I", (side - 1) | (side - 1) << 14) + b"\x88\x88\x08\0\0\0\0\0"
    chunk = b"VP8L" + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def flat_png(side: int, mode: int = 2) -> bytes:
    """A PNG without its pixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, mode, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + png_chunk(b"IDAT", b"")


def flat_gif(side: int) -> bytes:
    place = struct.pack("<4HB", 0, 0, side, side, 0)
    return (
        b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0" * 6 + b"," + place + b"\2"
    )


def flat_bmp(side: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54) + header


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


@pytest.mark.parametrize(
    "data",
    [
        flat_webp(9000),
        flat_png(9000, 6) + b"not even the end",
        flat_gif(16000),
        flat_bmp(9000),
        b"P6 9000 9000 255\n",
        b"P5 12000 7000 65535\n",
        tiff({**GREY_TIFF, 256: 9000, 257: 9000, 273: 0, 278: 9000, 279: 1}),
    ],
    ids=["webp", "png", "gif", "bmp", "ppm", "ppm 16", "tiff"],
)
def test_a_promise_above_the_limit_is_refused_before_it_is_decoded(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setenv(MEMORY_VARIABLE, "300")
    monkeypatch.setattr(Image.core, "new", None)  # nothing is made to decode into
    message = (
        rf"the {len(data)} bytes given claims \d+x\d+ pixels, and decoding it may take \d+ MiB of "
        f"memory where 300 are allowed; .* raise the environment variable {MEMORY_VARIABLE}$"
    )
    with pytest.raises(ImageError, match=message):
        to_rgb(data)


def test_the_limit_is_1_gib_unless_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MEMORY_VARIABLE, raising=False)
    with pytest.raises(ImageError, match="take 1236 MiB of memory where 1024 are allowed"):
        to_rgb(flat_webp(9000))
    with pytest.raises(ImageError, match="cannot decode"):
        to_rgb(flat_webp(8000)[:-8])


@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "1 GB", "nan", "9" * 5000])
def test_a_limit_that_is_no_number(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, value)
    with pytest.raises(ImageError, match=f"{MEMORY_VARIABLE} is '{value}'; it must be a whole"):
        to_rgb(encoded(blocks(16), "PNG"))


def test_the_limit_holds_for_pillow_images_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, "300")
    with (
        Image.open(io.BytesIO(flat_webp(9000))) as image,
        pytest.raises(ImageError, match="the Pillow image claims 9000x9000 pixels, and decoding"),
    ):
        to_rgb(image)
    with pytest.raises(ImageError, match="the Pillow image claims"):
        to_rgb(Image.new("L", (10000, 9000)))
    with pytest.raises(ImageError, match="the Pillow image is 1048577x1 pixels; sides up to"):
        to_rgb(Image.new("L", ((1 << 20) + 1, 1)))
    with Image.open(io.BytesIO(encoded(blocks(16), "ICO"))) as image:
        assert to_rgb(image).shape == (16, 16, 3)


def test_a_large_file_of_a_small_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoders read files as a whole."""
    path = tmp_path / "sparse.webp"
    path.write_bytes(encoded(blocks(16), "WEBP"))
    monkeypatch.setenv(MEMORY_VARIABLE, "30")
    with path.open("r+b") as file:
        file.truncate(30 * MIB)
        with pytest.raises(ImageError, match=r"claims 16x16 pixels, .* may take 31 MiB"):
            to_rgb(path)
        file.truncate(1 << 36)
        with pytest.raises(ImageError, match=r"sparse\.webp' is a file of 65536 MiB, above the"):
            to_rgb(path)


def test_memory_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.core, "new", fail)
    with pytest.raises(ImageError, match="not enough memory to decode the 12 bytes given"):
        to_rgb(b"P5 1 1 255\n\0")


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
    data = encoded(Image.new("L", (1000, 1000)), "JPEG") + b"\xff\xda\0\x02" * 5000
    assert to_rgb(data).shape == (1000, 1000, 3)


# Damage


@on_linux
def test_damaged_heads_never_take_more_than_the_limit(tmp_path: Path) -> None:
    """Bytes of the first hundred are changed, where sizes and depths stand."""
    rng = np.random.default_rng(13)
    files = {}
    for name, data in pictures(24).items():
        if name == "avif":  # libavif decodes what its own limit allows, whatever the head says
            continue
        for number in range(8):
            damaged = np.frombuffer(data, np.uint8).copy()
            places = rng.integers(2, min(100, len(data)), 3)
            damaged[places] = rng.choice(np.array([0, 1, 2, 127, 128, 255], np.uint8), 3)
            files[f"{name} {number}"] = damaged.tobytes()
    results = measured(tmp_path, files, 48)
    for name, (peak, _) in zip(files, results, strict=True):
        assert peak < (48 + 8) * MIB, f"{name}: {peak / MIB:.0f} MiB"
    refused = sum(error != "" for _, error in results)
    assert 0 < refused < len(files)
