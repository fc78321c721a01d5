"""What other front ends say and expect: by their client, or by their documented messages."""

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from florence_onnx import Florence2, Task
from florence_onnx.serving.adapters import labelstudio
from florence_onnx.serving.limits import Limits
from florence_onnx.serving.refusals import RefusalError
from tests.helpers.service import TOKENS, client, encoded, png
from tests.helpers.tiny import TEXT, TINY

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
pytest.importorskip("python_multipart")

TEXT_AREA = '<View><Image name="i" value="$image"/><TextArea name="t" toName="i"/></View>'
POLYGONS = (
    '<View><Image name="i" value="$image"/>'
    '<PolygonLabels name="p" toName="i">%s</PolygonLabels></View>'
)
URI = f"data:image/png;base64,{encoded(png())}"


@pytest.fixture(scope="module")
def service() -> Iterator[Any]:
    with client(Limits(tokens=TOKENS["max_new_tokens"])) as found:
        yield found


@pytest.fixture(scope="module")
def model() -> Florence2:
    return Florence2.load(TINY)


def message(text: str, *urls: str) -> list[dict[str, Any]]:
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls or (URI,)]
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [*pictures, {"type": "text", "text": text}]},
    ]


@pytest.fixture(scope="module")
def chat(service: Any) -> Any:
    """The openai package, its requests brought to the service in this process."""
    openai = pytest.importorskip("openai")
    return openai.OpenAI(
        api_key="none", base_url=f"{service.base_url}/v1", http_client=service, max_retries=0
    )


@pytest.mark.parametrize(
    ("text", "task", "given"),
    [
        ("<CAPTION>", Task.CAPTION, {}),
        ("caption", Task.CAPTION, {}),
        ("", Task.MORE_DETAILED_CAPTION, {}),
        ("<OD>", Task.OD, {}),
        (
            f"<CAPTION_TO_PHRASE_GROUNDING> {TEXT}",
            Task.CAPTION_TO_PHRASE_GROUNDING,
            {"text": TEXT},
        ),
        (
            "<REGION_TO_OCR><loc_52><loc_332><loc_932><loc_774>",
            Task.REGION_TO_OCR,
            {"region": "<loc_52><loc_332><loc_932><loc_774>"},
        ),
    ],
)
def test_chat_completions(
    chat: Any, model: Florence2, text: str, task: Task, given: dict[str, Any]
) -> None:
    answer = chat.chat.completions.create(
        model="tiny", messages=message(text), max_completion_tokens=8
    )
    expected = model(png(), task, **given, **TOKENS)
    (choice,) = answer.choices
    is_text = isinstance(expected.to_dict()[task.value], str)
    content = choice.message.content if is_text else json.loads(choice.message.content)
    assert content == (expected.text if is_text else json.loads(json.dumps(expected.to_dict())))
    assert choice.finish_reason == ("length" if expected.truncated else "stop")


def test_chat_completions_as_a_stream(chat: Any, model: Florence2) -> None:
    parts = chat.chat.completions.create(
        model="tiny", messages=message("<CAPTION>"), max_tokens=8, stream=True
    )
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == model(png(), "caption", **TOKENS).text


def test_errors_of_chat_completions(chat: Any) -> None:
    import openai

    for messages, words in (
        (message("<CAPTION>", "https://example.com/a.png"), "not opened"),
        (message("<CAPTION>", "file:///etc/passwd"), "not opened"),
        (message("<CAPTION>", URI, URI), "2 pictures"),
        ([{"role": "user", "content": "hello"}], "0 pictures"),
    ):
        with pytest.raises(openai.UnprocessableEntityError, match=words):
            chat.chat.completions.create(model="tiny", messages=messages)
    with pytest.raises(openai.NotFoundError, match="there are the models tiny"):
        chat.chat.completions.create(model="other", messages=message("<CAPTION>"))
    assert [one.id for one in chat.models.list()] == ["tiny"]


XANY = {"Token": ""}


def test_anylabeling_lists_models_and_tasks(service: Any) -> None:
    listed = service.get("/v1/models", headers=XANY).json()
    assert listed["success"] is True
    about = listed["data"]["tiny"]
    assert about["display_name"] == "tiny"
    assert {task["id"] for task in about["available_tasks"]} == {t.name.lower() for t in Task}
    info = service.get("/v1/models/tiny/info", headers=XANY).json()
    assert info["data"]["model_id"] == "tiny"
    assert service.get("/v1/models/other/info", headers=XANY).status_code == 404
    assert service.get("/health", headers=XANY).json()["status"] == "healthy"


def shapes(service: Any, **params: Any) -> Any:
    body = {"model": "tiny", "image": URI, "params": params}
    return service.post("/v1/predict", json=body, headers=XANY)


def test_anylabeling_draws_boxes_polygons_and_text(service: Any, model: Florence2) -> None:
    found = shapes(service).json()["data"]["shapes"]
    expected = model(png(), "od", **TOKENS).detections
    assert len(found) == len(expected)
    for shape, one in zip(found, expected, strict=True):
        assert shape["shape_type"] == "rectangle"
        assert [*shape["points"][0], *shape["points"][2]] == pytest.approx(list(one.box))
    task = "referring_expression_segmentation"
    lines = shapes(service, current_task=task, text_prompt=TEXT).json()["data"]["shapes"]
    count = sum(len(one.outlines) for one in model(png(), task, TEXT, **TOKENS).detections)
    assert [shape["shape_type"] for shape in lines] == ["polygon"] * count
    told = shapes(service, current_task="caption", conf_threshold=0.5).json()["data"]
    assert told == {"shapes": [], "description": model(png(), "caption", **TOKENS).text}
    marks = [{"type": "rectangle", "data": [1, 2, 20, 18]}]
    region = shapes(service, current_task="region_to_category", marks=marks)
    expected_text = model(png(), "region_to_category", region=(1, 2, 20, 18), **TOKENS).text
    assert region.json()["data"]["description"] == expected_text


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"current_task": "odd"}, "task_error"),
        ({"current_task": 3}, "invalid_request"),
        ({"current_task": "region_to_ocr"}, "region_error"),
        ({"current_task": "region_to_ocr", "marks": [3, {"data": 3}]}, "region_error"),
        (
            {"current_task": "region_to_ocr", "marks": [{"type": "rectangle", "data": "abcd"}]},
            "region_error",
        ),
        (
            {"current_task": "region_to_ocr", "marks": [{"type": "rectangle", "data": ["a"] * 4}]},
            "region_error",
        ),
        ({"conf_threshold": "high"}, "generation_error"),
    ],
)
def test_anylabeling_errors(service: Any, params: dict[str, Any], code: str) -> None:
    answer = shapes(service, **params)
    assert (answer.status_code // 100, answer.json()["error"]["code"]) == (4, code)


CONFIG = """<View><Image name="img" value="$image"/>
<RectangleLabels name="tag" toName="img"><Label value="car"/><Label value="cat"/></RectangleLabels>
<PolygonLabels name="line" toName="img"><Label value="green car"/></PolygonLabels>
<TextArea name="words" toName="img"/></View>"""


def predict(service: Any, config: str = CONFIG, image: object = URI, count: int = 1) -> Any:
    task = {"id": 7, "data": {"image": image}, "annotations": []}
    body = {"tasks": [task] * count, "label_config": config, "project": "1.2", "params": {}}
    return service.post("/predict", json=body)


def test_labelstudio(service: Any, model: Florence2) -> None:
    assert service.get("/health").json()["status"] == "UP"
    setup = {"project": "1", "schema": CONFIG, "hostname": "x", "access_token": "y"}
    assert service.post("/setup", json=setup).json() == {"model_version": labelstudio.VERSION}
    answer = predict(service, count=2).json()
    first, second = answer["results"]
    assert first["model_version"] == answer["model_version"] == labelstudio.VERSION
    assert len(first["result"]) == len(second["result"])
    kinds: dict[str, list[dict[str, Any]]] = {"tag": [], "line": [], "words": []}
    for region in first["result"]:
        kinds[region["from_name"]].append(region)
        assert (region["to_name"], region["original_width"]) == ("img", 32)
    boxes = model(png(), "od", labels=["car", "cat"], **TOKENS).detections
    assert len(kinds["tag"]) == len(boxes)
    for region, one in zip(kinds["tag"], boxes, strict=True):
        value = region["value"]
        assert value["rectanglelabels"] == [one.label]
        x, width = value["x"] * 0.32, value["width"] * 0.32
        assert (x, x + width) == pytest.approx((one.box[0], one.box[2]))
        y, height = value["y"] * 0.24, value["height"] * 0.24
        assert (y, y + height) == pytest.approx((one.box[1], one.box[3]))
    assert {region["type"] for region in kinds["line"]} <= {"polygonlabels"}
    text = model(png(), "more_detailed_caption", **TOKENS).text
    assert [region["value"] for region in kinds["words"]] == [{"text": [text]}]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"image": "http://label.example/data/upload/a.png"}, "image_error"),
        ({"image": "/data/local-files/?d=a.png"}, "image_error"),
        ({"image": 3}, "image_error"),
        ({"config": "<View/>"}, "label_config_error"),
        ({"config": "<View>"}, "label_config_error"),
        ({"config": '<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>'}, "label_config_error"),
        ({"config": f"<View>{'<a/>' * 40_000}</View>"}, "label_config_error"),
        ({"config": POLYGONS % ""}, "label_config_error"),
        ({"config": POLYGONS % ('<Label value="a"/>' * 17)}, "task_error"),
        ({"count": 17}, "task_error"),
    ],
)
def test_labelstudio_errors(service: Any, given: dict[str, Any], code: str) -> None:
    answer = predict(service, **given)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, code)


def test_a_configuration_with_comments_is_read() -> None:
    (one,) = labelstudio.controls(
        '<View><!-- a --><Image name="i" value="$p"/><TextArea name="t" toName="i"/></View>'
    )
    assert (one.variable, one.target, one.labels) == ("p", "i", ())
    with pytest.raises(RefusalError, match="none of"):
        labelstudio.controls('<View><TextArea name="t" toName="i"/></View>')


def test_other_threads_are_not_left_behind() -> None:
    before = threading.active_count()
    with client() as found:
        assert found.get("/health").status_code == 200
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    ("path", "wrong", "words"),
    [
        ("/v1/chat/completions", {"messages": message("od"), "stream": "true"}, "stream"),
        ("/v1/chat/completions", {"messages": message("od"), "max_tokens": "8"}, "max_tokens"),
        ("/v1/chat/completions", {"messages": [{"role": 1, "content": ""}]}, "messages.0.role"),
        ("/v1/predict", {"model": "tiny", "image": URI, "params": [["a", 1]]}, "params"),
        ("/predict", {"tasks": [{"data": [["a", 1]]}], "label_config": ""}, "tasks.0.data"),
        ("/predict", {"tasks": [], "label_config": 1}, "label_config"),
    ],
)
def test_bodies_of_other_types(service: Any, path: str, wrong: dict[str, Any], words: str) -> None:
    """No type is made of another one: text is no number, and no truth."""
    answer = service.post(path, json=wrong)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/answer", {"image": URI, "task": "od", "options": TOKENS}),
        ("/v1/chat/completions", {"messages": message("<OD>")}),
        ("/v1/predict", {"model": "tiny", "image": URI}),
        ("/predict", {"tasks": [{"data": {"image": URI}}], "label_config": TEXT_AREA}),
    ],
)
def test_pictures_are_decoded_in_other_threads(
    service: Any, path: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread of the event loop goes on with the other requests."""
    decode = base64.b64decode
    decoding: list[bool] = []

    def noted(*given: Any, **options: Any) -> bytes:
        decoding.append(asyncio._get_running_loop() is not None)
        return decode(*given, **options)

    monkeypatch.setattr(base64, "b64decode", noted)
    assert service.post(path, json=body).status_code == 200
    assert decoding == [False]
