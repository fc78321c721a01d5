"""What a request returns: one frozen dataclass per kind of answer.

Coordinates are pixels of the picture as floats, x before y. ``to_dict`` gives the dictionary the
reference processors return.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from florence_onnx.locations import to_integers

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""
QuadBox = tuple[float, float, float, float, float, float, float, float]
"""Four corners x, y in pixels, in the order the model names them."""
Outline = tuple[float, ...]
"""x, y, x, y, ... in pixels."""


@dataclass(frozen=True, kw_only=True)
class Result(ABC):
    """What all answers have in common."""

    task: str
    """The task's tag, such as ``<OD>``, or the prompt that was given in its place."""
    text: str
    """The generated text, special and location tokens included."""
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

    @abstractmethod
    def _answer(self, integers: bool) -> Any: ...

    def _points(self, points: Sequence[float], integers: bool) -> list[float] | list[int]:
        return to_integers(points, self.image_size) if integers else list(points)

    def _polygons(
        self, polygons: tuple[tuple[Outline, ...], ...], integers: bool
    ) -> list[list[list[float] | list[int]]]:
        return [[self._points(outline, integers) for outline in outlines] for outlines in polygons]


@dataclass(frozen=True, kw_only=True)
class TextResult(Result):
    """A caption, a description, a category, plain text, or the answer to a fine-tune's prompt."""

    answer: str
    """The text without special tokens and surrounding white space."""

    def _answer(self, integers: bool) -> str:
        return self.answer


@dataclass(frozen=True, kw_only=True)
class BoxesResult(Result):
    """Boxes with a label each."""

    boxes: tuple[Box, ...]
    """Pixel boxes."""
    labels: tuple[str, ...]
    """One label per box; empty for region proposals."""

    def _answer(self, integers: bool) -> dict[str, Any]:
        return {
            "bboxes": [self._points(box, integers) for box in self.boxes],
            "labels": _ascii(self.labels),
        }


@dataclass(frozen=True, kw_only=True)
class PolygonsResult(Result):
    """Segmented things, each of one or more outlines."""

    polygons: tuple[tuple[Outline, ...], ...]
    """Per thing, its outlines."""
    labels: tuple[str, ...]
    """One label per thing, usually empty."""

    def _answer(self, integers: bool) -> dict[str, Any]:
        return {"polygons": self._polygons(self.polygons, integers), "labels": list(self.labels)}


@dataclass(frozen=True, kw_only=True)
class BoxesOrPolygonsResult(Result):
    """What open-vocabulary detection finds: boxes or, if the model outlined them, polygons."""

    boxes: tuple[Box, ...]
    """Pixel boxes."""
    box_labels: tuple[str, ...]
    """One label per box."""
    polygons: tuple[tuple[Outline, ...], ...]
    """Per thing, its outlines."""
    polygon_labels: tuple[str, ...]
    """One label per entry of ``polygons``."""

    def _answer(self, integers: bool) -> dict[str, Any]:
        return {
            "bboxes": [self._points(box, integers) for box in self.boxes],
            "bboxes_labels": _ascii(self.box_labels),
            "polygons": self._polygons(self.polygons, integers),
            "polygons_labels": list(self.polygon_labels),
        }


@dataclass(frozen=True, kw_only=True)
class QuadBoxesResult(Result):
    """Lines of text with the quadrilaterals around them."""

    quad_boxes: tuple[QuadBox, ...]
    """Corners in pixels."""
    labels: tuple[str, ...]
    """The text in each."""

    def _answer(self, integers: bool) -> dict[str, Any]:
        return {
            "quad_boxes": [self._points(quad_box, integers) for quad_box in self.quad_boxes],
            "labels": list(self.labels),
        }


def _ascii(labels: tuple[str, ...]) -> list[str]:
    # The reference drops everything else from the labels of boxes, and only there.
    return [label.encode("ascii", "ignore").decode("ascii") for label in labels]
