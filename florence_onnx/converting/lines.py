"""Lines of an annotation. A wrong field is refused with the name of the field."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from florence_onnx.errors import InputError
from florence_onnx.fields import Fields

UNNAMED = "object"
"""Label of things that a task has found without a name."""
_FARTHEST = 1e9
"""Limit of coordinates, which no picture reaches."""


@dataclass(frozen=True)
class Found:
    """Thing in a picture."""

    label: str
    box: tuple[float, float, float, float]
    """Box: x1, y1, x2, y2 in pixels."""
    outlines: tuple[tuple[float, ...], ...]
    """Polygons, or the quadrilateral: x, y, x, y, ... in pixels; empty for a box alone."""
    score: float | None

    @property
    def polygons(self) -> list[list[float]]:
        """Outlines that have an area, with at least three points."""
        whole = (points[: len(points) // 2 * 2] for points in self.outlines)
        return [list(points) for points in whole if len(points) >= 6]

    @property
    def has_area(self) -> bool:
        """Tells whether the box has an area: a model may give two equal corners."""
        return self.box[2] > self.box[0] and self.box[3] > self.box[1]


@dataclass(frozen=True)
class Answer:
    """Answer to a question about a picture."""

    task: str
    input: str | None
    text: str
    found: tuple[Found, ...]
    names: bool
    """Tells whether the task locates things."""


@dataclass(frozen=True)
class Line:
    """Line whose fields can be written in every format."""

    path: str
    source: str
    content: str
    """SHA-256 of the picture's file."""
    size: tuple[int, int]
    """Size of the picture in pixels, (width, height)."""
    answer: Answer


def read_line(line: Mapping[str, Any], name: str) -> Line:
    """Reads a line.

    Args:
        line: The JSON object.
        name: Name of the line in messages.

    Raises:
        InputError: A field is missing, or has another form than ``annotate`` writes.
    """
    fields = Fields(line, f"{name} is no annotation", InputError)
    path = fields.text("path")
    if not _is_path(path):
        raise fields.refused("path", "the path of a picture")
    source = fields.text("source")
    if "\0" in source:
        raise fields.refused("source", "a path")
    content = fields.text("hash")
    if not re.fullmatch("[0-9a-f]{64}", content):
        raise fields.refused("hash", "a SHA-256 in hexadecimal digits")
    width, height = map(int, fields.numbers("size", 2, 1, _FARTHEST))
    return Line(path, source, content, (width, height), _answer(fields))


def read_found(one: Fields) -> Found:
    """Reads a thing of ``Result.record``.

    Raises:
        InputError: A field has another form than in ``Result.record``.
    """
    outlines = one.number_lists("polygons", -_FARTHEST, _FARTHEST)
    if one.get("quad") is not None:
        outlines = outlines or (one.numbers("quad", 8, -_FARTHEST, _FARTHEST),)
    x1, y1, x2, y2 = one.numbers("box", 4, -_FARTHEST, _FARTHEST)
    scores = one.section("scores")
    score = None if one.get("scores") is None else scores.number("score", 0, _FARTHEST)
    return Found(_words(one, "label") or UNNAMED, (x1, y1, x2, y2), outlines, score)


def _answer(fields: Fields) -> Answer:
    record = fields.section("record")
    task = record.text("task")
    answer = record.section("answer").get(task)
    if answer is None:
        raise record.refused("answer", f"an object with {task!r:.80}")
    found = tuple(map(read_found, record.sections("detections")))
    asked = None if fields.get("input") is None else _words(fields, "input")
    locates = not isinstance(answer, str)
    return Answer(_words(fields, "task"), asked, _words(fields, "text"), found, locates)


def _words(fields: Fields, name: str) -> str:
    """Reads a field of text that can be written as UTF-8."""
    text = fields.text(name)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise fields.refused(name, "text without halves of surrogate pairs") from None
    return text


def _is_path(text: str) -> bool:
    """Tells whether a text can name a file. The bytes of a file name need not be UTF-8."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return "\0" not in text and PurePosixPath(text).name != ""
