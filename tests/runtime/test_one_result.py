"""One answer in the forms of other tools: equal to what convert writes of its line."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from florence_onnx import DetectionScores, Result, Task, parse_answer
from florence_onnx.errors import InputError
from tests.helpers.annotations import CAT, POINT, POLYGON, QUAD, SIZE, answer, convert

SCORES = DetectionScores(location=0.5, label=0.5, score=0.25)
DOG = "dog<loc_500><loc_200><loc_699><loc_799>"
ANSWERS = [
    (Task.OD, CAT + POINT + DOG),
    (Task.REGION_PROPOSAL, CAT[3:]),
    (Task.OCR_WITH_REGION, QUAD),
    (Task.REFERRING_EXPRESSION_SEGMENTATION, POLYGON),
    (Task.OPEN_VOCABULARY_DETECTION, f"cat<poly>{POLYGON}</poly>"),
    (Task.OD, "nothing"),
]
METHODS: list[Callable[[Result], object]] = [
    Result.to_supervision,
    Result.to_coco,
    Result.to_yolo,
    lambda result: result.to_labelme("a.png"),
]


def scored(task: Task, text: str) -> Result:
    """The answer of which `answer` makes a line."""
    result = parse_answer(text, task, SIZE)
    found = tuple(dataclasses.replace(one, scores=SCORES) for one in result.detections)
    return dataclasses.replace(result, detections=found)


def test_the_name_of_a_picture_may_be_a_path() -> None:
    result = scored(Task.OD, CAT)
    names: list[Any] = ["a.png", Path("a.png"), b"a.png"]
    for made in (result.to_coco, result.to_labelme, result.record):
        text, *others = (json.dumps(made(name)) for name in names)
        assert others == [text, text]


@pytest.mark.parametrize(("task", "text"), ANSWERS)
def test_an_answer_gives_what_its_line_gives(tmp_path: Path, task: Task, text: str) -> None:
    result, lines = scored(task, text), [answer(tmp_path / "photos", "a.png", task, text)]
    assert result.to_coco("a.png") == json.loads(convert(tmp_path, lines, "coco").read_text())
    yolo = convert(tmp_path, lines, "yolo")
    assert result.to_yolo() == (yolo / "labels/train/a.txt").read_text()
    written = json.loads((convert(tmp_path, lines, "labelme") / "a.json").read_text())
    assert result.to_labelme(written["imagePath"]) == written


def test_classes_that_several_answers_share() -> None:
    names = ["person", "dog", "cat"]
    result = scored(Task.OD, CAT + DOG)
    assert [line.split()[0] for line in result.to_yolo(names).splitlines()] == ["2", "1"]
    assert [line.split()[0] for line in result.to_yolo().splitlines()] == ["0", "1"]
    coco = result.to_coco(names=names)
    assert coco["categories"] == [{"id": n, "name": name} for n, name in enumerate(names, 1)]
    assert [one["category_id"] for one in coco["annotations"]] == [3, 2]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat", "person"], "names lack labels of the answer: 'dog'; names are 'cat', 'person'"),
        ([], "names lack labels of the answer: 'cat', 'dog'; names are none"),
        (["cat", "dog", "cat"], "names must be a list of different labels"),
        ("catdog", "names must be a list of different labels, not 'catdog'"),
        ({"cat": 1, "dog": 0}, "names must be a list of different labels"),
        ({"cat", "dog"}, "names must be a list of different labels"),
        (["cat", "dog", None], "names must be a list of different labels"),
        (5, "names must be a list of different labels, not 5"),
    ],
)
def test_classes_that_do_not_fit(names: Any, message: str) -> None:
    for method in (Result.to_yolo, lambda result, names: result.to_coco("a.png", names)):
        with pytest.raises(InputError, match=message):
            method(scored(Task.OD, CAT + DOG), names)


@pytest.mark.parametrize("method", METHODS)
def test_text_is_refused(method: Callable[[Result], object]) -> None:
    with pytest.raises(InputError, match="answer to <CAPTION> is text: it locates nothing"):
        method(parse_answer("a car", "<CAPTION>", SIZE))


def test_supervision() -> None:
    supervision = pytest.importorskip("supervision")
    found = scored(Task.OD, CAT + POINT + DOG).to_supervision()
    assert isinstance(found, supervision.Detections)
    assert found.xyxy[0].tolist() == pytest.approx([20.1, 20.05, 99.9, 79.95])
    assert found.confidence.tolist() == [0.25, 0.25]
    assert found.class_id.tolist() == [0, 1]
    assert found.data["class_name"].tolist() == ["cat", "dog"]
    assert found.mask is None
    named = scored(Task.OD, CAT + DOG).to_supervision(["dog", "cat"])
    assert named.class_id.tolist() == [1, 0]
    polygon = scored(Task.REFERRING_EXPRESSION_SEGMENTATION, POLYGON).to_supervision()
    assert (polygon.mask.shape, polygon.data["class_name"].tolist()) == ((1, 100, 200), ["object"])
    assert polygon.mask.sum() == pytest.approx(2500, rel=0.06)
    assert parse_answer(CAT, Task.OD, SIZE).to_supervision().confidence is None
    nothing = scored(Task.OD, "nothing").to_supervision()
    assert len(nothing) == len(nothing.data["class_name"]) == 0


def test_supervision_draws_and_filters() -> None:
    supervision = pytest.importorskip("supervision")
    found = scored(Task.OD, CAT + DOG).to_supervision()
    assert found[found.data["class_name"] == "dog"].class_id.tolist() == [1]
    picture = np.full((100, 200, 3), 128, np.uint8)
    drawn = supervision.BoxAnnotator().annotate(picture.copy(), found)
    assert (drawn != picture).any()
    assert supervision.LabelAnnotator().annotate(drawn, found).shape == (100, 200, 3)


def test_coco_is_read_by_pycocotools(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    (tmp_path / "truth.json").write_text(json.dumps(scored(Task.OD, CAT).to_coco("a.png")))
    truth = coco.COCO(str(tmp_path / "truth.json"))
    results = truth.loadRes(
        scored(Task.OD, CAT + DOG).to_coco("a.png", ["cat", "dog"])["annotations"][:1]
    )
    assert [one["score"] for one in results.loadAnns(results.getAnnIds())] == [0.25]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:Exception ignored in")  # Its own.
def test_labelme_opens_the_object(tmp_path: Path) -> None:
    label_file = pytest.importorskip("labelme._label_file")
    answer(tmp_path, "a.png", Task.OD, CAT)
    (tmp_path / "a.json").write_text(json.dumps(scored(Task.OD, CAT).to_labelme("a.png")))
    opened = label_file.LabelFile(str(tmp_path / "a.json"))
    assert [shape["label"] for shape in opened.shapes] == ["cat"]
