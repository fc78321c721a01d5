"""One result class: the reference's dictionary, the record, and shapes."""

import dataclasses
import json
from typing import Any

import pytest

from florence_onnx.results import SCHEMA, Detection, Result
from florence_onnx.tasks import AnswerKind

BOX = (33.6, 159.6, 596.8, 371.76)
WHOLE = [33, 159, 596, 371]
QUAD = (*BOX, *BOX)


def result(kind: AnswerKind, *detections: Detection, text: str = "") -> Result:
    return Result(
        task="<T>",
        answer_kind=kind,
        text=text,
        detections=detections,
        generated=f"<s>{text}</s>",
        token_ids=(2, 0, 2),
        score=-1.0,
        image_size=(640, 480),
    )


CASES: list[tuple[Result, Any, Any]] = [
    (result(AnswerKind.TEXT, text="a café"), "a café", "a café"),
    *(
        (
            result(kind, Detection(label="café", box=BOX)),
            {"bboxes": [list(BOX)], "labels": ["caf"]},
            {"bboxes": [WHOLE], "labels": ["caf"]},
        )
        for kind in (AnswerKind.BOXES, AnswerKind.PROPOSALS, AnswerKind.GROUNDING)
    ),
    (
        result(
            AnswerKind.POLYGONS,
            Detection(label="é", box=BOX, polygons=(BOX, ())),
            Detection(label="", box=BOX, polygons=(BOX,)),
        ),
        {"polygons": [[list(BOX), []], [list(BOX)]], "labels": ["é", ""]},
        {"polygons": [[WHOLE, []], [WHOLE]], "labels": ["é", ""]},
    ),
    (
        result(AnswerKind.BOXES_OR_POLYGONS, Detection(label="é", box=BOX, polygons=(BOX,))),
        {
            "bboxes": [],
            "bboxes_labels": [],
            "polygons": [[list(BOX)]],
            "polygons_labels": ["é"],
        },
        {"bboxes": [], "bboxes_labels": [], "polygons": [[WHOLE]], "polygons_labels": ["é"]},
    ),
    (
        result(AnswerKind.BOXES_OR_POLYGONS, Detection(label="é", box=BOX)),
        {"bboxes": [list(BOX)], "bboxes_labels": [""], "polygons": [], "polygons_labels": []},
        {"bboxes": [WHOLE], "bboxes_labels": [""], "polygons": [], "polygons_labels": []},
    ),
    (
        result(AnswerKind.QUADRILATERALS, Detection(label="中", box=BOX, quad=QUAD)),
        {"quad_boxes": [list(QUAD)], "labels": ["中"]},
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


def test_the_record_has_every_field_and_a_version() -> None:
    boxes = result(AnswerKind.BOXES, Detection(label="café", box=BOX), text="café<loc_1>")
    record = boxes.record("photo.jpg")
    assert record == {
        "schema": SCHEMA,
        "image": "photo.jpg",
        "size": [640, 480],
        "task": "<T>",
        "answer": boxes.to_dict(),
        "text": "café<loc_1>",
        "generated": "<s>café<loc_1></s>",
        "score": -1.0,
        "confidence": None,
        "truncated": False,
        "detections": [{"label": "café", "box": list(BOX)}],
    }
    assert json.loads(json.dumps(record)) == record
    assert boxes.record() == {key: record[key] for key in record if key != "image"}


def test_records_of_quadrilaterals_and_polygons() -> None:
    quad = result(AnswerKind.QUADRILATERALS, Detection(label="", box=BOX, quad=QUAD))
    assert quad.record()["detections"] == [{"label": "", "box": list(BOX), "quad": list(QUAD)}]
    polygons = result(AnswerKind.POLYGONS, Detection(label="", box=BOX, polygons=(BOX, QUAD)))
    assert polygons.record()["detections"] == [
        {"label": "", "box": list(BOX), "polygons": [list(BOX), list(QUAD)]}
    ]


def test_alternatives_are_part_of_the_record() -> None:
    best = result(AnswerKind.TEXT, text="a car")
    other = result(AnswerKind.TEXT, text="a van")
    record = dataclasses.replace(best, alternatives=(other,)).record("photo.jpg")
    assert record["alternatives"] == [other.record()]
    assert "alternatives" not in best.record()


def test_outlines_are_the_most_exact_shape() -> None:
    x1, y1, x2, y2 = BOX
    assert Detection(label="", box=BOX).outlines == ((x1, y1, x2, y1, x2, y2, x1, y2),)
    assert Detection(label="", box=BOX, quad=QUAD).outlines == (QUAD,)
    assert Detection(label="", box=BOX, polygons=(BOX, QUAD)).outlines == (BOX, QUAD)
    assert Detection(label="", box=BOX, polygons=()).outlines == ()


@pytest.mark.parametrize("score", [None, float("-inf"), float("nan")])
def test_a_record_is_json_whatever_the_score(score: float | None) -> None:
    record = dataclasses.replace(result(AnswerKind.TEXT), score=score).record()
    assert record["score"] is None
    json.dumps(record, allow_nan=False)
