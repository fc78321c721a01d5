"""Selection of detections of an answer by score and overlap."""

from collections.abc import Sequence

from florence_onnx.generation.grammar import is_list
from florence_onnx.generation.rules import AnswerRules
from florence_onnx.results import Box, Detection
from florence_onnx.tasks import AnswerKind

_SAME = 0.7
"""Least intersection over union of two boxes of one label that show one thing."""


def select(
    detections: Sequence[Detection], kind: AnswerKind, rules: AnswerRules
) -> tuple[Detection, ...]:
    """Drops detections with low scores and, with ``recall``, detections that are listed twice."""
    kept = [found for found in detections if _score(found) >= rules.min_score]
    if rules.recall is not None and is_list(kind):
        kept = _once(kept)
    return tuple(kept)


def _once(detections: Sequence[Detection]) -> list[Detection]:
    """Drops boxes that overlap a box of the same label with a higher score; keeps the order."""
    kept: list[Detection] = []
    for found in sorted(detections, key=_score, reverse=True):
        same = (other for other in kept if other.label == found.label)
        if all(overlap(found.box, other.box) < _SAME for other in same):
            kept.append(found)
    return [found for found in detections if any(found is one for one in kept)]


def _score(found: Detection) -> float:
    return 1.0 if found.scores is None else found.scores.score


def overlap(a: Box, b: Box) -> float:
    """Computes the intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inner = max(width, 0.0) * max(height, 0.0)
    union = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)) - inner
    return inner / union if union > 0 else 0.0
