"""Adapter for X-AnyLabeling's remote server: models and tasks, and shapes to draw.

The sources are the interface's reference (docs/router.md of X-AnyLabeling-Server) and the program's
own client (``remote_server.py``).
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from florence_onnx.generation.options import GenerationOptions
from florence_onnx.results import Detection, Result
from florence_onnx.serving.asking import Asked, picture_bytes
from florence_onnx.serving.models import Models
from florence_onnx.serving.refusals import RefusalError
from florence_onnx.serving.schemas import TYPED, AskedTask
from florence_onnx.tasks import AnswerKind, InputKind, Task

HEADER = "token"
"""Header that the program sends with every request, possibly empty. Requests to /v1/models and
/health without this header are those of OpenAI's and Label Studio's clients."""


@dataclass(frozen=True)
class ShapesBody:
    """Body of /v1/predict."""

    __pydantic_config__: ClassVar[dict[str, Any]] = TYPED

    model: str
    """Name of a model from /v1/models."""
    image: str
    """Picture file in base64, with or without the head of a data URI."""
    params: dict[str, Any] = field(default_factory=dict)
    """Parameters: ``current_task``, ``text_prompt``, ``conf_threshold``, ``marks``."""


def model_list(models: Models) -> dict[str, Any]:
    """Makes the answer to GET /v1/models."""
    return {"success": True, "data": {name: _about(name) for name in models.names}}


def model_info(models: Models, name: str) -> dict[str, Any]:
    """Makes the answer to GET /v1/models/NAME/info.

    Raises:
        RefusalError: There is no model of this name.
    """
    if name not in models.names:
        raise RefusalError(
            404,
            "model_not_found",
            f"there is no model {name!r:.80}; there are the models {', '.join(models.names)}",
        )
    return {"success": True, "data": {"model_id": name, **_about(name)}}


def health(models: Models) -> dict[str, Any]:
    """Makes the answer to GET /health."""
    return {
        "status": "healthy",
        "models_loaded": sum(models.is_open(name) for name in models.names),
        "timestamp": datetime.datetime.now(datetime.timezone.utc).isoformat(),
    }


def asked_for_shapes(body: ShapesBody) -> Asked:
    """Reads the body of /v1/predict; the task is object detection where none is chosen.

    Raises:
        RefusalError: A parameter is of another type, or a region task has no rectangle.
    """
    name, text = (body.params.get(key) for key in ("current_task", "text_prompt"))
    least = body.params.get("conf_threshold") or 0.0
    if not isinstance(name, str | None) or not isinstance(text, str | None):
        raise RefusalError(400, "invalid_request", "current_task and text_prompt must be text")
    task = Task.parse(name or Task.OD)
    options: GenerationOptions = {}
    if least and task.answer_kind is not AnswerKind.TEXT:  # The program sends it for every task.
        options["min_score"] = least
    takes_region = task.input_kind is InputKind.REGION
    asked = AskedTask(
        task.value,
        text if task.input_kind is InputKind.TEXT else None,
        _region(body.params.get("marks")) if takes_region else None,
    )
    return Asked(picture_bytes(body.image), [asked], body.model, options)


def shapes(result: Result) -> dict[str, Any]:
    """Makes the answer to POST /v1/predict: shapes, or text as a description."""
    is_text = result.answer_kind is AnswerKind.TEXT
    found = [shape for detection in result.detections for shape in _shapes(detection)]
    return {
        "success": True,
        "data": {"shapes": found, "description": result.text if is_text else ""},
    }


def _about(name: str) -> dict[str, Any]:
    tasks = [
        {
            "id": task.name.lower(),
            "name": task.name.replace("_", " ").capitalize(),
            "description": task.prompt.replace(" {input}", ""),
            "batch_processing_mode": _MODES[task.input_kind],
            "widgets": _WIDGETS[task.input_kind],
        }
        for task in Task
    ]
    return {"display_name": name, "widgets": [_RUN], "params": {}, "available_tasks": tasks}


_RUN = {"name": "button_run", "value": None}
_MODES = {InputKind.NONE: "default", InputKind.TEXT: "text_prompt", InputKind.REGION: None}
_WIDGETS: dict[InputKind, list[dict[str, Any]]] = {
    InputKind.NONE: [_RUN],
    InputKind.TEXT: [
        {"name": "edit_text", "value": None},
        {"name": "button_send", "value": None},
    ],
    InputKind.REGION: [{"name": "button_add_rect", "value": None}, _RUN],
}


def _region(marks: object) -> list[float]:
    """Finds the last rectangle that was drawn."""
    if isinstance(marks, list):
        for mark in reversed(marks):
            data = mark.get("data") if isinstance(mark, dict) else None
            if isinstance(data, list) and len(data) == 4 and mark.get("type") == "rectangle":
                return data
    raise RefusalError(422, "region_error", "marks: this task needs a rectangle")


def _shapes(detection: Detection) -> list[dict[str, Any]]:
    if detection.polygons is None and detection.quad is None:
        x1, y1, x2, y2 = detection.box
        outlines: Sequence[Sequence[float]] = [(x1, y1, x2, y1, x2, y2, x1, y2)]
        kind = "rectangle"
    else:
        outlines, kind = detection.outlines, "polygon"
    return [
        {
            "label": detection.label or "object",
            "shape_type": kind,
            "points": [list(point) for point in zip(line[::2], line[1::2], strict=True)],
            "score": None if detection.scores is None else detection.scores.score,
            "attributes": {},
            "description": None,
            "difficult": False,
            "direction": 0,
            "flags": None,
            "group_id": None,
            "kie_linking": [],
        }
        for line in outlines
    ]
