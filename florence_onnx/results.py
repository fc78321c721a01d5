"""What a request returns: one frozen dataclass for every kind of answer.

Coordinates are pixels of the picture as floats, x before y.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from florence_onnx.locations import to_integers
from florence_onnx.tasks import AnswerKind

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""
Quad = tuple[float, float, float, float, float, float, float, float]
"""Four corners x, y in pixels, in the order the model names them."""
Outline = tuple[float, ...]
"""x, y, x, y, ... in pixels."""

SCHEMA = 1
"""Version of the fields of ``Result.record``: it grows when one changes its meaning or goes."""


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One thing that an answer locates."""

    label: str
    """What it is: a name, a description, or the text that was read; empty where the task names
    nothing, such as region proposals and most polygons."""
    box: Box
    """The box the model gave, or the one around its quadrilateral or polygons: x1, y1, x2, y2 in
    pixels. All zeros for polygons without a single point."""
    quad: Quad | None = None
    """The four corners of a line of text; None for tasks that answer otherwise."""
    polygons: tuple[Outline, ...] | None = None
    """The outlines of a segmented thing; None for tasks that answer otherwise."""
    label_tokens: tuple[int, ...] = ()
    """Where in ``Result.token_ids`` the label stands: indices, ascending. Things that share one
    label in the answer share its tokens. Empty if only text was parsed."""
    location_tokens: tuple[int, ...] = ()
    """Where in ``Result.token_ids`` the coordinates stand: indices, ascending."""

    @property
    def outlines(self) -> tuple[Outline, ...]:
        """The polygons, else the quadrilateral, else the corners of the box."""
        if self.polygons is not None:
            return self.polygons
        if self.quad is not None:
            return (self.quad,)
        x1, y1, x2, y2 = self.box
        return ((x1, y1, x2, y1, x2, y2, x1, y2),)

    def _record(self) -> dict[str, Any]:
        record: dict[str, Any] = {"label": self.label, "box": list(self.box)}
        if self.quad is not None:
            record["quad"] = list(self.quad)
        if self.polygons is not None:
            record["polygons"] = [list(outline) for outline in self.polygons]
        return record


@dataclass(frozen=True, kw_only=True)
class Result:
    """The answer to a request."""

    task: str
    """The task's tag, such as ``<OD>``, or the prompt that was given in its place."""
    answer_kind: AnswerKind
    """How the generated text was read."""
    text: str
    """The generated text without ``<s>``, ``</s>``, ``<pad>`` and surrounding white space: the
    whole answer of a task that answers with text. Location tokens are part of it."""
    detections: tuple[Detection, ...]
    """Everything the answer locates, in the order of the text; empty for text."""
    generated: str
    """The generated text as it came, special tokens included."""
    token_ids: tuple[int, ...]
    """The generated token ids; empty if only text was parsed."""
    score: float | None
    """The sequence's score in the search; None if only text was parsed."""
    image_size: tuple[int, int]
    """(width, height) of the picture in pixels."""
    alternatives: "tuple[Result, ...]" = ()
    """The other returned sequences, best first, where num_return_sequences asks for several."""

    def to_dict(self, integers: bool = False) -> dict[str, Any]:
        """The answer as the reference's ``post_process_generation`` returns it, ready for JSON.

        Args:
            integers: whole pixels, cut off as transformers does; else floats, as Microsoft's
                processor returns them.
        """
        return {self.task: self._answer(integers)}

    def record(self, image: str | None = None) -> dict[str, Any]:
        """The answer as the JSON object that ``florence-onnx run --json`` prints.

        ============  ========================================================================
        image         The ``image`` given here; absent without.
        schema        Version of these fields, `SCHEMA`.
        size          [width, height] of the picture in pixels.
        task          The task's tag, or the prompt given in its place.
        answer        `to_dict`: the answer as the reference returns it.
        text          The generated text without special tokens.
        generated     The generated text as it came.
        score         The sequence's score in the search; null if it has none.
        detections    What the answer locates, each with ``label`` and ``box``, and with ``quad``
                      or ``polygons`` where the task gives them; in pixels.
        alternatives  Records of the other returned sequences; absent where there are none.
        ============  ========================================================================

        Args:
            image: the picture's name, such as its path.
        """
        has_score = self.score is not None and math.isfinite(self.score)
        record: dict[str, Any] = {} if image is None else {"image": image}
        record |= {
            "schema": SCHEMA,
            "size": list(self.image_size),
            "task": self.task,
            "answer": self.to_dict(),
            "text": self.text,
            "generated": self.generated,
            "score": self.score if has_score else None,  # JSON has no infinity.
            "detections": [detection._record() for detection in self.detections],
        }
        if self.alternatives:
            record["alternatives"] = [other.record() for other in self.alternatives]
        return record

    def _answer(self, integers: bool) -> str | dict[str, Any]:
        def numbers(points: Sequence[float]) -> list[float] | list[int]:
            return to_integers(points, self.image_size) if integers else list(points)

        kind = self.answer_kind
        if kind is AnswerKind.TEXT:
            return self.text
        labels = [found.label for found in self.detections]
        if kind is AnswerKind.QUADRILATERALS:
            quads = [numbers(found.outlines[0]) for found in self.detections]
            return {"quad_boxes": quads, "labels": labels}
        polygons = [
            [numbers(outline) for outline in found.polygons]
            for found in self.detections
            if found.polygons is not None
        ]
        if kind is AnswerKind.POLYGONS:
            return {"polygons": polygons, "labels": labels}
        boxes = [numbers(found.box) for found in self.detections if found.polygons is None]
        # The reference drops everything but ASCII from the labels of boxes, and only there.
        plain = [label.encode("ascii", "ignore").decode("ascii") for label in labels]
        if kind is AnswerKind.BOXES_OR_POLYGONS:
            return {
                "bboxes": boxes,
                "bboxes_labels": plain if boxes else [],
                "polygons": polygons,
                "polygons_labels": labels if polygons else [],
            }
        return {"bboxes": boxes, "labels": plain}
