"""Reading of pixels from an array, a Pillow image, a file or the bytes of a file."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeGuard, Union

import numpy as np
import numpy.typing as npt

from florence_onnx.errors import ImageError
from florence_onnx.files import open_regular, refuse_pointer
from florence_onnx.images.limits import (
    LONGEST_SIDE,
    check_file_size,
    check_promise,
    readable_formats,
)
from florence_onnx.images.metadata import MOST_EXIF, check_metadata
from florence_onnx.packages import require_packages

if TYPE_CHECKING:
    import PIL.Image

ImageInput: TypeAlias = Union[
    npt.NDArray[np.uint8], "PIL.Image.Image", str, "os.PathLike[str]", bytes
]

_ORIENTATION = 0x0112

# Pillow opens 16-bit files of these formats as 32-bit integers (PNG: before Pillow 11).
_SIXTEEN_BITS_IN_32 = ("PNG", "PPM")

# Bytes at the beginning of files that are no pictures.
_HEAD = 100

# Pixels that are converted at a time, because copies of a whole picture would take much memory.
_STRIP = 1 << 18


def to_rgb(image: ImageInput, name: str | None = None) -> npt.NDArray[np.uint8]:
    """Returns the pixels of a picture in RGB.

    Args:
        image: one of

            - a uint8 array, [H, W], [H, W, 1], [H, W, 3] in RGB order (not OpenCV's BGR), or
              [H, W, 4], whose alpha is dropped as Pillow's ``convert("RGB")`` drops it;
            - a Pillow image of any mode;
            - the path or the bytes of a picture file, which is turned upright by its EXIF
              orientation. Arrays and Pillow images are never turned.
        name: Name in messages of a picture that is given as bytes.

    Returns:
        uint8, [H, W, 3]: a view of the given array where possible, and not to be written to.

    Raises:
        ImageError: if the picture is of another kind, empty, damaged, or too large, or the file is
            no regular file or of another format than `limits.readable_formats`.
        MissingDependencyError: if a file or bytes are given and Pillow is not installed.
    """
    if isinstance(image, np.ndarray):
        return _three_channels(image)
    if isinstance(image, (str, os.PathLike)):
        return _three_channels(read_file(image))
    if isinstance(image, bytes):
        return _three_channels(read_bytes(image, name))
    if is_pillow_image(image):
        return _three_channels(from_pillow(image))
    raise ImageError(
        f"cannot read a picture from {type(image).__module__}.{type(image).__qualname__}: give a "
        "uint8 numpy array [H, W, 3], a Pillow image, a path, or the bytes of a picture file"
    )


def _three_channels(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if array.dtype != np.uint8:
        hint = "convert it to uint8"
        if np.issubdtype(array.dtype, np.floating):
            hint += " (values in 0..1: (array * 255).round().astype('uint8'))"
        raise ImageError(
            f"the picture has dtype {array.dtype}, but only uint8 with values in 0..255 is read: "
            + hint
        )
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = ""
        if array.ndim == 4:
            hint = "; pass the pictures of a batch one by one"
        elif array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = "; channels come last: array.transpose(1, 2, 0)"
        raise ImageError(
            f"the picture has shape {list(array.shape)}, but only [H, W], [H, W, 1], [H, W, 3] "
            f"and [H, W, 4] are read{hint}"
        )
    height, width = array.shape[:2]
    if array.size == 0:
        raise ImageError(f"the picture is empty: it has shape {list(array.shape)}")
    if max(height, width) > LONGEST_SIDE:
        raise ImageError(
            f"the picture is {width}x{height} pixels; sides up to {LONGEST_SIDE} are read"
        )
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] == 1:
        return np.broadcast_to(array, (height, width, 3))
    return array[:, :, :3]


def read_file(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Reads a picture file; see :func:`read_bytes`."""
    with _opened(path) as file:
        return _read(file, f"'{os.fspath(path)}'")


def check_file(path: str | os.PathLike[str]) -> None:
    """Opens and closes a picture file.

    Raises:
        ImageError: The file is missing, unreadable or no regular file.
    """
    with _opened(path):
        pass


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    try:
        with open_regular(path) as file:
            yield file
    except OSError as error:
        raise ImageError(
            f"cannot read the picture '{os.fspath(path)}': {error.strerror}"
        ) from error


def read_bytes(data: bytes, name: str | None = None) -> npt.NDArray[np.uint8]:
    """Decodes the bytes of a picture file, and turns the picture upright by its EXIF orientation.

    Only the first frame of a file is decoded.

    Args:
        data: The bytes.
        name: Name of the picture in messages.

    Returns:
        uint8, [H, W] or [H, W, 3].

    Raises:
        ImageError: if this is not a picture, or damaged, or has more pixels than
            ``PIL.Image.MAX_IMAGE_PIXELS``, or would take too much memory or time.
        MissingDependencyError: without Pillow.
    """
    return _read(io.BytesIO(data), name or f"the {len(data)} bytes given")


def is_turned(data: bytes) -> bool:
    """Tells whether the EXIF orientation of a picture file turns or mirrors the picture."""
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
        return _orientation(image) in range(2, 9)


def is_pillow_image(image: object) -> TypeGuard[PIL.Image.Image]:
    """Tells whether a value is a Pillow image, without importing Pillow."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(image, pillow.Image)


def from_pillow(image: PIL.Image.Image) -> npt.NDArray[np.uint8]:
    """Returns the pixels of a Pillow image of any mode, not turned.

    Modes are converted as ``convert("RGB")`` does, but 16-bit ones are scaled, not clipped.

    Returns:
        uint8, [H, W] or [H, W, 3].

    Raises:
        ImageError: if the image cannot be decoded, its values have no known range, or its pixels
            would take too much memory.
    """
    name = "the Pillow image"
    with _decoding(name):
        check_promise(image, name)
        return _pixels(image)


def _read(file: IO[bytes], name: str) -> npt.NDArray[np.uint8]:
    hint = ", or give the pixels as a uint8 array"
    require_packages(("PIL",), "reading picture files", "cli", hint)
    from PIL import Image, UnidentifiedImageError

    formats = readable_formats()
    file_size = file.seek(0, io.SEEK_END)
    check_file_size(file_size, name)
    if not file_size:
        raise ImageError(f"{name} is not a picture: it is empty")
    with _decoding(name):
        scans = check_metadata(file, name)
        try:
            opened = Image.open(file, formats=formats)
        except UnidentifiedImageError as error:
            file.seek(0)
            refuse_pointer(file.read(_HEAD), name, ImageError)
            raise ImageError(
                f"{name} is not a picture in a format that Pillow reads here: "
                f"{', '.join(formats)}; open others with Pillow and give the image"
            ) from error
        with opened as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise ImageError(
                    f"{name} claims {image.width}x{image.height} pixels, above the safe limit of "
                    f"{limit}; to read it nevertheless, raise PIL.Image.MAX_IMAGE_PIXELS"
                )
            check_promise(image, name, file_size, scans)
            array = _pixels(image)
            # After loading, because Pillow turns TIFF files itself while it loads the pixels.
            return _upright(array, _orientation(image))


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turns all errors of Pillow's decoders, which are many for damaged data, into one error."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"there is not enough memory to decode {name}") from error
    except Exception as error:
        raise ImageError(f"cannot decode {name}: {error}") from error


def _pixels(image: PIL.Image.Image) -> npt.NDArray[np.uint8]:
    image.load()
    is_deep = image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in _SIXTEEN_BITS_IN_32
    )
    if image.mode in ("I", "F") and not is_deep:
        raise ImageError(
            f"the picture has mode {image.mode!r}, whose range of values is not known: "
            "scale it to 0..255 and convert it to mode 'L' or 'RGB'"
        )
    is_grey = is_deep or image.mode == "L"
    shape = (image.height, image.width) if is_grey else (image.height, image.width, 3)
    pixels = np.empty(shape, np.uint8)
    rows = max(1, _STRIP // max(1, image.width))
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        strip = image.crop((0, top, image.width, bottom))
        pixels[top:bottom] = _eight_bits(strip) if is_deep else _colours(strip)
    return pixels


def _eight_bits(image: PIL.Image.Image) -> npt.NDArray[np.uint8]:
    values = np.asarray(image).astype(np.uint32)
    return ((values * 255 + 32767) // 65535).astype(np.uint8)


def _colours(image: PIL.Image.Image) -> npt.NDArray[np.uint8]:
    """Reads pixels [H, W] of a grey picture, else [H, W, 3]."""
    if image.mode == "P" and "transparency" in image.info:
        # The colours are those of convert("RGB"), which warns about the transparency that it drops.
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB", "RGBA"):
        image = image.convert("RGB")
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 2 else pixels[:, :, :3]


def _orientation(image: PIL.Image.Image) -> object:
    exif, hexadecimal = (image.info.get(key, "") for key in ("exif", "Raw profile type exif"))
    if len(exif) > MOST_EXIF or len(hexadecimal) > 2 * MOST_EXIF:
        return None
    try:
        return image.getexif().get(_ORIENTATION)
    except SyntaxError:  # a damaged EXIF block; the pixels have been decoded
        return None


def _upright(pixels: npt.NDArray[np.uint8], orientation: object) -> npt.NDArray[np.uint8]:
    """Turns a picture by its EXIF orientation (1 to 8), returning a view."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
