"""Adapter for Label Studio's ML backend. The labelling configuration decides the tasks.

RectangleLabels asks for object detection with these labels alone, PolygonLabels for the outline of
each label, TextArea for a description. Pictures are data URIs. No URL is opened, not even a URL of
Label Studio itself.

The sources are https://labelstud.io/guide/ml_create and https://labelstud.io/guide/predictions.
"""

import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from florence_onnx import __version__
from florence_onnx.generation.options import GenerationOptions
from florence_onnx.results import Detection, Result
from florence_onnx.serving.asking import Asked, picture_bytes
from florence_onnx.serving.refusals import RefusalError
from florence_onnx.serving.schemas import TYPED, AskedTask
from florence_onnx.tasks import Task

VERSION = f"florence-onnx {__version__}"
"""Version of predictions that Label Studio shows."""

_KINDS = ("RectangleLabels", "PolygonLabels", "TextArea")
_LONGEST_CONFIG = 1 << 17
"""Characters of a labelling configuration. The parser takes a second for some megabytes."""


@dataclass(frozen=True)
class LabellingTask:
    """Task of a project."""

    __pydantic_config__: ClassVar[dict[str, Any]] = TYPED

    data: dict[str, Any]
    """Fields of the task; one field is the picture."""


@dataclass(frozen=True)
class LabellingBody:
    """Body of /predict. Fields that are not here are ignored."""

    __pydantic_config__: ClassVar[dict[str, Any]] = TYPED

    tasks: list[LabellingTask]
    """Tasks to be labelled."""
    label_config: str
    """Labelling configuration of the project, XML."""
    params: dict[str, Any] | None = field(default=None)
    """Further parameters of Label Studio, which are not read."""


@dataclass(frozen=True)
class Control:
    """Control of the labelling configuration, with its picture."""

    kind: str
    """Kind of the control: ``RectangleLabels``, ``PolygonLabels`` or ``TextArea``."""
    name: str
    """Name of the control."""
    target: str
    """Name of the picture's tag."""
    variable: str
    """Field of a task that holds the picture."""
    labels: tuple[str, ...]
    """Labels of the control."""


def controls(config: str) -> list[Control]:
    """Reads a labelling configuration.

    Raises:
        RefusalError: The configuration is no XML, is too long, or has no control that can be
            answered.
    """
    if len(config) > _LONGEST_CONFIG:
        raise _refused(f"it has more than {_LONGEST_CONFIG} characters")
    if "<!" in config.replace("<!--", ""):  # Entities could multiply the text.
        raise _refused("declarations are not read")
    try:
        root = ElementTree.fromstring(config)  # noqa: S314
    except ElementTree.ParseError as error:
        raise _refused(str(error)) from None
    pictures = {
        tag.get("name", ""): tag.get("value", "").removeprefix("$") for tag in root.iter("Image")
    }
    found = [
        Control(
            tag.tag,
            tag.get("name", ""),
            tag.get("toName", ""),
            pictures[tag.get("toName", "")],
            tuple(label.get("value", "") for label in tag.iter("Label")),
        )
        for tag in root.iter()
        if tag.tag in _KINDS and tag.get("toName") in pictures
    ]
    if not found:
        raise _refused(f"there is none of {', '.join(_KINDS)}")
    if any(control.kind == "PolygonLabels" and not control.labels for control in found):
        raise _refused("PolygonLabels has no labels, each of which is looked for")
    return found


def _refused(words: str) -> RefusalError:
    return RefusalError(422, "label_config_error", f"label_config: {words}")


def asked_for_control(control: Control, task: LabellingTask) -> Asked:
    """Makes the question of a control about the picture of a task.

    Raises:
        RefusalError: The picture is no data URI.
    """
    image = task.data.get(control.variable)
    if not isinstance(image, str):
        raise RefusalError(422, "image_error", f"data.{control.variable:.80}: there is no picture")
    options: GenerationOptions = {}
    if control.kind == "RectangleLabels":
        tasks = [AskedTask(Task.OD.value)]
        if control.labels:
            options["labels"] = control.labels
    elif control.kind == "PolygonLabels":
        name = Task.REFERRING_EXPRESSION_SEGMENTATION.value
        tasks = [AskedTask(name, label) for label in control.labels]
    else:
        tasks = [AskedTask(Task.MORE_DETAILED_CAPTION.value)]
    return Asked(picture_bytes(image), tasks, None, options)


def regions(control: Control, results: Sequence[Result]) -> list[dict[str, Any]]:
    """Makes regions of a prediction from the answers to a control."""
    if control.kind == "TextArea":
        found: list[tuple[dict[str, Any], Detection | None]] = [
            ({"text": [result.text]}, None) for result in results
        ]
    elif control.kind == "RectangleLabels":
        found = [(_box(one, result), one) for result in results for one in result.detections]
    else:
        found = [
            value
            for result, label in zip(results, control.labels, strict=True)
            for one in result.detections
            for value in _outlines(one, result, label)
        ]
    return [
        {
            "id": uuid.uuid4().hex[:10],
            "from_name": control.name,
            "to_name": control.target,
            "type": control.kind.lower(),
            "original_width": results[0].image_size[0],
            "original_height": results[0].image_size[1],
            "image_rotation": 0,
            "value": value,
            **({"score": one.scores.score} if one is not None and one.scores else {}),
        }
        for value, one in found
    ]


def prediction(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Makes the prediction for one task."""
    scores = [one["score"] for one in found if "score" in one]
    mean = sum(scores) / len(scores) if scores else 0.0
    return {"model_version": VERSION, "score": mean, "result": list(found)}


def _box(detection: Detection, result: Result) -> dict[str, Any]:
    (x1, y1, x2, y2), (width, height) = detection.box, result.image_size
    return {
        "x": 100 * x1 / width,
        "y": 100 * y1 / height,
        "width": 100 * (x2 - x1) / width,
        "height": 100 * (y2 - y1) / height,
        "rotation": 0,
        "rectanglelabels": [detection.label],
    }


def _outlines(
    detection: Detection, result: Result, label: str
) -> Iterator[tuple[dict[str, Any], Detection]]:
    width, height = result.image_size
    for line in detection.outlines:
        points = [
            [100 * x / width, 100 * y / height] for x, y in zip(line[::2], line[1::2], strict=True)
        ]
        yield {"points": points, "polygonlabels": [label], "closed": True}, detection
