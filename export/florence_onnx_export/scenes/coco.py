"""Mean average precision as the COCO evaluation defines it."""

import contextlib
import io
from collections.abc import Sequence

import numpy as np

from florence_onnx_export.scenes.metrics import Answered, Points, places
from florence_onnx_export.scenes.shapes import COLOURS, OUTLINES

LABELS = [f"{colour} {kind}" for colour in COLOURS for kind in OUTLINES]


Found = Sequence[tuple[str, Points, float]]
"""Label, corners in pixels and score of every thing that an answer locates."""


def mean_average_precision(answers: Sequence[Answered]) -> tuple[float, float]:
    """Mean average precision at IoU 0.5, and averaged over 0.5 to 0.95, by pycocotools.

    Args:
        answers: Detection answers, one per scene. The boxes have no confidence, so all boxes have
            equal scores. A label that no scene has is left out, as in the COCO tools.

    Raises:
        ImportError: pycocotools is not installed.
    """
    found = [[(*place, 1.0) for place in places(answer, answer.text)] for answer in answers]
    return average_precision(answers, found)[:2]


def average_precision(
    answers: Sequence[Answered], found: Sequence[Found]
) -> tuple[float, float, float]:
    """Mean of `mean_average_precision` and of recall, from 0.5 to 0.95, of scored detections.

    Args:
        answers: Detection answers, one per scene. The texts are not read.
        found: Detections in each scene.

    Raises:
        ImportError: pycocotools is not installed.
    """
    from pycocotools.coco import COCO  # type: ignore[import-untyped]
    from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped]

    boxes = [
        (image_id, *_xywh(points), score, LABELS.index(label))
        for image_id, places_of_image in enumerate(found)
        for label, points, score in places_of_image
        if label in LABELS
    ]
    if not boxes:
        return 0.0, 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": image_id} for image_id in range(len(answers))],
            "categories": [{"id": index, "name": name} for index, name in enumerate(LABELS)],
            "annotations": _truths(answers),
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(np.array(boxes)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    at_half, mean, recall = evaluation.stats[[1, 0, 8]].tolist()
    return at_half, mean, recall


def _truths(answers: Sequence[Answered]) -> list[dict[str, object]]:
    truths: list[dict[str, object]] = []
    for image_id, answer in enumerate(answers):
        for label, points in places(answer, answer.question.answer):
            box = _xywh(points)
            truths.append(
                {
                    "id": len(truths) + 1,
                    "image_id": image_id,
                    "category_id": LABELS.index(label),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    return truths


def _xywh(points: Points) -> list[float]:
    (x1, y1), _, (x2, y2), _ = points
    return [x1, y1, x2 - x1, y2 - y1]
