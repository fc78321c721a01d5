"""Answers as plain text for people."""

from collections.abc import Iterator

from florence_onnx.results import Detection, Result
from florence_onnx.tasks import AnswerKind
from florence_onnx.terminal import printable


def lines(result: Result) -> Iterator[str]:
    """Writes an answer for people: the text, or a label and pixels per line."""
    if result.answer_kind is AnswerKind.TEXT:
        yield result.text
    for found in result.detections:
        yield from places(found)


def places(found: Detection) -> Iterator[str]:
    """Writes a label and pixels: a line for every outline."""
    for points in found.polygons or (found.quad or found.box,):
        numbers = " ".join(f"{value:.1f}" for value in points)
        yield f"{printable(found.label)}: {numbers}" if found.label else numbers
