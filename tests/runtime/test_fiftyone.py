"""Answers in a FiftyOne dataset; the real package where it is installed, with its database."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from florence_onnx import Florence2, Task, parse_answer
from florence_onnx.errors import GenerationError, InputError, TaskError
from florence_onnx.fiftyone import apply, to_label
from tests.helpers.annotations import CAT, POLYGON, QUAD, SIZE

fiftyone = pytest.importorskip("fiftyone")


SCENE = Path(__file__).parents[2] / "docs" / "scene.png"
PAGE = Path(__file__).parents[2] / "docs" / "labelling.md"


@pytest.fixture(scope="module")
def model() -> Florence2:
    return Florence2.load("demo", threads=1)


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[Any]:
    """The drawn scene, its halves, and a file that is no picture."""
    with Image.open(SCENE) as scene:
        width, height = scene.size
        scene.save(tmp_path / "a.png")
        scene.crop((0, 0, width // 2, height)).save(tmp_path / "b.png")
        scene.crop((0, 0, width, height // 2)).save(tmp_path / "d.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    made = fiftyone.Dataset()
    made.add_images([str(tmp_path / f"{name}.png") for name in "abcd"], progress=False)
    yield made
    made.delete()


def fields(dataset: Any, name: str) -> list[Any]:
    found = [sample[name] for sample in dataset.iter_samples()]
    return [None if one is None else without_ids(one.to_dict()) for one in found]


def without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_ids(one) for key, one in value.items() if key != "_id"}
    return [without_ids(one) for one in value] if isinstance(value, list | tuple) else value


def test_a_field_of_every_sample_and_the_rest_later(dataset: Any, model: Florence2) -> None:
    failures = apply(dataset, model, "od", "found", batch_size=2)
    ids, files = dataset.values("id"), dataset.values("filepath")
    assert failures.keys() == {ids[2]}
    assert "not a picture" in failures[ids[2]]
    expected = [
        without_ids(to_label(model(file, "od")).to_dict()) for file in (*files[:2], files[3])
    ]
    assert len(expected[0]["detections"]) > 2
    assert fields(dataset, "found") == [*expected[:2], None, expected[2]]
    Path(files[2]).write_bytes(Path(files[0]).read_bytes())
    assert apply(dataset.exists("found", False), model, "od", "found") == {}
    assert fields(dataset, "found") == [*expected[:2], expected[0], expected[2]]
    assert dataset.count("found.detections") > 5


def test_text_and_outlines(dataset: Any, model: Florence2) -> None:
    view = dataset.limit(2)
    for task, text in (("caption", None), ("referring_expression_segmentation", "pink circle")):
        assert apply(view, model, task, task, text=text) == {}
        expected = [
            without_ids(to_label(model(file, task, text)).to_dict())
            for file in view.values("filepath")
        ]
        assert fields(view, task) == expected
    assert set(dataset.distinct("caption.label")) == {
        model(file, "caption").text for file in view.values("filepath")
    }


def test_options_are_refused_before_anything_is_read(model: Florence2) -> None:
    for arguments, options, error, message in (
        (("odd", "x"), {}, TaskError, "'odd' is not a task"),
        (("region_to_category", "x"), {}, InputError, "region"),
        (("od", "x"), {"text": "car"}, TaskError, "takes no text"),
        (("caption", "x"), {"tiles": "auto"}, InputError, "tiles= is for tasks"),
        (("od", "x"), {"num_beams": 0}, GenerationError, "num_beams"),
        (("od", "x"), {"batch_size": 0}, InputError, "batch_size"),
    ):
        with pytest.raises(error, match=message):
            apply(None, model, *arguments, **options)


def label(task: Task, text: str) -> Any:
    return to_label(parse_answer(text, task, SIZE))


def test_the_labels_of_fiftyone() -> None:
    (box,) = label(Task.OD, CAT).detections
    assert (box.label, box.confidence) == ("cat", None)
    assert box.bounding_box == pytest.approx([0.1005, 0.2005, 0.399, 0.599])
    (unnamed,) = label(Task.REGION_PROPOSAL, CAT[3:]).detections
    assert unnamed.label == "object"
    (line,) = label(Task.OCR_WITH_REGION, QUAD).polylines
    assert (line.label, line.closed, line.filled) == ("SALE", True, True)
    (corners,) = line.points
    assert np.array(corners) == pytest.approx(
        np.array([[5e-4, 5e-4], [0.5005, 5e-4], [0.5005, 0.5005], [5e-4, 0.5005]])
    )
    (outline,) = label(Task.REFERRING_EXPRESSION_SEGMENTATION, POLYGON).polylines
    assert [len(part) for part in outline.points] == [3, 1]
    assert label(Task.CAPTION, "A cat").label == "A cat"
    assert label(Task.OD, "nothing").detections == []


def test_the_snippet_of_the_page(dataset: Any, model: Florence2) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (snippet,) = [block for block in blocks if "fiftyone" in block]
    names = {"dataset": dataset, "model": model}
    exec(compile(snippet, "labelling.md", "exec"), names)  # noqa: S102
    assert len(dataset.exists("florence")) == 3
