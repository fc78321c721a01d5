"""Results of requests: one frozen dataclass for every kind of answer.

Coordinates are pixels of the picture as floats, x before y.
"""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from florence_onnx.locations import to_integers
from florence_onnx.picture_reference import PictureReference
from florence_onnx.tasks import AnswerKind

Box = tuple[float, float, float, float]
"""Box: x1, y1, x2, y2 in pixels."""
Quad = tuple[float, float, float, float, float, float, float, float]
"""Quadrilateral: four corners x, y in pixels, in the order of the model."""
Outline = tuple[float, ...]
"""Outline: x, y, x, y, ... in pixels."""

SCHEMA = 1
"""Version of the fields of ``Result.record``, which grows when a field goes or means something
else."""


def mean_probability(log_probabilities: Iterable[float | None]) -> float | None:
    """Computes exp(mean) of the log-probabilities that are not None; None without any."""
    known = [value for value in log_probabilities if value is not None]
    return math.exp(sum(known) / len(known)) if known else None


@dataclass(frozen=True)
class Token:
    """Token of a generated text."""

    id: int
    """Id of the token."""
    text: str
    """Text that the token spells; where several tokens spell one character, that character."""
    span: tuple[int, int]
    """Place of the token in ``Result.generated``: start and end, in characters."""
    log_probability: float | None
    """Log-probability of the token after the tokens before, over the whole vocabulary, as in
    transformers' ``compute_transition_scores``. Banned tokens do not make other tokens likelier.
    None for tokens that the search did not choose: the start token and forced tokens."""


@dataclass(frozen=True, kw_only=True)
class DetectionScores:
    """Scores of a detection: probabilities, 0 to 1, from the search."""

    location: float
    """Mean probability of the location tokens: exp(mean log-probability), the formula of
    Microsoft's processor of the large model."""
    label: float | None
    """Mean probability of the label's tokens; None where the task names nothing."""
    score: float
    """Rank of the detection: the score of the label, or of the location where there is no label.
    This formula has the best average precision of all formulas compared on drawn scenes
    (``python -m benchmarks.scores``)."""


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Thing that an answer locates."""

    label: str
    """Name or description of the thing, or the text that was read; empty where the task names
    nothing, such as region proposals and most polygons."""
    box: Box
    """Box of the model, or the box around the quadrilateral or polygons: x1, y1, x2, y2 in
    pixels, x1 <= x2 and y1 <= y2. All zeros for polygons without a single point."""
    reversed_box: Box | None = None
    """Box of the model if its corners are in the wrong order; else None. ``box`` has the right
    order. The reference, and so ``Result.to_dict``, keeps the wrong order."""
    quad: Quad | None = None
    """Four corners of a line of text; None for tasks that answer otherwise."""
    polygons: tuple[Outline, ...] | None = None
    """Outlines of a segmented thing; None for tasks that answer otherwise."""
    label_tokens: tuple[int, ...] = ()
    """Places of the label in ``Result.token_ids``: indices, ascending. Things that share one label
    in the answer share the tokens of the label. Empty if only text was parsed."""
    location_tokens: tuple[int, ...] = ()
    """Places of the coordinates in ``Result.token_ids``: indices, ascending."""
    scores: DetectionScores | None = None
    """Scores of the detection; None if only text was parsed."""

    @property
    def outlines(self) -> tuple[Outline, ...]:
        """Polygons, else the quadrilateral, else the corners of the box."""
        if self.polygons is not None:
            return self.polygons
        if self.quad is not None:
            return (self.quad,)
        x1, y1, x2, y2 = self.box
        return ((x1, y1, x2, y1, x2, y2, x1, y2),)

    def _record(self) -> dict[str, Any]:
        record: dict[str, Any] = {"label": self.label, "box": list(self.box)}
        if self.reversed_box is not None:
            record["reversed"] = True
        if self.quad is not None:
            record["quad"] = list(self.quad)
        if self.polygons is not None:
            record["polygons"] = [list(outline) for outline in self.polygons]
        if self.scores is not None:
            record["scores"] = asdict(self.scores)
        return record


@dataclass(frozen=True, kw_only=True)
class Result:
    """Answer to a request."""

    task: str
    """Tag of the task, such as ``<OD>``, or the prompt that was given in place of a task."""
    answer_kind: AnswerKind
    """Kind of the answer, by which the generated text was read."""
    text: str
    """Generated text without ``<s>``, ``</s>``, ``<pad>`` and surrounding white space: the
    whole answer of a task that answers with text. Location tokens are part of the text."""
    detections: tuple[Detection, ...]
    """Detections of the answer, in the order of the text; empty for text."""
    generated: str
    """Generated text with special tokens."""
    token_ids: tuple[int, ...]
    """Generated token ids; empty if only text was parsed."""
    score: float | None
    """Sequence's score in the search; None if only text was parsed."""
    image_size: tuple[int, int]
    """Size of the picture in pixels, (width, height)."""
    tokens: tuple[Token, ...] = ()
    """Generated tokens, in the order of ``token_ids``; empty if only text was parsed."""
    truncated: bool = False
    """Tells whether the limit of the length (``max_new_tokens``), and not the model, ended the
    text. A box or quadrilateral that lacks coordinates at the end is then left out, and so is a
    label without coordinates; an outline keeps whole points."""
    alternatives: "tuple[Result, ...]" = ()
    """Other returned sequences, best first, where num_return_sequences asks for several."""
    tiles: tuple[tuple[int, int, int, int], ...] = ()
    """Tiles of the picture, where the request has tiles: x1, y1, x2, y2 in whole pixels, the whole
    picture last. Then ``generated``, ``token_ids`` and ``tokens`` belong to all tiles in this
    order, with places in tiles; ``text`` has the places in the picture."""
    picture: PictureReference | None = field(default=None, compare=False, repr=False)
    """Reference to the picture, for notebooks; the result keeps no picture in memory. None if only
    text was parsed."""

    @property
    def confidence(self) -> float | None:
        """Mean probability of the answer's tokens, 0 to 1.

        exp(mean log-probability) of the tokens that the search chose, the end included. None if
        the search chose no token, or if only text was parsed.
        """
        return mean_probability(token.log_probability for token in self.tokens)

    def to_dict(self, integers: bool = False) -> dict[str, Any]:
        """Makes the answer in the form of the reference's ``post_process_generation``, for JSON.

        Args:
            integers: Whole pixels, cut off as in transformers; else floats, as in Microsoft's
                processor.
        """
        return {self.task: self._answer(integers)}

    def record(self, image: str | os.PathLike[str] | None = None) -> dict[str, Any]:
        """Makes the JSON object that ``florence-onnx run --json`` prints.

        | field | |
        |---|---|
        | `image` | The ``image`` given here; absent without. |
        | `schema` | Version of these fields. |
        | `size` | [width, height] of the picture in pixels. |
        | `task` | The tag of the task, or the prompt given in place of a task. |
        | `answer` | `to_dict`: the answer in the form of the reference. |
        | `text` | The generated text without special tokens. |
        | `generated` | The generated text with special tokens. |
        | `score` | The score of the sequence in the search; null if there is none. |
        | `confidence` | Mean probability of the tokens, 0 to 1; null if not known. |
        | `truncated` | Whether the limit of the length ended the text. |
        | `detections` | Things that the answer locates; see below. |
        | `alternatives` | Records of the other returned sequences; absent where there are none. |
        | `tiles` | Boxes of the tiles that were asked about, in pixels; absent without tiles. |

        A detection has ``label`` and ``box``, with ``quad`` or ``polygons`` where the task gives
        these, in pixels; ``scores`` (``location``, ``label`` or null, ``score``) where these are
        known; and ``reversed``, true, where the corners of the box had to be put in order.

        Args:
            image: The name of the picture, such as the path of the file.
        """
        has_score = self.score is not None and math.isfinite(self.score)
        record: dict[str, Any] = {} if image is None else {"image": os.fsdecode(image)}
        record |= {
            "schema": SCHEMA,
            "size": list(self.image_size),
            "task": self.task,
            "answer": self.to_dict(),
            "text": self.text,
            "generated": self.generated,
            "score": self.score if has_score else None,  # JSON has no infinity.
            "confidence": self.confidence,
            "truncated": self.truncated,
            "detections": [detection._record() for detection in self.detections],
        }
        if self.alternatives:
            record["alternatives"] = [other.record() for other in self.alternatives]
        if self.tiles:
            record["tiles"] = [list(frame) for frame in self.tiles]
        return record

    def to_supervision(self, names: Sequence[str] | None = None) -> Any:
        """Makes ``supervision.Detections`` of the detections that have an area.

        ``xyxy``, ``class_id``, ``data["class_name"]``; ``confidence`` where scores are known;
        ``mask`` where all have outlines. A thing without a name is called ``object``.

        Args:
            names: The classes, in the order of their numbers, from 0; by default the labels of
                this answer in alphabetical order.

        Raises:
            InputError: The answer is text, or has a label that is not in ``names``.
            MissingDependencyError: supervision is not installed.
        """
        from florence_onnx.converting import one_result

        return one_result.to_supervision(self, names)

    def to_coco(
        self, image: str | os.PathLike[str] = "", names: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Makes COCO's JSON object of one picture, named ``image``; else as `to_supervision`.

        Image, categories and annotations are numbered from 1.
        """
        from florence_onnx.converting import one_result

        return one_result.to_coco(self, os.fsdecode(image), names)

    def to_labelme(self, image: str | os.PathLike[str]) -> dict[str, Any]:
        """Makes LabelMe's JSON object, for a file in the folder from which ``image`` is the path.

        Raises InputError if the answer is text.
        """
        from florence_onnx.converting import one_result

        return one_result.to_labelme(self, os.fsdecode(image))

    def to_yolo(self, names: Sequence[str] | None = None) -> str:
        """Makes YOLO's text file: class, then box or outline, 0 to 1; else as `to_supervision`."""
        from florence_onnx.converting import one_result

        return one_result.to_yolo(self, names)

    def _repr_html_(self) -> str:
        """Makes the HTML for notebooks: the text, or the drawn picture and a table."""
        from florence_onnx.notebook import to_html

        return to_html(self)

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
        boxes = [
            numbers(found.reversed_box or found.box)
            for found in self.detections
            if found.polygons is None
        ]
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
