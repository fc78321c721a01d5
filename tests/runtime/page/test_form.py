"""The fields of the page: what each may be, and what the runtime is asked."""

from typing import Any

import pytest

from florence_onnx.errors import FlorenceError, GenerationError, RegionError, TaskError
from florence_onnx.generation.policy import ANY_MODEL
from florence_onnx.page.form import LIMITS, LONGEST, PROMPT, TASKS, questions, read_form, takes
from florence_onnx.tasks import InputKind, Task
from tests.helpers.page import asked, filled

POLICY = ANY_MODEL.replace(num_beams=3, max_new_tokens=200)


def test_every_task_and_a_prompt_can_be_chosen() -> None:
    assert set(TASKS) == {task.name.lower() for task in Task} | {PROMPT}


@pytest.mark.parametrize("task", Task)
def test_a_task_gets_its_own_input_alone(task: Task) -> None:
    """Whatever was filled in for other tasks before."""
    fields = {"text": "a car", "region": "3,5,20,17.5", "prompt": "words"}
    (one,) = asked(POLICY, "folder/a.png", [task.name.lower()], **fields)
    expected: dict[InputKind, tuple[object, object]] = {
        InputKind.NONE: (None, None),
        InputKind.TEXT: ("a car", None),
        InputKind.REGION: (None, (3, 5, 20, 17.5)),
    }
    request = one.request
    assert (request.text, request.region) == expected[task.input_kind]
    assert (request.image, request.prompt, request.answer) == ("folder/a.png", None, None)
    assert Task.parse(str(request.task)) is task
    assert one.options == {}
    assert takes([task.name.lower()]) == (
        task.input_kind is InputKind.TEXT,
        task.input_kind is InputKind.REGION,
        False,
    )


def test_the_prompt_of_a_fine_tune() -> None:
    (one,) = asked(POLICY, "a.png", [PROMPT], prompt="detect", answer="boxes", text="a car")
    request = one.request
    assert (request.task, request.prompt, request.answer) == (None, "detect", "boxes")
    assert takes([PROMPT, "od"]) == (False, False, True)


def test_a_region_of_location_tokens() -> None:
    tokens = "<loc_1><loc_2><loc_30><loc_40>"
    (one,) = asked(POLICY, "a.png", ["region_to_ocr"], region=tokens)
    assert one.request.region == tokens


def test_options_that_are_the_models_are_left_out() -> None:
    fields: dict[str, Any] = {"beams": 5, "tokens": 9, "constrain": True, "min_score": 0.25}
    (one,) = asked(POLICY, "a.png", **fields)
    assert one.options == {
        "num_beams": 5,
        "max_new_tokens": 9,
        "constrain": True,
        "min_score": 0.25,
    }
    (one,) = asked(POLICY.replace(num_beams=5), "a.png", beams=5)
    assert one.options == {}


def test_rules_are_for_the_tasks_for_which_they_have_a_meaning() -> None:
    tasks = ["caption", "od", "region_proposal", "caption_to_phrase_grounding"]
    found = asked(POLICY, "a.png", tasks, text="it", labels="car, , a dog", recall=2)
    assert [(one.task, one.options) for one in found] == [
        ("caption", {}),
        ("od", {"labels": ["car", " a dog"], "recall": 2}),
        ("region_proposal", {"recall": 2}),
        ("caption_to_phrase_grounding", {"labels": ["car", " a dog"]}),
    ]
    (one,) = asked(POLICY, "a.png", recall=0.5)
    assert one.options == {"recall": 0.5}
    scored = asked(POLICY, "a.png", ["od", "caption"], min_score=0.5)
    assert [one.options for one in scored] == [{"min_score": 0.5}, {}]
    for rule in ({"labels": "car"}, {"recall": 2}, {"min_score": 0.5}):
        with pytest.raises(TaskError, match=next(iter(rule))):
            asked(POLICY, "a.png", ["caption", "ocr"], **rule)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"tasks": []}, TaskError, "choose 1 to 16 tasks"),
        ({"tasks": ["caption_to_phrase_grounding"]}, TaskError, "needs text="),
        ({"tasks": ["region_to_ocr"]}, TaskError, "needs region="),
        ({"tasks": ["region_to_ocr"], "region": "5,5,1,1"}, RegionError, "reversed"),
        ({"tasks": ["region_to_ocr"], "region": "1,2,3"}, RegionError, "not a region"),
        ({"tasks": ["region_to_ocr"], "region": "1,2,3,inf"}, RegionError, "not finite"),
        ({"tasks": [PROMPT]}, TaskError, "prompt="),
        ({"tasks": [PROMPT], "prompt": "x", "answer": "odd"}, TaskError, "answer is 'odd'"),
        ({"recall": 2.5}, GenerationError, "recall"),
        ({"picture": None}, FlorenceError, "give a picture first"),
    ],
)
def test_what_is_missing_or_wrong(
    fields: dict[str, Any], error: type[FlorenceError], words: str
) -> None:
    with pytest.raises(error, match=words):
        questions(read_form({**filled("a.png"), **fields}), POLICY)


HOSTILE: list[tuple[str, object]] = [
    ("picture", "/etc/passwd"),
    ("picture", {"path": None}),
    ("picture", {"path": ["a"]}),
    ("picture", []),
    ("tasks", "od"),
    ("tasks", ["od", "odd"]),
    ("tasks", [["od"]]),
    ("tasks", [{}]),
    ("beams", 0),
    ("beams", LIMITS.beams + 1),
    ("beams", None),
    ("beams", 2.5),
    ("beams", True),
    ("tokens", -1),
    ("tokens", LIMITS.tokens + 1),
    ("tokens", "9"),
    ("constrain", "yes"),
    ("recall", "1"),
    ("recall", -1),
    ("recall", float("nan")),
    ("min_score", 2),
    ("min_score", float("inf")),
    *((name, 5) for name in ("text", "region", "prompt", "answer", "precision", "labels")),
    *((name, "x" * (LONGEST + 1)) for name in ("text", "region", "prompt", "labels")),
    ("text", "\ud800"),
]


@pytest.mark.parametrize(("name", "value"), HOSTILE, ids=[f"{n}={v!r:.20}" for n, v in HOSTILE])
def test_a_field_that_no_browser_sends(name: str, value: object) -> None:
    with pytest.raises(FlorenceError, match=name):
        read_form({**filled("a.png"), name: value})


def test_tasks_are_asked_once() -> None:
    assert read_form(filled("a.png", ["od", "caption", "od"])).tasks == ("od", "caption")
