"""Drawing of the outlines, fills and labels of an answer on its picture."""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

from florence_onnx.drawing.fonts import Face, faces_for, has_glyph, is_dispensable, named_face
from florence_onnx.drawing.lettering import Colour, Lettering
from florence_onnx.drawing.places import Rectangle, gap, place_plates
from florence_onnx.errors import InputError
from florence_onnx.images.pixels import ImageInput, to_rgb
from florence_onnx.packages import require_packages
from florence_onnx.results import Result
from florence_onnx.tasks import AnswerKind
from florence_onnx.terminal import printable, say

if TYPE_CHECKING:
    import PIL.Image
    import PIL.ImageDraw

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
_SHRUNK = (1, 0.8, 0.6)
"""Sizes of letters to try, in parts of the usual size, until every plate is near its box."""
_USUAL, _SMALLEST = 11, 9
"""Least height of letters in pixels: of the usual size, and of a readable smaller size."""
_NAMED = 20
"""Largest number of missing characters that are named."""
_VARIANTS = dict.fromkeys([*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
"""Characters that choose a form of the character before. Few fonts have these characters."""

Outline = list[tuple[float, float]]


@dataclass(frozen=True)
class _Thing:
    """Thing to draw, from a detection."""

    label: str
    end: str
    """Text behind the label."""
    outlines: list[Outline]
    filled: bool
    box: Rectangle
    """Box around the largest outline, near which the label is."""
    colour: Colour


def draw(
    image: ImageInput, result: Result, font: str | os.PathLike[str] | None = None
) -> PIL.Image.Image:
    """Draws every box, polygon or quadrilateral of an answer with its label and score.

    Lines and letters grow with the picture. Plates of labels are inside the picture and do not
    overlap. So letters get smaller, long labels are cut off ("…"), a line leads from a plate to a
    box that is elsewhere, and a plate is left out if the picture has no room.

    Args:
        image: the picture of the request, in a form that ``Florence2`` takes.
        result: the answer. Every label has its own colour, and so has every thing without a label.
        font: a TrueType or OpenType file, which is used for the characters that it has. For other
            characters, and by default, fonts of this machine are found. A character that no font
            has is drawn as "?", and a line on stderr says so.

    Returns:
        An RGB image of the picture's size.

    Raises:
        InputError: if the answer is text, or was given about a picture of another size, or the font
            cannot be read.
        ImageError: if the picture cannot be read.
        MissingDependencyError: without Pillow.
    """
    require_packages(("PIL",), "drawing", "cli")
    from PIL import Image, ImageDraw

    if not isinstance(result, Result):
        raise InputError(f"result must be a florence_onnx.Result, not {type(result).__name__}")
    if result.answer_kind is AnswerKind.TEXT:
        raise InputError(f"the answer to {result.task} is text: there is nothing to draw")
    face = None if font is None else named_face(font)
    picture = Image.fromarray(to_rgb(image))
    if picture.size != tuple(result.image_size):
        width, height = result.image_size
        raise InputError(
            f"the answer is about a picture of {width}x{height} pixels, this one has "
            f"{picture.width}x{picture.height}"
        )
    things = _things(result)
    picture = _filled(picture, things)
    brush = ImageDraw.Draw(picture)
    width = _line_width(picture.size)
    for thing in things:
        for outline in thing.outlines:
            brush.line([*outline, outline[0]], fill=thing.colour, width=width, joint="curve")
            if len({*outline}) == 1:  # Pillow draws no line of no length.
                x, y = outline[0]
                brush.ellipse((x - width, y - width, x + width, y + width), fill=thing.colour)
    _write_labels(brush, things, face)
    return picture


def _filled(picture: PIL.Image.Image, things: Sequence[_Thing]) -> PIL.Image.Image:
    """Fills the polygons in a picture."""
    from PIL import Image, ImageDraw

    if not any(thing.filled for thing in things):
        return picture
    painted = picture.copy()
    brush = ImageDraw.Draw(painted)
    for thing in things:
        for outline in thing.outlines if thing.filled else ():
            brush.polygon([*outline, outline[0]], fill=thing.colour)
    return Image.blend(picture, painted, _FILL_OPACITY)


def _things(result: Result) -> list[_Thing]:
    """Lists the things to draw, the largest first, so that no thing covers a smaller one."""
    labels = [_one_line(found.label) for found in result.detections]
    classes = [label or number for number, label in enumerate(labels)]
    colours = dict(zip(dict.fromkeys(classes), cycle(_COLOURS), strict=False))
    things = []
    for found, label, class_ in zip(result.detections, labels, classes, strict=True):
        # An outline of two points is drawn as a line, one of a single point as a dot.
        outlines = [
            list(zip(outline[0::2], outline[1::2], strict=True))
            for outline in found.outlines
            if outline
        ]
        if outlines:
            end = "" if found.scores is None else f"{' ' * bool(label)}{found.scores.score:.2f}"
            box = max(map(_around, outlines), key=_area)
            filled = found.polygons is not None
            things.append(_Thing(label, end, outlines, filled, box, colours[class_]))
    return sorted(things, key=lambda thing: _area(thing.box), reverse=True)


def _one_line(label: str) -> str:
    label = unicodedata.normalize("NFC", " ".join(label.split()))
    return printable(label.translate(_VARIANTS))


def _around(outline: Outline) -> Rectangle:
    xs, ys = zip(*outline, strict=True)
    return math.floor(min(xs)), math.floor(min(ys)), math.ceil(max(xs)), math.ceil(max(ys))


def _area(box: Rectangle) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _line_width(size: tuple[int, int]) -> int:
    return math.ceil(min(size) / 240)


def _write_labels(
    brush: PIL.ImageDraw.ImageDraw, things: Sequence[_Thing], face: Face | None
) -> None:
    picture = brush.im.size
    named = [thing for thing in things if thing.label or thing.end]
    faces = faces_for([thing.label for thing in named], face)
    _say_missing([thing.label for thing in named], faces)
    usual = max(_USUAL, min(picture) // 28)
    for part in _SHRUNK:
        letters = Lettering(faces, max(_SMALLEST, round(usual * part)))
        texts = [letters.fit(thing.label, thing.end, picture[0]) for thing in named]
        sizes = [letters.size(text) for text in texts]
        places = place_plates(sizes, [thing.box for thing in named], picture)
        if all(
            place is not None and gap(place, thing.box) == 0
            for place, thing in zip(places, named, strict=True)
        ):
            break
    for thing, text, place in zip(named, texts, places, strict=True):
        if place is not None:
            if gap(place, thing.box):
                _lead(brush, place, thing)
            brush.rectangle((*place[:2], place[2] - 1, place[3] - 1), fill=thing.colour)
            letters.write(brush, place[0], place[1], text, _readable_on(thing.colour))


def _lead(brush: PIL.ImageDraw.ImageDraw, place: Rectangle, thing: _Thing) -> None:
    """Computes a line from a plate to the nearest place of a box."""
    x1, y1, x2, y2 = thing.box
    start = ((place[0] + place[2]) // 2, (place[1] + place[3]) // 2)
    end = (min(max(start[0], x1), x2), min(max(start[1], y1), y2))
    width = max(1, _line_width(brush.im.size) // 2)
    brush.line([start, end], fill=thing.colour, width=width)


def _say_missing(labels: Sequence[str], faces: Sequence[Face]) -> None:
    missing = sorted(
        {
            character
            for label in labels
            for character in label
            if not is_dispensable(character)
            and not any(has_glyph(face, character) for face in faces)
        }
    )
    if missing:
        others = len(missing) - _NAMED
        more = f" and {others} other characters" if others > 0 else ""
        say(
            f"florence-onnx: no font of this machine has {''.join(missing[:_NAMED])}{more}, drawn "
            "as ?; name one that has, by font= or --font"
        )


def _readable_on(colour: Colour) -> Colour:
    """Chooses black or white, by the higher contrast in WCAG 2's relative luminance."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (value / 255 for value in colour)
    )
    return (0,) * 3 if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else (255,) * 3
