"""Answers as plain text for people."""

from collections.abc import Iterator

from florence_onnx.cascading import CascadeResult
from florence_onnx.results import Detection, Result
from florence_onnx.tasks import AnswerKind
from florence_onnx.terminal import printable


def lines(result: Result | CascadeResult) -> Iterator[str]:
    """Writes an answer for people: the text, or a label and pixels per line.

    A cascade is a text with its things, or things with the answers about each.
    """
    if isinstance(result, CascadeResult):
        yield from _cascade_lines(result)
        return
    if result.answer_kind is AnswerKind.TEXT:
        yield result.text
    for found in result.detections:
        yield from _places(found)


def _cascade_lines(result: CascadeResult) -> Iterator[str]:
    if result.first.answer_kind is AnswerKind.TEXT:
        for answer in (result.first, *result.then):
            yield from lines(answer)
        return
    for found, then in zip(result.first.detections, result.then, strict=True):
        yield from _places(found)
        yield from (f"  {line}" for line in lines(then))


def _places(found: Detection) -> Iterator[str]:
    """Writes a label and pixels: a line for every outline."""
    for points in found.polygons or (found.quad or found.box,):
        numbers = " ".join(f"{value:.1f}" for value in points)
        yield f"{printable(found.label)}: {numbers}" if found.label else numbers
