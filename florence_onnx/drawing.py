"""A picture with its answer drawn on it. Needs Pillow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from florence_onnx.errors import InputError
from florence_onnx.files import open_regular, whole_file
from florence_onnx.images.pixels import ImageInput, to_rgb
from florence_onnx.packages import require_packages
from florence_onnx.results import Result
from florence_onnx.tasks import AnswerKind

if TYPE_CHECKING:
    import PIL.Image
    import PIL.ImageDraw

Point = tuple[float, float]
Place = tuple[str, str, list[Point]]
"""A label, what is written there, and corners in pixels."""
Colour = tuple[int, int, int]

# Okabe and Ito, "Color Universal Design" (2008): told apart by colour-blind people too.
_COLOURS: tuple[Colour, ...] = (
    (213, 94, 0),
    (0, 114, 178),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (240, 228, 66),
)
_FILL_OPACITY = 0.35
_SOFTWARE = 0x0131
"""EXIF's tag for the program that made a picture."""
_MARK = "drawn by florence-onnx"
_ENDS = 1 << 16
"""Bytes at both ends of a file that may hold EXIF, which comes before or after the pixels."""
_TRIANGLE = 6
"""The fewest coordinates that enclose something."""


def draw(image: ImageInput, result: Result) -> PIL.Image.Image:
    """Draws every box, polygon or quadrilateral of an answer with its label and score.

    Args:
        image: the picture that was asked about, as ``Florence2`` takes it.
        result: its answer; every label has its own colour.

    Returns:
        An RGB image of the picture's size.

    Raises:
        InputError: if the answer is text, or was given about a picture of another size.
        ImageError: if the picture cannot be read.
        MissingDependencyError: without Pillow.
    """
    _require_pillow()
    from PIL import Image, ImageDraw

    if not isinstance(result, Result):
        raise InputError(f"result must be a florence_onnx.Result, not {type(result).__name__}")
    if result.answer_kind is AnswerKind.TEXT:
        raise InputError(f"the answer to {result.task} is text: there is nothing to draw")
    picture = Image.fromarray(to_rgb(image))
    if picture.size != tuple(result.image_size):
        width, height = result.image_size
        raise InputError(
            f"the answer is about a picture of {width}x{height} pixels, this one has "
            f"{picture.width}x{picture.height}"
        )
    places = list(_places(result))
    names = dict.fromkeys(label for label, _, _ in places)
    colours = dict(zip(names, cycle(_COLOURS), strict=False))
    if any(found.polygons is not None for found in result.detections):
        filled = picture.copy()
        for label, _, points in places:
            ImageDraw.Draw(filled).polygon(points, fill=colours[label])
        picture = Image.blend(picture, filled, _FILL_OPACITY)
    brush = ImageDraw.Draw(picture)
    width = max(2, round(min(picture.size) / 200))
    for label, _, points in places:
        brush.line([*points, points[0]], fill=colours[label], width=width, joint="curve")
    for label, written, points in places:
        if written:
            _write(brush, written, points, colours[label])
    return picture


def save_drawing(drawing: PIL.Image.Image, path: Path) -> None:
    """Writes what `draw` returned to a file, whole or not at all, marked for `is_drawing`.

    Args:
        drawing: the picture.
        path: the file; its ending says the format.

    Raises:
        OSError: if the file cannot be written.
        ValueError: if its format has no RGB pictures.
    """
    from PIL import Image

    exif = Image.Exif()
    exif[_SOFTWARE] = _MARK
    with whole_file(path) as partial:
        drawing.save(partial, exif=exif)


def is_drawing(path: Path) -> bool:
    """Tells whether `save_drawing` wrote a file, in a format that has room for its mark.

    PNG, JPEG, WebP and TIFF have.
    """
    try:
        with open_regular(path) as file:
            start = file.read(_ENDS)
            file.seek(max(0, file.seek(0, os.SEEK_END) - _ENDS))
            return _MARK.encode() in start + file.read()
    except OSError:
        return False


def check_ending(path: Path) -> None:
    """Raises for a name whose ending is that of no picture format.

    Raises:
        InputError: Pillow writes no format with this ending.
        MissingDependencyError: Pillow is not installed.
    """
    _require_pillow()
    from PIL import Image

    formats = Image.registered_extensions()
    if formats.get(path.suffix.lower()) not in Image.SAVE:
        raise InputError(f"{path} ends in no picture format; use .png or .jpg, or name a folder")


def _require_pillow() -> None:
    require_packages(("PIL",), "drawing", "cli")


def _places(result: Result) -> Iterator[Place]:
    """Outlines of a detection that enclose an area."""
    for found in result.detections:
        score = "" if found.scores is None else f"{found.scores.score:.2f}"
        written = f"{found.label} {score}".strip()
        for outline in found.outlines:
            if len(outline) >= _TRIANGLE:
                yield found.label, written, list(zip(outline[0::2], outline[1::2], strict=True))


def _write(brush: PIL.ImageDraw.ImageDraw, label: str, points: list[Point], colour: Colour) -> None:
    """Puts a label above what it names, or as near to that as the picture has room."""
    from PIL import ImageFont

    picture_width, picture_height = brush.im.size
    size = min(28, max(11, round(min(picture_width, picture_height) / 28)))
    font = ImageFont.load_default(size)
    left, top, right, bottom = brush.textbbox((0, 0), label, font)
    width, height = right - left + 6, bottom - top + 6
    x = max(0, min(min(x for x, _ in points), picture_width - width))
    y = max(0, min(min(y for _, y in points) - height, picture_height - height))
    brush.rectangle((x, y, x + width, y + height), fill=colour)
    light = sum(colour) < 3 * 140
    brush.text((x + 3 - left, y + 3 - top), label, (255,) * 3 if light else (0,) * 3, font)
