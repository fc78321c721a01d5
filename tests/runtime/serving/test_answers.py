"""Answers over HTTP are those of the runtime, and errors say what is wrong."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from florence_onnx import Florence2, Request, Task
from tests.helpers.service import TOKENS, asking, client, encoded, png
from tests.helpers.tiny import REGION, TEXT, TINY

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
pytest.importorskip("python_multipart")


@pytest.fixture(scope="module")
def service() -> Iterator[Any]:
    with client() as found:
        yield found


@pytest.fixture(scope="module")
def model() -> Florence2:
    return Florence2.load(TINY)


def input_of(task: Task) -> dict[str, Any]:
    inputs: dict[str, dict[str, Any]] = {
        "text": {"text": TEXT},
        "region": {"region": list(REGION)},
        "none": {},
    }
    return inputs[task.input_kind.value]


@pytest.mark.parametrize("task", Task)
def test_an_answer_is_the_record_of_the_runtime(service: Any, model: Florence2, task: Task) -> None:
    body = asking(task=task.name.lower(), **input_of(task))
    answer = service.post("/v1/answer", json=body)
    assert answer.status_code == 200, answer.text
    expected = model(png(), task, **input_of(task), **TOKENS).record()
    assert answer.json() == json.loads(json.dumps(expected))


def test_a_form_answers_as_json_does(service: Any) -> None:
    fields = {"task": "region_to_ocr", "region": "3,5,20,17.5", "options": json.dumps(TOKENS)}
    form = service.post("/v1/answer", files={"image": png()}, data=fields)
    region = [3, 5, 20, 17.5]
    as_json = service.post("/v1/answer", json=asking(task="region_to_ocr", region=region))
    assert form.status_code == 200
    assert form.json() == as_json.json()


@pytest.mark.parametrize(
    "region", ["3,5,20,17.5", "[3, 5, 20, 17.5]", "<loc_52><loc_332><loc_932><loc_774>"]
)
def test_regions_in_forms(service: Any, region: str) -> None:
    fields = {"task": "region_to_category", "region": region, "options": json.dumps(TOKENS)}
    answer = service.post("/v1/answer", files={"image": png()}, data=fields)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(("written", "tiles"), [("3,2", (3, 2)), ("[1, 2]", (1, 2))])
def test_tiles(service: Any, model: Florence2, written: str, tiles: tuple[int, int]) -> None:
    tasks = [{"task": "od"}, {"task": "ocr"}]
    expected = [
        json.loads(json.dumps(model(png(), one["task"], tiles=tiles, **TOKENS).record()))
        for one in tasks
    ]
    as_json = service.post("/v1/answer", json=asking(tasks=tasks, tiles=list(tiles)))
    assert as_json.json() == {"answers": expected}
    fields = {"tasks": json.dumps(tasks), "tiles": written, "options": json.dumps(TOKENS)}
    form = service.post("/v1/answer", files={"image": png()}, data=fields)
    assert form.json() == as_json.json()
    assert expected[0]["tiles"][-1] == [0, 0, 32, 24]
    schemas = service.get("/openapi.json").json()["components"]["schemas"]
    assert set(expected[0]) <= set(schemas["Record"]["properties"])


def test_several_tasks_are_answered_in_their_order(service: Any, model: Florence2) -> None:
    tasks: list[dict[str, Any]] = [
        {"task": "ocr"},
        {"task": "caption_to_phrase_grounding", "text": TEXT},
    ]
    answer = service.post("/v1/answer", json=asking(tasks=tasks))
    scene = model.encode(png())
    together = model.run([Request(scene, **one) for one in tasks], **TOKENS)
    expected = [result.record() for result in together]
    assert answer.json() == {"answers": json.loads(json.dumps(expected))}
    form = {"tasks": json.dumps(tasks), "options": json.dumps(TOKENS)}
    assert service.post("/v1/answer", files={"image": png()}, data=form).json() == answer.json()


def test_options_and_prompts_reach_the_model(service: Any, model: Florence2) -> None:
    options: dict[str, Any] = {"num_beams": 2, "num_return_sequences": 2, "max_new_tokens": 6}
    body = asking(prompt="detect", answer="boxes", options=options, min_score=0.5)
    expected = model(
        png(),
        prompt="detect",
        answer="boxes",
        min_score=0.5,
        **options,
    )
    answer = service.post("/v1/answer", json=body).json()
    assert answer == json.loads(json.dumps(expected.record()))
    assert len(answer["alternatives"]) == 1


def test_a_picture_may_be_a_data_uri(service: Any) -> None:
    uri = f"data:image/png;base64,{encoded(png())}"
    plain = service.post("/v1/answer", json=asking())
    assert service.post("/v1/answer", json={**asking(), "image": uri}).json() == plain.json()


WRONG: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "no task": (asking(task=None), 422, "task_error", "give task"),
    "unknown task": (asking(task="captoin"), 422, "task_error", "did you mean"),
    "no text": (asking(task="referring_expression_segmentation"), 422, "task_error", "text"),
    "text not taken": (asking(text="x"), 422, "task_error", "takes no text"),
    "region outside": (
        asking(task="region_to_ocr", region=[0, 0, 99, 99]),
        422,
        "region_error",
        "32",
    ),
    "unknown option": (asking(options={"beams": 3}), 422, "generation_error", "num_beams"),
    "option of Python": (asking(options={"self": 3}), 422, "generation_error", "num_beams"),
    "option out of range": (asking(options={"num_beams": 0}), 422, "generation_error", "num_beams"),
    "option of another type": (asking(options={"labels": 3}), 422, "generation_error", "labels"),
    "rule without meaning": (
        asking(task="caption", options={"labels": ["a"]}),
        422,
        "task_error",
        "labels=",
    ),
    "min_score": (asking(min_score=3.0), 422, "generation_error", "min_score"),
    "min_score without meaning": (
        asking(task="caption", min_score=0.5),
        422,
        "task_error",
        "min_score= is for tasks that locate things",
    ),
    "no picture file": (asking(b"no picture"), 422, "image_error", "format"),
    "truncated picture": (asking(png()[:60]), 422, "image_error", "decode"),
    "path": ({"image": "/etc/hostname", "task": "od"}, 422, "image_error", "not opened"),
    "URL": ({"image": "http://127.0.0.1/a.png", "task": "od"}, 422, "image_error", "not opened"),
    "file URL": ({"image": "file:///etc/passwd", "task": "od"}, 422, "image_error", "not opened"),
    "both": (asking(task="od", tasks=[{"task": "od"}]), 422, "task_error", "not both"),
    "no tasks": (asking(tasks=[]), 422, "task_error", "1 to 16"),
    "many tasks": (asking(tasks=[{"task": "od"}] * 17), 422, "task_error", "1 to 16"),
    "unknown field": (asking(colour="red"), 400, "invalid_request", "colour"),
    "unknown field of a task": (
        asking(tasks=[{"task": "od", "colour": 1}]),
        400,
        "invalid_request",
        "tasks.0.colour",
    ),
    "no image": ({"task": "od"}, 400, "invalid_request", "image"),
    "image of another type": ({"image": 3, "task": "od"}, 400, "invalid_request", "image"),
    "number in quotes": (asking(min_score="0.5"), 400, "invalid_request", "min_score"),
    "region of text": (
        asking(task="region_to_ocr", region=["1", 2, 3, 4]),
        400,
        "invalid_request",
        "region",
    ),
    "model": (asking(model="../tiny"), 404, "model_not_found", "no model '../tiny'"),
    "tiles for a caption": (asking(task="caption", tiles="auto"), 422, "input_error", "tiles="),
    "no tiles": (asking(tiles=[0, 1]), 422, "input_error", "1 to 32"),
    "other tiles": (asking(tiles="3x2"), 422, "input_error", "auto"),
    "tiles of fractions": (asking(tiles=[1.5, 2]), 400, "invalid_request", "tiles"),
    "many tiles": (asking(tiles=[5, 4]), 422, "input_error", "allows 16"),
    "many beams": (asking(options={"num_beams": 9}), 422, "generation_error", "allows 8"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(service: Any, name: str) -> None:
    body, status, code, words = WRONG[name]
    answer = service.post("/v1/answer", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert words in error["message"]
    assert set(answer.json()) == {"error"}


BODIES: dict[str, tuple[bytes, str, int]] = {
    "no JSON": (b"{", "application/json", 400),
    "not UTF-8": (b'{"image": "\xff"}', "application/json", 400),
    "a list": (b"[]", "application/json", 400),
    "deep": (b"[" * 100_000, "application/json", 400),
    "NaN": (b'{"image": "", "task": "od", "min_score": NaN}', "application/json", 400),
    "empty": (b"", "application/json", 400),
    "text": (b"hello", "text/plain", 415),
    "a form without a boundary": (b"--x", "multipart/form-data", 400),
    "a form that is cut off": (b"--x\r\nContent-Disp", "multipart/form-data; boundary=x", 400),
    "a form without a picture": (
        b'--x\r\nContent-Disposition: form-data; name="task"\r\n\r\nod\r\n--x--\r\n',
        "multipart/form-data; boundary=x",
        400,
    ),
    "a form with text for a picture": (
        b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n/etc/passwd\r\n--x--\r\n',
        "multipart/form-data; boundary=x",
        400,
    ),
    "a part without a name": (
        b"--x\r\nContent-Disposition: form-data\r\n\r\nod\r\n--x--\r\n",
        "multipart/form-data; boundary=x",
        400,
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_damaged_bodies(service: Any, name: str) -> None:
    content, kind, status = BODIES[name]
    answer = service.post("/v1/answer", content=content, headers={"content-type": kind})
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"task": "od", "options": "{"}, "options: this is no JSON"),
        ({"task": "od", "options": "NaN"}, "options: this is no JSON"),
        ({"task": "od", "min_score": "high"}, "min_score: this is no JSON"),
        ({"task": "od", "image_url": "x"}, "image_url"),
        ({"task": ["od", "ocr"]}, "task: give one value"),
    ],
)
def test_wrong_fields_of_a_form(service: Any, fields: dict[str, Any], words: str) -> None:
    answer = service.post("/v1/answer", files={"image": png()}, data=fields)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


def test_models_health_and_other_paths(service: Any) -> None:
    (listed,) = service.get("/v1/models").json()["data"]
    assert (listed["id"], listed["open"]) == ("tiny", True)
    assert service.get("/healthz").json() == {"status": "ok"}
    missing = service.get("/nothing").json()["error"]
    assert missing["code"] == "not_found" and "/openapi.json" in missing["message"]
    wrong = service.get("/v1/answer")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert "/openapi.json" in wrong.json()["error"]["message"]
    assert str(Path(TINY)) not in service.get("/v1/models").text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *(("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/v1/models", 200)),
        *(("/docs", 200), ("/v1/answer", 405), ("/nothing", 404)),
    ],
)
def test_head_is_get_without_a_body(service: Any, path: str, status: int) -> None:
    assert service.head(path).status_code == status


def test_every_type_of_the_documentation_is_there(service: Any) -> None:
    described = service.get("/openapi.json").json()
    text = json.dumps(described)
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert {"PictureQuestion", "Record", "Answers", "ErrorBody"} <= named
    assert named <= set(described["components"]["schemas"])
    content = described["paths"]["/v1/answer"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data"}


def test_the_page_of_the_documentation_needs_no_network(service: Any) -> None:
    page = service.get("/docs").text
    named = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert len(named) == 3
    for path in named:
        assert path.startswith("/") and not path.startswith("//")
        assert len(service.get(path).content) > 1000
    assert "http" not in page


def test_fields_of_records_are_those_of_the_documentation(service: Any) -> None:
    schemas = service.get("/openapi.json").json()["components"]["schemas"]
    record = service.post("/v1/answer", json=asking(task="ocr_with_region")).json()
    assert set(record) <= set(schemas["Record"]["properties"])
    assert set(schemas["Record"]["required"]) <= set(record)


def test_bodies_are_checked_by_what_was_made_before_the_first_request(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that make it at the same time break Python's parser."""
    import pydantic

    def refuse(kind: object) -> None:
        raise AssertionError(f"a check of {kind} is made")

    monkeypatch.setattr(pydantic, "TypeAdapter", refuse)
    assert service.post("/v1/answer", json=asking()).status_code == 200
    form = {"task": "od", "options": json.dumps(TOKENS)}
    assert service.post("/v1/answer", files={"image": png()}, data=form).status_code == 200
    for path in ("/v1/chat/completions", "/v1/predict", "/predict"):
        assert service.post(path, json={}).status_code == 400
