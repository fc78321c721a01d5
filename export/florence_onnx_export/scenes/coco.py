"""Mean average precision as the COCO evaluation defines it."""

import contextlib
import io
from collections.abc import Sequence

import numpy as np

from florence_onnx_export.scenes.metrics import Answered, places
from florence_onnx_export.scenes.shapes import COLOURS, OUTLINES

_LABELS = [f"{colour} {kind}" for colour in COLOURS for kind in OUTLINES]


def mean_average_precision(answers: Sequence[Answered]) -> tuple[float, float]:
    """Mean average precision at IoU 0.5, and averaged over 0.5 to 0.95, by pycocotools.

    Args:
        answers: detection answers, one per scene. Their boxes carry no confidence, so all count as
            equally sure; a label that scenes do not have is a false detection of no class and is
            left out, as the COCO tools would.

    Raises:
        ImportError: without pycocotools.
    """
    from pycocotools.coco import COCO  # type: ignore[import-untyped]
    from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped]

    truths: list[dict[str, object]] = []
    found: list[tuple[float, ...]] = []
    for image_id, answer in enumerate(answers):
        for label, points in places(answer, answer.question.answer):
            box = _xywh(points)
            truths.append(
                {
                    "id": len(truths) + 1,
                    "image_id": image_id,
                    "category_id": _LABELS.index(label),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
        for label, points in places(answer, answer.text):
            if label in _LABELS:
                category = _LABELS.index(label)
                found.append((image_id, *_xywh(points), 1.0, category))
    if not found:
        return 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": image_id} for image_id in range(len(answers))],
            "categories": [{"id": index, "name": name} for index, name in enumerate(_LABELS)],
            "annotations": truths,
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(np.array(found)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[1]), float(evaluation.stats[0])


def _xywh(points: Sequence[tuple[float, float]]) -> list[float]:
    (x1, y1), _, (x2, y2), _ = points
    return [x1, y1, x2 - x1, y2 - y1]
