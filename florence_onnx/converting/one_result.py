"""Conversion of one answer, by the writers of whole annotations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from florence_onnx.converting.coco import coco
from florence_onnx.converting.lines import Answer, read_found
from florence_onnx.converting.per_picture import labelme_content
from florence_onnx.converting.reading import Labelled, Labels
from florence_onnx.converting.supervision import detections
from florence_onnx.converting.yolo import yolo_lines
from florence_onnx.errors import InputError
from florence_onnx.fields import Fields
from florence_onnx.tasks import AnswerKind

if TYPE_CHECKING:
    from florence_onnx.results import Result


def to_supervision(result: Result, names: Sequence[str] | None) -> Any:
    """See ``Result.to_supervision``."""
    labels = _labels(result)
    return detections(labels.pictures[0], _numbers(labels, names))


def to_coco(result: Result, image: str, names: Sequence[str] | None) -> dict[str, Any]:
    """See ``Result.to_coco``."""
    labels = _labels(result, image)
    return coco(labels, [*_numbers(labels, names)])


def to_labelme(result: Result, image: str) -> dict[str, Any]:
    """See ``Result.to_labelme``."""
    return labelme_content(_labels(result).pictures[0], image, b"")


def to_yolo(result: Result, names: Sequence[str] | None) -> str:
    """See ``Result.to_yolo``."""
    labels = _labels(result)
    lines = yolo_lines(labels.pictures[0], _numbers(labels, names))
    return "".join(line + "\n" for line in lines)


def _labels(result: Result, image: str = "") -> Labels:
    if result.answer_kind is AnswerKind.TEXT:
        raise InputError(f"the answer to {result.task} is text: it locates nothing")
    record = Fields(result.record(), result.task, InputError)
    found = tuple(map(read_found, record.sections("detections")))
    picture = Labelled(image, source="", content="", size=result.image_size)
    picture.answers[result.task, None] = Answer(result.task, None, result.text, found, True)
    return Labels([picture])


def _numbers(labels: Labels, names: Sequence[str] | None) -> dict[str, int]:
    """Label -> number of the class, from 0."""
    names = labels.names if names is None else names
    are_listed = isinstance(names, Sequence) and not isinstance(names, str | bytes)
    are_labels = are_listed and all(isinstance(name, str) and name for name in names)
    if not are_labels or len({*names}) != len(names):
        raise InputError(f"names must be a list of different labels, not {names!r}")
    others = [label for label in labels.names if label not in names]
    if others:
        raise InputError(
            f"names lack labels of the answer: {', '.join(map(repr, others))}; names are "
            f"{', '.join(map(repr, names)) or 'none'}"
        )
    return {name: number for number, name in enumerate(names)}
