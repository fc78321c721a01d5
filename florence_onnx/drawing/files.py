"""Files of drawings, which carry a mark for `is_drawing`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from florence_onnx.errors import InputError
from florence_onnx.files import open_regular, whole_file
from florence_onnx.packages import require_packages

if TYPE_CHECKING:
    import PIL.Image

_SOFTWARE = 0x0131
"""EXIF's tag for the program that made a picture."""
_MARK = "drawn by florence-onnx"
_ENDS = 1 << 16
"""Bytes at both ends of a file that may hold EXIF, which comes before or after the pixels."""


def save_drawing(drawing: PIL.Image.Image, path: Path) -> None:
    """Writes a drawing to a file, whole or not at all, marked for `is_drawing`.

    Args:
        drawing: the result of `draw`.
        path: the file, whose ending tells the format.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if the format has no RGB pictures.
    """
    from PIL import Image

    exif = Image.Exif()
    exif[_SOFTWARE] = _MARK
    with whole_file(path) as partial:
        drawing.save(partial, exif=exif)


def is_drawing(path: Path) -> bool:
    """Tells whether `save_drawing` wrote a file, in a format that has room for the mark.

    These formats are PNG, JPEG, WebP and TIFF.
    """
    try:
        with open_regular(path) as file:
            start = file.read(_ENDS)
            file.seek(max(0, file.seek(0, os.SEEK_END) - _ENDS))
            return _MARK.encode() in start + file.read()
    except OSError:
        return False


def check_ending(path: Path) -> None:
    """Refuses a name whose ending is that of no picture format.

    Raises:
        InputError: Pillow writes no format with this ending.
        MissingDependencyError: Pillow is not installed.
    """
    require_packages(("PIL",), "drawing", "cli")
    from PIL import Image

    formats = Image.registered_extensions()
    if formats.get(path.suffix.lower()) not in Image.SAVE:
        raise InputError(f"{path} ends in no picture format; use .png or .jpg, or name a folder")
