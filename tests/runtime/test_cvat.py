"""The function of CVAT's auto-annotation, with the types of cvat-sdk where it is installed."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from florence_onnx import Florence2, parse_answer
from florence_onnx.cvat import DetectionFunction, create
from florence_onnx.errors import InputError, TaskError
from tests.helpers.tiny import TINY

SCENE = Path(__file__).parents[2] / "docs" / "scene.png"
PAGE = Path(__file__).parents[2] / "docs" / "labelling.md"


@pytest.fixture(scope="module")
def model() -> Florence2:
    return Florence2.load("demo", threads=1)


def detected(function: DetectionFunction, threshold: float | None = None) -> list[Any]:
    """The shapes of the drawn scene, after the checks of CVAT's driver.

    The labels of the CVAT task are numbered from 100.
    """
    driver = pytest.importorskip("cvat_sdk.auto_annotation.driver")
    specs = function.spec.labels
    labels = [
        SimpleNamespace(id=100 + spec.id, name=spec.name, type="any", attributes=[], sublabels=[])
        for spec in specs
    ]
    context = driver._DetectionFunctionContextImpl(frame_name="scene.png", conf_threshold=threshold)
    with Image.open(SCENE) as image:
        found = function.detect(context, image)
    mapper = driver._AnnotationMapper(
        logging.getLogger(), specs, labels, allow_unmatched_labels=False, conv_mask_to_poly=False
    )
    tags, shapes = mapper.validate_and_remap(found, 7)
    assert tags == []
    assert {shape.frame for shape in shapes} == {7}
    assert len(shapes) == len(found)
    return [*shapes]


def test_boxes_of_the_labels_of_a_task(model: Florence2) -> None:
    whole = model(SCENE, "od")
    names = sorted({found.label for found in whole.detections})
    assert len(names) > 2
    shapes = detected(DetectionFunction(model, [names[1], names[0].upper(), "unicorn"]))
    numbers = {names[1]: 100, names[0]: 101}
    expected = [
        (numbers[found.label], [*found.box]) for found in whole.detections if found.label in numbers
    ]
    assert [(shape.label_id, shape.points) for shape in shapes] == expected
    assert {shape.type.value for shape in shapes} == {"rectangle"}


def test_a_threshold(model: Florence2) -> None:
    whole = model(SCENE, "od")
    names = sorted({found.label for found in whole.detections})
    scores = sorted(found.scores.score for found in whole.detections if found.scores)
    shapes = detected(DetectionFunction(model, names), scores[2])
    assert len(shapes) == len(scores) - 2


def test_a_task_that_takes_text_is_asked_for_each_label(model: Florence2) -> None:
    names = sorted({found.label for found in model(SCENE, "od").detections})[:2]
    task = "open_vocabulary_detection"
    expected = [
        (100 + number, [*found.box])
        for number, name in enumerate(names)
        for found in model(SCENE, task, name).detections
    ]
    assert len({label for label, _ in expected}) == 2
    shapes = detected(DetectionFunction(model, names, task))
    assert [(shape.label_id, shape.points) for shape in shapes] == expected


@pytest.mark.parametrize(
    ("task", "text", "points"),
    [
        (
            "ocr_with_region",
            "SALE<loc_0><loc_0><loc_500><loc_0><loc_500><loc_500><loc_0><loc_500>"
            "dot<loc_5><loc_5><loc_5><loc_5><loc_5><loc_5><loc_5><loc_5>",
            [8],
        ),
        (
            "referring_expression_segmentation",
            "<loc_0><loc_0><loc_500><loc_0><loc_500><loc_500><sep><loc_9><loc_9>",
            [6],
        ),
        ("region_proposal", "<loc_0><loc_0><loc_500><loc_500>", [4]),
    ],
)
def test_outlines_are_polygons(
    model: Florence2, monkeypatch: pytest.MonkeyPatch, task: str, text: str, points: list[int]
) -> None:
    """What has no area, and outlines of fewer than three points, are left out."""
    monkeypatch.setattr(
        Florence2, "run", lambda self, asked, **options: [parse_answer(text, task, (200, 100))]
    )
    shapes = detected(DetectionFunction(model, ["thing"], task))
    assert [len(shape.points) for shape in shapes] == points
    kind = "rectangle" if points == [4] else "polygon"
    assert {(shape.label_id, shape.type.value) for shape in shapes} == {(100, kind)}


@pytest.mark.parametrize(
    ("labels", "task", "error", "message"),
    [
        (["a"], "caption", TaskError, "caption is no task that locates things"),
        (["a"], "region_to_segmentation", TaskError, "is no task that locates things in a whole"),
        (["a"], "odd", TaskError, "'odd' is not a task"),
        ([], "od", InputError, "labels must be different ones, at least one"),
        (["a", "a"], "od", InputError, "labels must be different ones"),
        (["a", "b"], "ocr_with_region", InputError, "one label for all that it finds, not 2"),
    ],
)
def test_labels_that_do_not_suit_a_task(
    model: Florence2, labels: list[str], task: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        DetectionFunction(model, labels, task)


def test_what_the_command_line_of_cvat_makes() -> None:
    function = create(str(TINY), " person, car,", threads=1)
    assert function._labels == ["person", "car"]
    command = next(line for line in PAGE.read_text("utf-8").splitlines() if "cvat-cli" in line)
    assert "--function-module florence_onnx.cvat" in command


def test_a_function_of_cvat(model: Florence2) -> None:
    """The real package takes it for one of its functions, where it is installed."""
    cvat = pytest.importorskip("cvat_sdk.auto_annotation")
    function = DetectionFunction(model, ["a", "b"])
    assert isinstance(function.spec, cvat.DetectionFunctionSpec)
    assert [(label.id, label.type) for label in function.spec.labels] == [
        (0, "rectangle"),
        (1, "rectangle"),
    ]
    shapes = function.detect(SimpleNamespace(conf_threshold=None), Image.new("RGB", (64, 64)))
    assert shapes == []
