"""A table with a row for every thing, or for every answer that is text."""

import csv
import io
import json
from pathlib import Path

from florence_onnx.converting.reading import Labels
from florence_onnx.files import write_whole

COLUMNS = (
    *("path", "hash", "width", "height", "task", "input", "text"),
    *("label", "score", "x1", "y1", "x2", "y2", "outlines"),
)


def write_csv(labels: Labels, path: Path) -> None:
    """Writes the table; outlines are JSON, a list of numbers x, y, x, y, ... for each."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(COLUMNS)
    for picture in labels.pictures:
        about = (picture.name, picture.content, *picture.size)
        for answer in picture.answers.values():
            question = (*about, answer.task, answer.input)
            if not answer.names:
                table.writerow([*question, answer.text, *[None] * 7])
            for one in answer.found:
                outlines = json.dumps(one.outlines) if one.outlines else None
                table.writerow([*question, None, one.label, one.score, *one.box, outlines])
    write_whole(path, text.getvalue())
