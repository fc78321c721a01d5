"""Table with a row for every thing, or for every answer that is text, as CSV or Parquet."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from florence_onnx.converting.reading import Labels
from florence_onnx.files import whole_file, write_whole
from florence_onnx.packages import require_packages

COLUMNS = (
    *("path", "hash", "width", "height", "task", "input", "text"),
    *("label", "score", "x1", "y1", "x2", "y2", "outlines"),
)
Outlines = tuple[tuple[float, ...], ...]
Row = tuple[str | int | float | Outlines | None, ...]


def write_csv(labels: Labels, path: Path) -> None:
    """Writes the table. An outline is a JSON list of numbers x, y, x, y, ..."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(COLUMNS)
    for *others, outlines in _rows(labels):
        table.writerow([*others, None if outlines is None else json.dumps(outlines)])
    write_whole(path, text.getvalue())


def write_parquet(labels: Labels, path: Path) -> None:
    """Writes the table with types. Outlines are lists of lists of numbers x, y, x, y, ...

    Raises:
        MissingDependencyError: pyarrow is not installed.
        OSError: The file cannot be written.
    """
    require_packages(("pyarrow",), "--to parquet", "parquet")
    import pyarrow
    from pyarrow import parquet

    text, number = pyarrow.string(), pyarrow.float64()
    kinds = dict.fromkeys(COLUMNS, text)
    kinds |= dict.fromkeys(("width", "height"), pyarrow.int32())
    kinds |= dict.fromkeys(("score", "x1", "y1", "x2", "y2"), number)
    kinds["outlines"] = pyarrow.list_(pyarrow.list_(number))
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in _rows(labels)]
    table = pyarrow.Table.from_pylist(rows, pyarrow.schema([*kinds.items()]))
    with whole_file(path) as partial:
        parquet.write_table(table, partial)


def printable_name(name: str) -> str:
    """Writes the name of a picture as text, with bytes that are not UTF-8 spelled out."""
    return name.encode("utf-8", "backslashreplace").decode()


def _rows(labels: Labels) -> Iterator[Row]:
    for picture in labels.pictures:
        about = (printable_name(picture.name), picture.content, *picture.size)
        for answer in picture.answers.values():
            question = (*about, answer.task, answer.input)
            if not answer.names:
                yield (*question, answer.text, *[None] * 7)
            for one in answer.found:
                yield (*question, None, one.label, one.score, *one.box, one.outlines or None)
