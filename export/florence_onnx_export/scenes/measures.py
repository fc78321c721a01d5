"""Measures of the answers to every task on drawn scenes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from florence_onnx.tasks import Task
from florence_onnx_export.scenes.coco import mean_average_precision
from florence_onnx_export.scenes.metrics import (
    Answered,
    character_error,
    exact_share,
    match_counts,
    plain_text,
    polygon_iou,
)


@dataclass(frozen=True)
class Measure:
    """Measure of the answers to one task."""

    task: Task
    """Task of the answers."""
    name: str
    """Name of the measure."""
    of: Callable[[Sequence[Answered]], float]
    """Function that measures answers: 0 to 1, or more for a character error."""
    errors: bool = False
    """Tells whether 0 is the best value."""

    @property
    def title(self) -> str:
        """Task and name of the measure."""
        return f"{self.task.name} {self.name}"


def _recall(answers: Sequence[Answered]) -> float:
    matched, true, _ = match_counts(answers)
    return matched / max(1, true)


def _recall_of_places(answers: Sequence[Answered]) -> float:
    matched, true, _ = match_counts(answers, labelled=False)
    return matched / max(1, true)


def _f1(answers: Sequence[Answered]) -> float:
    """Harmonic mean of precision and recall."""
    matched, true, predicted = match_counts(answers)
    return 2 * matched / max(1, true + predicted)


def _character_error(answers: Sequence[Answered]) -> float:
    return character_error([(plain_text(answer), answer.question.answer) for answer in answers])


def _mean_iou(answers: Sequence[Answered]) -> float:
    return float(np.mean([polygon_iou(answer) for answer in answers]))


MEASURES = (
    Measure(Task.OD, "F1@0.5", _f1),
    Measure(Task.DENSE_REGION_CAPTION, "F1@0.5", _f1),
    Measure(Task.REGION_PROPOSAL, "F1@0.5", _f1),
    Measure(Task.CAPTION, "exact", exact_share),
    Measure(Task.DETAILED_CAPTION, "exact", exact_share),
    Measure(Task.MORE_DETAILED_CAPTION, "exact", exact_share),
    Measure(Task.CAPTION_TO_PHRASE_GROUNDING, "recall@0.5", _recall),
    Measure(Task.OPEN_VOCABULARY_DETECTION, "recall@0.5", _recall),
    Measure(Task.REFERRING_EXPRESSION_SEGMENTATION, "mean IoU", _mean_iou),
    Measure(Task.REGION_TO_SEGMENTATION, "mean IoU", _mean_iou),
    Measure(Task.REGION_TO_CATEGORY, "exact", exact_share),
    Measure(Task.REGION_TO_DESCRIPTION, "exact", exact_share),
    Measure(Task.OCR, "character error", _character_error, errors=True),
    Measure(Task.REGION_TO_OCR, "character error", _character_error, errors=True),
    Measure(Task.OCR_WITH_REGION, "recall@0.5 of boxes", _recall_of_places),
    Measure(Task.OCR_WITH_REGION, "F1@0.5 with the words", _f1),
)
COCO = (
    Measure(Task.OD, "mAP@0.5", lambda answers: mean_average_precision(answers)[0]),
    Measure(Task.OD, "mAP@[.5:.95]", lambda answers: mean_average_precision(answers)[1]),
)
"""Measures that need pycocotools."""


def score(answers: Sequence[Answered], measures: Sequence[Measure] = MEASURES) -> dict[str, float]:
    """Measures the answers; returns measures by title, for the tasks that were asked.

    A place counts as found if the answer has a place with the same label and an intersection over
    union of at least 0.5. The character error is the number of edits (Levenshtein) per true
    character. The mean IoU compares the first outline of an answer with the drawn shape.
    """
    by_task: dict[Task, list[Answered]] = {}
    for answer in answers:
        by_task.setdefault(answer.question.task, []).append(answer)
    return {
        measure.title: measure.of(by_task[measure.task])
        for measure in measures
        if measure.task in by_task
    }
