"""Answers in a FiftyOne dataset; the real package where it is installed, with its database."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
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
def dataset(tmp_path: Path) -> "Dataset":
    """The drawn scene, its halves, and a file that is no picture."""
    with Image.open(SCENE) as scene:
        width, height = scene.size
        scene.save(tmp_path / "a.png")
        scene.crop((0, 0, width // 2, height)).save(tmp_path / "b.png")
        scene.crop((0, 0, width, height // 2)).save(tmp_path / "d.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    return Dataset([Sample(str(tmp_path / f"{name}.png")) for name in "abcd"])


class Sample(dict[str, Any]):
    """As FiftyOne documents a sample: fields by name."""

    def __init__(self, filepath: str) -> None:
        self.filepath, self.id = filepath, f"id of {Path(filepath).name}"


class Dataset:
    """As FiftyOne documents a dataset, of samples that are saved in memory.

    The real one needs MongoDB, which its package downloads.
    """

    def __init__(self, samples: list[Sample]) -> None:
        self.samples, self.saved = samples, dict[str, list[str]]()

    def iter_samples(self, progress: bool = False) -> Iterator[Sample]:
        return iter(self.samples)

    def exists(self, field: str, bool: bool = True) -> "Dataset":
        return Dataset([sample for sample in self.samples if (field in sample) is bool])

    @contextmanager
    def save_context(self) -> Iterator[SimpleNamespace]:
        def save(sample: Sample) -> None:
            self.saved[sample.id] = [*sample]

        yield SimpleNamespace(save=save)

    def fields(self, name: str) -> list[Any]:
        found = [sample.get(name) for sample in self.samples]
        return [None if one is None else without_ids(one.to_dict()) for one in found]


def without_ids(value: Any) -> Any:
    """Numbers rounded, as a batch adds them up in another order."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: without_ids(one) for key, one in value.items() if key != "_id"}
    return [without_ids(one) for one in value] if isinstance(value, list | tuple) else value


def test_a_field_of_every_sample_and_the_rest_later(dataset: Dataset, model: Florence2) -> None:
    failures = apply(dataset, model, "od", "found", batch_size=2)
    assert failures.keys() == {"id of c.png"}
    assert "not a picture" in failures["id of c.png"]
    assert dataset.saved == {f"id of {name}.png": ["found"] for name in "abd"}
    files = [sample.filepath for sample in dataset.samples]
    expected = [
        without_ids(to_label(model(file, "od")).to_dict()) for file in (*files[:2], files[3])
    ]
    assert len(expected[0]["detections"]) > 2
    assert dataset.fields("found") == [*expected[:2], None, expected[2]]
    Path(files[2]).write_bytes(Path(files[0]).read_bytes())
    assert apply(dataset.exists("found", False), model, "od", "found") == {}
    assert dataset.fields("found") == [*expected[:2], expected[0], expected[2]]


def test_text_and_outlines(dataset: Dataset, model: Florence2) -> None:
    view = Dataset(dataset.samples[:2])
    for task, text in (("caption", None), ("referring_expression_segmentation", "pink circle")):
        assert apply(view, model, task, task, text=text) == {}
        expected = [
            without_ids(to_label(model(sample.filepath, task, text)).to_dict())
            for sample in view.samples
        ]
        assert view.fields(task) == expected


def test_options_are_refused_before_anything_is_read(model: Florence2) -> None:
    for arguments, options, error, message in (
        (("odd", "x"), {}, TaskError, "'odd' is not a task"),
        (("region_to_category", "x"), {}, InputError, "region"),
        (("od", "x"), {"text": "car"}, TaskError, "takes no text"),
        (("caption", "x"), {"tiles": "auto"}, InputError, "tiles= is for tasks"),
        (("od", "x"), {"num_beams": 0}, GenerationError, "num_beams"),
        (("caption", "x"), {"labels": ["a"]}, TaskError, "labels= is for tasks"),
        (("caption", "x"), {"min_score": 0.5}, TaskError, "min_score= is for tasks"),
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


def test_the_snippet_of_the_page(dataset: Dataset, model: Florence2) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (snippet,) = [block for block in blocks if "fiftyone" in block]
    names = {"dataset": dataset, "model": model}
    exec(compile(snippet, "labelling.md", "exec"), names)  # noqa: S102
    assert len(dataset.exists("florence").samples) == 3


def test_the_real_dataset(dataset: Dataset, model: Florence2) -> None:
    """Where its database is."""
    try:
        real = fiftyone.Dataset()
    except fiftyone.core.config.FiftyOneConfigError as error:
        pytest.skip(str(error))
    real.add_images([sample.filepath for sample in dataset.samples], progress=False)
    try:
        assert len(apply(real, model, "od", "found")) == 1
        assert len(real.exists("found")) == 3
    finally:
        real.delete()
