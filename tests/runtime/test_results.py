import dataclasses
import json
from typing import Any

import pytest

from florence_onnx.results import (
    BoxesOrPolygonsResult,
    BoxesResult,
    PolygonsResult,
    QuadBoxesResult,
    Result,
    TextResult,
)

BASE: dict[str, Any] = {
    "task": "<T>",
    "text": "generated",
    "token_ids": (2, 0, 2),
    "score": -1.0,
    "image_size": (640, 480),
}
BOX = (33.6, 159.6, 596.8, 371.76)
WHOLE = [33, 159, 596, 371]

CASES: list[tuple[Result, Any, Any]] = [
    (TextResult(**BASE, answer="a café"), "a café", "a café"),
    (
        BoxesResult(**BASE, boxes=(BOX,), labels=("café",)),
        {"bboxes": [list(BOX)], "labels": ["caf"]},
        {"bboxes": [WHOLE], "labels": ["caf"]},
    ),
    (
        PolygonsResult(**BASE, polygons=((BOX, ()), (BOX,)), labels=("é", "")),
        {"polygons": [[list(BOX), []], [list(BOX)]], "labels": ["é", ""]},
        {"polygons": [[WHOLE, []], [WHOLE]], "labels": ["é", ""]},
    ),
    (
        BoxesOrPolygonsResult(
            **BASE, boxes=(BOX,), box_labels=("é",), polygons=((BOX,),), polygon_labels=("é",)
        ),
        {
            "bboxes": [list(BOX)],
            "bboxes_labels": [""],
            "polygons": [[list(BOX)]],
            "polygons_labels": ["é"],
        },
        {
            "bboxes": [WHOLE],
            "bboxes_labels": [""],
            "polygons": [[WHOLE]],
            "polygons_labels": ["é"],
        },
    ),
    (
        QuadBoxesResult(**BASE, quad_boxes=((*BOX, *BOX),), labels=("中",)),
        {"quad_boxes": [[*BOX, *BOX]], "labels": ["中"]},
        {"quad_boxes": [[*WHOLE, *WHOLE]], "labels": ["中"]},
    ),
]


@pytest.mark.parametrize(("result", "floats", "integers"), CASES)
def test_to_dict(result: Result, floats: Any, integers: Any) -> None:
    assert result.to_dict() == {"<T>": floats}
    assert result.to_dict(integers=True) == {"<T>": integers}
    for view in (result.to_dict(), result.to_dict(integers=True)):
        assert json.loads(json.dumps(view)) == view
    assert "." not in json.dumps(result.to_dict(integers=True))


@pytest.mark.parametrize("result", [case[0] for case in CASES])
def test_results_are_frozen_and_hashable(result: Result) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.task = "<OD>"  # type: ignore[misc]
    assert hash(result) == hash(dataclasses.replace(result))
