"""Results in notebooks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from florence_onnx.tasks import AnswerKind
from florence_onnx.terminal import printable

if TYPE_CHECKING:
    from florence_onnx.results import Detection, Result


def to_html(result: Result) -> str:
    """Writes the text of an answer, or a table of located things. Words are text, never HTML."""
    width, height = result.image_size
    notes = [_text(result.task), f"{width}x{height} pixels"]
    if result.confidence is not None:
        notes.append(f"confidence {result.confidence:.2f}")
    if result.truncated:
        notes.append("cut off by the limit of the length")
    if result.answer_kind is AnswerKind.TEXT:
        answer = f'<pre style="white-space: pre-wrap">{_text(result.text)}</pre>'
    else:
        rows = "".join(map(_row, result.detections))
        head = "<tr><th>label</th><th>score</th><th>box: x1, y1, x2, y2</th></tr>"
        answer = f"<table>{head}{rows}</table>"
    return f"<div><p>{', '.join(notes)}</p>{answer}</div>"


def _row(found: Detection) -> str:
    score = "" if found.scores is None else f"{found.scores.score:.2f}"
    box = ", ".join(f"{value:.1f}" for value in found.box)
    return f"<tr><td>{_text(found.label)}</td><td>{score}</td><td>{box}</td></tr>"


def _text(text: str) -> str:
    return escape(printable(text, keep="\n\t"))
