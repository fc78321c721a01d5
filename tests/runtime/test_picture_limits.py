"""Pictures from strangers: formats by name, and memory and time that follow the promise."""

import io
import json
import os
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, features

from florence_onnx.cli.program import main
from florence_onnx.errors import ImageError
from florence_onnx.images import pixels
from florence_onnx.images.limits import MEMORY_VARIABLE, readable_formats
from florence_onnx.images.pixels import to_rgb
from tests.helpers import peak_memory
from tests.helpers.picture_files import GREY_TIFF, blocks, encoded, png_chunk, tiff
from tests.helpers.strange_files import KINDS, strange_file
from tests.helpers.tiny import TINY, run_python

MIB = 1 << 20

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


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
        "ppm 16": b"P5 %d %d 65535\n" % deep.size + np.asarray(deep).astype(">u2").tobytes(),
    }
    if "AVIF" in readable_formats() and features.check("avif"):
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
    if file_format == "PPM":
        data = b"P5 256 256 65535\n" + values.astype(">u2").tobytes()
    else:
        data = encoded(Image.fromarray(values), file_format)
    found = to_rgb(data)
    np.testing.assert_array_equal(found, np.dstack([np.round(values / 257)] * 3))


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
def test_no_decoder_takes_more_than_its_picture_was_said_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pictures(2048)
    told = {}
    monkeypatch.setenv(MEMORY_VARIABLE, "16")
    for name, data in files.items():
        with pytest.raises(ImageError) as refused:
            to_rgb(data)
        claim = re.search(r"2048x2048 pixels, and decoding it may take (\d+) ", str(refused.value))
        assert claim, (name, refused.value)
        told[name] = int(claim[1])
    results = measured(tmp_path, files, max(told.values()))
    for (name, allowed), (peak, error) in zip(told.items(), results, strict=True):
        assert not error, (name, error)
        # Strips, the file and the decoders' tables; a copy of the picture would be 12 MiB.
        assert peak < (allowed + 8) * MIB, f"{name}: {peak / MIB:.0f} of {allowed} MiB"


def flat_webp(side: int) -> bytes:
    """A lossless WebP of one colour in 34 bytes: the file that first took 1.6 GB."""
    data = b"\x2f" + struct.pack("<I", (side - 1) | (side - 1) << 14) + b"\x88\x88\x08\0\0\0\0\0"
    chunk = b"VP8L" + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def flat_png(side: int, mode: int) -> bytes:
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
    monkeypatch.setattr("PIL.Image.core.new", None)  # nothing is made to decode into
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

    monkeypatch.setattr("PIL.Image.core.new", fail)
    with pytest.raises(ImageError, match="not enough memory to decode the 12 bytes given"):
        to_rgb(b"P5 1 1 255\n\0")


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


@pytest.mark.parametrize("given", ["file", "bytes"])
def test_an_lfs_pointer_is_called_that(tmp_path: Path, given: str) -> None:
    content = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 367000\n"
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="is a Git LFS pointer, not the file itself; run `git lfs"):
        to_rgb(path if given == "file" else content)
