"""Results in notebooks: the drawn picture with a table of what was found, or the text."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

from florence_onnx.drawing import draw
from florence_onnx.errors import FlorenceError
from florence_onnx.plain_text import lines
from florence_onnx.tasks import AnswerKind
from florence_onnx.terminal import printable

if TYPE_CHECKING:
    from florence_onnx.cascading import CascadeResult
    from florence_onnx.results import Detection, Result

_LARGEST = 1024
"""Largest side of a picture in a page, in pixels."""


def to_html(result: Result) -> str:
    """Writes the text of an answer, or the drawn picture and a table of located things.

    Words are text, never HTML.
    """
    return _page(result, None)


def cascade_to_html(cascade: CascadeResult) -> str:
    """Writes both answers; the answers about boxes stand in the table, each beside its box."""
    if cascade.first.answer_kind is AnswerKind.TEXT:
        return "".join(map(to_html, (cascade.first, *cascade.then)))
    return _page(cascade.drawn, ["\n".join(lines(one)) for one in cascade.then])


def _page(result: Result, about: Sequence[str] | None) -> str:
    width, height = result.image_size
    notes = [_text(result.task), f"{width}x{height} pixels"]
    if result.confidence is not None:
        notes.append(f"confidence {result.confidence:.2f}")
    if result.truncated:
        notes.append("cut off by the limit of the length")
    if result.answer_kind is AnswerKind.TEXT:
        answer = f'<pre style="white-space: pre-wrap">{_text(result.text)}</pre>'
    else:
        titles = ["label", "score", "box: x1, y1, x2, y2", *([] if about is None else ["answer"])]
        head = "".join(f"<th>{title}</th>" for title in titles)
        cells = [None] * len(result.detections) if about is None else about
        rows = map(_row, result.detections, cells)
        answer = f"{_drawing(result)}<table><tr>{head}</tr>{''.join(rows)}</table>"
    return f"<div><p>{', '.join(notes)}</p>{answer}</div>"


def _row(found: Detection, about: str | None) -> str:
    score = "" if found.scores is None else f"{found.scores.score:.2f}"
    box = ", ".join(f"{value:.1f}" for value in found.box)
    cells = [_text(found.label), score, box, *([] if about is None else [_text(about)])]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _drawing(result: Result) -> str:
    """Draws an answer, inside the page; nothing if the picture is gone or cannot be drawn on."""
    image = None if result.picture is None else result.picture.image()
    if image is None:
        return ""
    try:
        drawn = draw(image, result)
    except FlorenceError:
        return ""
    drawn.thumbnail((_LARGEST, _LARGEST))
    file = BytesIO()
    drawn.save(file, "JPEG", quality=90)
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">'


def _text(text: str) -> str:
    return escape(printable(text, keep="\n\t"))
