"""Lines as annotate writes them, about pictures that are made."""

import hashlib
import json
from pathlib import Path
from typing import Any

from PIL import Image

from florence_onnx import Task, parse_answer
from florence_onnx.cli.program import main
from tests.helpers.tiny import picture

SIZE = (200, 100)
CAT = "cat<loc_100><loc_200><loc_499><loc_799>"  # 20.1, 20.05 to 99.9, 79.95
POINT = "dot<loc_5><loc_5><loc_5><loc_5>"
QUAD = "SALE<loc_0><loc_0><loc_500><loc_0><loc_500><loc_500><loc_0><loc_500>"
POLYGON = "<loc_0><loc_0><loc_500><loc_0><loc_500><loc_500><sep><loc_9><loc_9>"


def answer(photos: Path, name: str, task: Task, text: str, **fields: Any) -> dict[str, Any]:
    """A line about a picture that is made if it is not there."""
    file = photos / name
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(len(name), 100, 200)).save(file)
    record = parse_answer(text, task, SIZE).record()
    for one in record["detections"]:
        one["scores"] = {"location": 0.5, "label": 0.5, "score": 0.25}
    line = {
        "path": name,
        "source": str(photos),
        "hash": hashlib.sha256(file.read_bytes()).hexdigest(),
        "size": list(SIZE),
        "task": task.name.lower(),
        "input": None,
        "text": record["text"],
        "record": record,
    }
    return line | fields


def answers(photos: Path) -> list[dict[str, Any]]:
    """Boxes, polygons, quadrilaterals, text; an older answer, and one about an older file."""
    return [
        answer(photos, "a/1.png", Task.OD, "old" + CAT),
        answer(photos, "a/1.png", Task.OD, CAT + POINT),
        answer(photos, "a/1.png", Task.CAPTION, "A cat, red"),
        answer(photos, "b/1.png", Task.OD, "old" + CAT, hash="00" * 32),
        answer(photos, "b/1.png", Task.OCR_WITH_REGION, QUAD),
        answer(photos, "b/1.jpg", Task.REFERRING_EXPRESSION_SEGMENTATION, POLYGON, input="x"),
        answer(photos, "c.png", Task.OD, "no boxes"),
    ]


def convert(folder: Path, lines: list[dict[str, Any]], to: str, *arguments: object) -> Path:
    """Converts lines to a new file or folder inside a folder."""
    annotations, out = folder / "annotations.jsonl", folder / f"out-{to}"
    annotations.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["convert", annotations, "--to", to, "--out", out, *arguments]
    assert main([*map(str, command)]) == 0
    return out
