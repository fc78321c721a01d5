"""Annotations of strangers: whatever a line holds, it is converted or refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from florence_onnx import Task
from florence_onnx.cli.program import main
from tests.helpers.annotations import CAT, answer

NAN, INFINITY = float("nan"), float("inf")
Change = Callable[[dict[str, Any]], object]


def thing(**fields: Any) -> Change:
    """Changes fields of the first detection."""
    return lambda line: line["record"]["detections"][0].update(fields)


CHANGES: list[tuple[str, Change]] = [
    *(
        (name, lambda line, name=name, value=value: line.update({name: value}))
        for name, values in {
            "path": ("", ".", "/", "a\0b.png", "a\ud800b.png", 5, None),
            "source": ("a\0", 3, None),
            "hash": ("zz", "", "1", "-1", "0x" + "0" * 62, 5),
            "size": ([0, 5], [-5, 5], [INFINITY, 5], [NAN, 5], [10**400, 5], [5], "55", None),
            "task": (5, None, "\ud800", ["od"]),
            "input": (5, "\ud800"),
            "text": (5, None, "\ud800"),
            "record": (5, None, [], {}, {"task": "<OD>"}, {"task": ["<OD>"]}),
        }.items()
        for value in values
    ),
    *(
        ("record.detections.0.box", thing(box=box))
        for box in (
            *([NAN, 0, 1, 1], [0, 0, INFINITY, 1], [0, 0, 1e308, 1e308], [0, 0, 10**400, 1]),
            *([1, 2, 3], "1234", None, [0, 0, "1", 1]),
        )
    ),
    *(("record.detections.0.label", thing(label=label)) for label in (5, None, ["a"], "a\ud800")),
    *(
        ("record.detections.0.polygons", thing(polygons=polygons))
        for polygons in ("abc", [1, 2], [[1, 2, 3, 4, 5, NAN]], [[1, 2, 3, 4, 5, INFINITY]])
    ),
    *(("record.detections.0.quad", thing(quad=quad)) for quad in ([1, 2], [1] * 7 + [NAN])),
    *(
        ("record.detections.0.scores", thing(scores=scores))
        for scores in (5, {"score": "hi"}, {"score": NAN}, {"location": 1}, {"score": INFINITY})
    ),
]


@pytest.mark.parametrize(("field", "change"), CHANGES)
def test_what_no_line_has_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, change: Change
) -> None:
    line = answer(tmp_path / "photos", "a.png", Task.OD, CAT)
    change(line)
    annotations, out = tmp_path / "annotations.jsonl", tmp_path / "out"
    annotations.write_text(json.dumps(line))
    assert main(["convert", str(annotations), "--to", "csv", "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"line 1 is no annotation: {field}" in err
    assert not out.exists()
