"""Limits to the cost of decoding a picture, from the data at the head of the file."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from florence_onnx.errors import ImageError

if TYPE_CHECKING:
    import PIL.Image

MEMORY_VARIABLE = "FLORENCE_ONNX_MAX_PICTURE_MIB"
"""Environment variable with the limit of the memory for decoding one picture, in MiB."""
_DEFAULT_MIB = 1024

LONGEST_SIDE = 1 << 20
"""Limit of a side in pixels. A resize of a longer side needs weights of several hundred MB."""

# The raster formats whose cost is known here. Of the others some start programs (EPS), have no
# mark that tells them (TGA), or are decoded before their size can be checked (ICO).
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")

# Bytes of a pixel in Pillow's memory; 4 in the modes that are not here.
_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}

# Bytes of a pixel in the array that is made of a decoded picture.
_ARRAY_BYTES = 3

# Bytes per pixel that decoders need beside the picture, measured at their worst: the canvases of
# WebP, AVIF with 10 bits and alpha, PPM where Pillow decodes it in Python.
_DECODER_BYTES = {"PNG": 0, "GIF": 1, "BMP": 2, "WEBP": 12, "AVIF": 14}
_PPM_BYTES = 9
_UNKNOWN_BYTES = 14

# Every scan of a JPEG goes over the whole picture, in as little as 12 bytes of the file and 1.3 ns
# per pixel: this is 4 s. A progressive file has about ten scans.
_MOST_SCANNED = 3_000_000_000

_WIDTH, _HEIGHT, _BITS, _SAMPLES, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 258, 277, 322, 323
"""Tags of TIFF."""


def readable_formats() -> tuple[str, ...]:
    """Lists the formats that are read from files and bytes, by Pillow's names."""
    return _FORMATS if find_spec("PIL.AvifImagePlugin") else _FORMATS[:-1]


def check_promise(image: PIL.Image.Image, name: str, file_size: int = 0, scans: int = 0) -> None:
    """Checks a picture that is opened and not yet decoded.

    Args:
        image: The picture. A decoded picture is counted as if it were not decoded.
        name: Name of the picture in the error.
        file_size: Bytes of the file, which some decoders read as a whole.
        scans: Number of scans of a JPEG.

    Raises:
        ImageError: Decoding would take more memory than is allowed, or the picture has a side
            above `LONGEST_SIDE`, or the file draws the same pixels again and again.
    """
    width, height = image.size
    if max(width, height) > LONGEST_SIDE:
        raise ImageError(f"{name} is {width}x{height} pixels; sides up to {LONGEST_SIDE} are read")
    pixels = _tiff_pixels(image, name) if image.format == "TIFF" else width * height
    per_pixel = _PIXEL_BYTES.get(image.mode, 4) + max(_ARRAY_BYTES, _decoder_bytes(image))
    if scans * pixels > _MOST_SCANNED:
        raise ImageError(f"{name} goes over its {pixels} pixels {scans} times; save it anew")
    needed, limit = int(pixels * per_pixel) + file_size, _memory_limit()
    if needed > limit:
        raise ImageError(
            f"{name} claims {width}x{height} pixels, and decoding it may take "
            f"{-(-needed >> 20)} MiB of memory where {limit >> 20} are allowed; give a smaller "
            f"picture, or raise the environment variable {MEMORY_VARIABLE}"
        )


def check_file_size(size: int, name: str) -> None:
    """Checks the size of a picture file before opening, when some files are read as a whole.

    Raises:
        ImageError: The file is larger than the memory that decoding a picture may take.
    """
    limit = _memory_limit()
    if size > limit:
        raise ImageError(
            f"{name} is a file of {-(-size >> 20)} MiB, above the limit of {limit >> 20}; give a "
            f"smaller picture, or raise the environment variable {MEMORY_VARIABLE}"
        )


def _memory_limit() -> int:
    """Reads the limit of the memory for decoding one picture, in bytes."""
    text = os.environ.get(MEMORY_VARIABLE, str(_DEFAULT_MIB))
    try:
        limit = int(text) << 20
    except ValueError:
        limit = 0
    if limit <= 0:
        raise ImageError(f"{MEMORY_VARIABLE} is {text!r}; it must be a whole number of MiB above 0")
    return limit


def _decoder_bytes(image: PIL.Image.Image) -> float:
    """Estimates the bytes per pixel that decoding takes beside the picture itself."""
    if image.format is None:
        return 0  # not from a file
    if image.format in ("JPEG", "MPO"):
        return 2 * len(image.getbands())  # the coefficients of all scans
    if image.format == "TIFF":
        tags = _tags(image)
        stored: float = tags.get(_SAMPLES, 1) * max(tags.get(_BITS, (1,))) / 8
        return max(stored, 4)  # one strip of the whole picture, or a turned copy
    if image.format == "PPM" and all(tile[0] == "raw" for tile in getattr(image, "tile", ())):
        return 0
    return {**_DECODER_BYTES, "PPM": _PPM_BYTES}.get(image.format, _UNKNOWN_BYTES)


def _tiff_pixels(image: PIL.Image.Image, name: str) -> int:
    """Counts the pixels that a TIFF file stores: a tile may be larger than the picture."""
    tags = _tags(image)
    width, height = tags[_WIDTH], tags[_HEIGHT]
    extents = [tile[1] for tile in getattr(image, "tile", ())]
    named = sum((right - left) * (bottom - top) for left, top, right, bottom in extents)
    if named > width * height * len(image.getbands()):
        raise ImageError(f"{name} names the same pixels again and again; save it anew")
    tile_width, tile_height = tags.get(_TILE_WIDTH, 1), tags.get(_TILE_HEIGHT, 1)
    return int(max(width, tile_width) * max(height, tile_height))


def _tags(image: PIL.Image.Image) -> Any:
    """Reads the tags of a picture that Pillow opened from a TIFF file."""
    return getattr(image, "tag_v2", {})
