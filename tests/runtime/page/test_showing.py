"""What the page shows of answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from florence_onnx import Florence2
from florence_onnx.drawing import draw
from florence_onnx.engine import contract
from florence_onnx.errors import ImageError, InputError, RegionError
from florence_onnx.page.blocks import EXAMPLES
from florence_onnx.page.form import CASCADES, PROMPT
from florence_onnx.page.showing import SCORES, TIMES, show
from florence_onnx.plain_text import lines
from florence_onnx.tasks import AnswerKind, InputKind, Task
from tests.helpers.page import asked
from tests.helpers.tiny import TINY, counted, picture

FIELDS: dict[str, Any] = {"text": "a green car", "region": "3,5,20,17", "tokens": 24}
NAMES = [task.name.lower() for task in Task]


@pytest.fixture(scope="module")
def model() -> Florence2:
    return Florence2.load(TINY, threads=1)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(picture(1, 60, 80)).save(path)
    return path


@pytest.mark.parametrize("task", Task)
def test_one_task(model: Florence2, photo: Path, task: Task) -> None:
    """Its record is the one that Python gives, its drawing the one of `draw`."""
    (question,) = questions = asked(model.policy, photo, [task.name.lower()], **FIELDS)
    request = question.request
    result = model(str(photo), task, request.text, region=request.region, max_new_tokens=24)
    shown = show(model, questions)
    assert shown.records == [result.record()]
    if task.answer_kind is AnswerKind.TEXT:
        assert shown.text == result.text
        assert shown.drawings == []
        assert result.confidence is not None
        assert shown.scores == [
            (task.name.lower(), "(the text)", f"{result.confidence:.2f}", "", "", "")
        ]
        return
    assert len(shown.scores) == len(result.detections)
    for row, found in zip(shown.scores, result.detections, strict=True):
        assert len(row) == len(SCORES)
        assert row[:2] == (task.name.lower(), found.label)
        assert found.scores is not None
        assert row[2:4] == (f"{found.scores.score:.2f}", f"{found.scores.location:.2f}")
        assert row[5] == ", ".join(f"{value:.1f}" for value in found.box)
    if result.detections:
        ((drawing, name),) = shown.drawings
        assert name == task.name.lower()
        assert np.array_equal(np.asarray(drawing), np.asarray(draw(str(photo), result)))


@pytest.mark.parametrize("name", CASCADES)
def test_a_cascade(name: str) -> None:
    """Its record is the one of `Florence2.cascade`, its drawing has the places of both answers."""
    scene = str(sorted(EXAMPLES.glob("*.png"))[0])
    model = counted(Florence2.load("demo", threads=1))
    (question,) = questions = asked(model.policy, scene, [name], beams=1, labels="")
    shown = show(model, questions)
    assert model.graphs.sessions[contract.VISION_ENCODER].calls == 1
    result = model.cascade(scene, name, **question.options)
    assert result.then
    assert shown.records == [result.record()]
    assert shown.text == "\n".join(lines(result))
    ((drawing, title),) = shown.drawings
    assert title == name
    assert np.array_equal(np.asarray(drawing), np.asarray(draw(scene, result.drawn)))
    parts = [result.first, *result.then]
    assert len(shown.scores) == sum(len(part.detections) or 1 for part in parts)
    assert len({row[:2] for row in shown.times}) == len(shown.times)


def test_several_tasks_share_one_run_of_the_vision_encoder(photo: Path) -> None:
    model = counted(Florence2.load(TINY, threads=1))
    questions = asked(model.policy, photo, [*NAMES, PROMPT], prompt="<DocVQA>What?", **FIELDS)
    shown = show(model, questions)
    assert model.graphs.sessions[contract.VISION_ENCODER].calls == 1
    assert len(shown.records) == len(Task) + 1
    assert [record["task"] for record in shown.records] == [*Task, "<DocVQA>What?"]
    assert {row[0] for row in shown.scores} <= {*NAMES, PROMPT}
    assert [line for line in shown.text.splitlines() if line[-1:] == ":" and line[0] != " "] == [
        f"{name}:" for name in (*NAMES, PROMPT)
    ]
    json.dumps(shown.records)


def test_every_stage_is_timed_once_per_task(model: Florence2, photo: Path) -> None:
    tasks = ["caption", "region_proposal"]
    times = show(model, asked(model.policy, photo, tasks, **FIELDS)).times
    assert all(len(row) == len(TIMES) and float(row[2]) >= 0 for row in times)
    stages = [row[:2] for row in times if row[1] != "draw"]
    assert stages[:2] == [("", "read and resize"), ("", "vision")]
    assert stages[2:] == [
        (task, one) for task in tasks for one in ("embed_encoder", "search", "parse")
    ]


def test_options_are_used(model: Florence2, photo: Path) -> None:
    fields: dict[str, Any] = {"beams": 1, "tokens": 7, "constrain": True, "min_score": 1.0}
    (record,) = show(model, asked(model.policy, photo, **fields)).records
    expected = model(str(photo), "od", num_beams=1, max_new_tokens=7, constrain=True, min_score=1.0)
    assert record == expected.record()


def test_a_large_drawing_is_made_smaller(model: Florence2, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture(1, 30, 4000)).save(path)
    fields: dict[str, Any] = {"tokens": 40, "constrain": True, "recall": 1}
    ((drawing, _),) = show(model, asked(model.policy, path, **fields)).drawings
    assert drawing.size == (2048, 15)


def test_the_time_is_limited(model: Florence2, photo: Path) -> None:
    with pytest.raises(InputError, match="time of a request is up"):
        show(model, asked(model.policy, photo), seconds=0)


def test_pictures_that_cannot_be_read(model: Florence2, tmp_path: Path) -> None:
    """Nothing is told of where pictures are kept."""
    gone = tmp_path / "gone.png"
    text = tmp_path / "a.png"
    text.write_text("no picture")
    for path, words in ((gone, "upload it again"), (text, "picture")):
        with pytest.raises(ImageError, match=words) as error:
            show(model, asked(model.policy, path))
        assert str(tmp_path) not in str(error.value)


def test_a_region_outside_the_picture(model: Florence2, photo: Path) -> None:
    with pytest.raises(RegionError, match="outside"):
        show(model, asked(model.policy, photo, ["region_to_ocr"], region="0,0,500,500"))


def test_every_kind_of_input_is_tested() -> None:
    assert {task.input_kind for task in Task} == set(InputKind)
