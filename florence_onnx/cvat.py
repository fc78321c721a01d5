"""Auto-annotation in CVAT: the function that its command line, its SDK and its agents call.

The types are in cvat-sdk, which cvat-cli installs.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from florence_onnx.errors import InputError, TaskError
from florence_onnx.model import Florence2
from florence_onnx.requests import Request
from florence_onnx.results import Detection
from florence_onnx.tasks import AnswerKind, InputKind, Task

_SHAPES = {AnswerKind.POLYGONS: "polygon", AnswerKind.QUADRILATERALS: "polygon"}
_SHAPES[AnswerKind.BOXES_OR_POLYGONS] = "any"


def create(
    model: str, labels: str, task: str = "od", precision: str = "fp32", threads: int | None = None
) -> "DetectionFunction":
    """Makes the function for ``cvat-cli --function-module``, from ``-p NAME=TYPE:VALUE``.

    ``labels`` is a list with commas; see `DetectionFunction`, and `Florence2.load` for the rest.
    """
    names = [name.strip() for name in labels.split(",") if name.strip()]
    opened = Florence2.load(model, precision=precision, threads=threads)
    return DetectionFunction(opened, names, task)


class DetectionFunction:
    """Detection function for ``cvat_sdk.auto_annotation``, with ``spec`` and ``detect``."""

    def __init__(self, model: Florence2, labels: Sequence[str], task: Task | str = "od") -> None:
        """Stores the model, the task and the labels.

        Args:
            model: An opened model.
            labels: Labels of the CVAT task. A task that takes text is asked for each of them; of
                ``od``, what has one of these names counts; and all that another task locates,
                such as ``ocr_with_region``, has the only label.
            task: A task that locates things and takes no region.

        Raises:
            InputError: The labels do not suit the task, or the task locates nothing.
        """
        self._model, self._task, self._labels = model, Task.parse(task), [*labels]
        self._takes_text = self._task.input_kind is InputKind.TEXT
        name = self._task.name.lower()
        if self._task.answer_kind is AnswerKind.TEXT or self._task.input_kind is InputKind.REGION:
            raise TaskError(f"{name} is no task that locates things in a whole picture")
        if not labels or len({*labels}) < len(labels):
            raise InputError(f"labels must be different ones, at least one, not {labels!r}")
        if not self._takes_text and self._task is not Task.OD and len(labels) > 1:
            raise InputError(f"{name} has one label for all that it finds, not {len(labels)}")

    @property
    def spec(self) -> Any:
        """Labels, as a ``DetectionFunctionSpec``."""
        from cvat_sdk import auto_annotation as cvat

        kind = _SHAPES.get(self._task.answer_kind, "rectangle")
        labels = [cvat.label_spec(name, id, type=kind) for id, name in enumerate(self._labels)]
        return cvat.DetectionFunctionSpec(labels=labels)

    def detect(self, context: Any, image: Any) -> list[Any]:
        """Finds rectangles, or polygons where the task has outlines, as ``LabeledShapeRequest``.

        Args:
            context: Context with the ``conf_threshold`` below which shapes are left out, or None.
            image: The picture, of Pillow.
        """
        from cvat_sdk import auto_annotation as cvat

        shapes = []
        for label, found in self._found(image, context.conf_threshold or 0.0):
            x1, y1, x2, y2 = found.box
            if x1 == x2 or y1 == y2:
                continue
            if found.quad is None and found.polygons is None:
                shapes.append(cvat.rectangle(label, [*found.box]))
                continue
            outlines = [[*outline] for outline in found.outlines if len(outline) >= 6]
            shapes += [cvat.shape(label, type="polygon", points=one) for one in outlines]
        return shapes

    def _found(self, image: Any, min_score: float) -> Iterator[tuple[int, Detection]]:
        """Finds the located things, each with the number of its label."""
        encoded = self._model.encode(image)
        texts: Sequence[str | None] = self._labels if self._takes_text else [None]
        asked = [Request(encoded, self._task, text) for text in texts]
        numbers = {name.casefold(): number for number, name in enumerate(self._labels)}
        for label, result in enumerate(self._model.run(asked, min_score=min_score)):
            for found in result.detections:
                named = numbers.get(found.label.casefold()) if self._task is Task.OD else label
                if named is not None:
                    yield named, found
