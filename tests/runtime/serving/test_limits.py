"""What one client may take from the others."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from florence_onnx import Florence2
from florence_onnx.serving.app import Access
from florence_onnx.serving.limits import Limits
from tests.helpers.service import asking, client, encoded, png, until

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
pytest.importorskip("python_multipart")


JSON = "application/json"


class Gate:
    """Holds the opening of the second model back."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def __call__(self, source: str) -> Florence2:
        if source == "second":
            assert self.opened.wait(60)
        return Florence2.load("demo")


TWO = {"first": "first", "second": "second"}


def test_bodies_that_are_too_large() -> None:
    with client(Limits(body_mib=1)) as service:
        large = service.post("/v1/answer", json=asking(b"x" * (1 << 20)))
        assert (large.status_code, large.json()["error"]["code"]) == (413, "too_large")

        def chunks() -> Any:
            for _ in range(1 << 11):
                yield b"x" * (1 << 10)

        # Without a length, what comes in is counted.
        streamed = service.post("/v1/answer", content=chunks())
        assert (streamed.status_code, streamed.json()["error"]["code"]) == (413, "too_large")
        assert service.post("/v1/answer", json=asking()).status_code == 200


WRONG_VALUES = {
    "tasks": ("/v1/answer", '{"image": "", "tasks": [%s]}', "1"),
    "region": ("/v1/answer", '{"image": "", "region": [%s]}', '""'),
    "fields": ("/v1/answer", '{"image": "", %s}', '"a": 1'),
    "messages": ("/v1/chat/completions", '{"messages": [%s]}', "1"),
    "parts": ("/v1/chat/completions", '{"messages": [{"role": "", "content": [%s]}]}', "1"),
    "labelling tasks": ("/predict", '{"label_config": "", "tasks": [%s]}', "1"),
}


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_bodies_of_very_many_wrong_values(name: str) -> None:
    """Each would make an error of nearly a kilobyte, so there are not more errors than that."""
    path, body, wrong = WRONG_VALUES[name]
    with client() as service:
        for count, status in ((50_000, 400), (50_002, 413)):
            content = body % ",".join([wrong] * count)
            answer = service.post(path, content=content, headers={"content-type": JSON})
            assert answer.status_code == status, answer.text
        assert "50000 values" in answer.json()["error"]["message"]
        form = {"tasks": f"[{'1,' * 50_001}1]"}
        answer = service.post("/v1/answer", files={"image": png()}, data=form)
        assert answer.status_code == 413


def test_tokens_and_beams() -> None:
    with client(Limits(tokens=4, beams=2)) as service:
        usual = service.post("/v1/answer", json=asking(options={"num_beams": 1}))
        assert usual.status_code == 200
        more = service.post("/v1/answer", json=asking(options={"num_beams": 1, "max_length": 9}))
        assert (more.status_code, more.json()["error"]["code"]) == (422, "generation_error")
        assert "allows 4" in more.json()["error"]["message"]
        beams = service.post("/v1/answer", json=asking(options={}))  # The model's are 3.
        assert "allows 2" in beams.json()["error"]["message"]


def test_labels() -> None:
    """Ten thousand short labels are many; as many of the longest would stop all others."""
    with client() as service:
        for length, status in ((10, 200), (11, 422)):
            labels = [f"{number:0{length}}" for number in range(10_000)]
            options = {"labels": labels, "max_new_tokens": 1}
            answer = service.post("/v1/answer", json=asking(options=options))
            assert answer.status_code == status, answer.text
        assert "allows 100000" in answer.json()["error"]["message"]


def test_a_full_queue() -> None:
    gate = Gate()
    with (
        client(Limits(queue=1), None, TWO, gate, max_open=1) as service,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(service.post, "/v1/answer", json=asking(model="second"))
        until(lambda: "florence_onnx_queue 1.0" in service.get("/metrics").text)
        refused = service.post("/v1/answer", json=asking())
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        assert service.get("/healthz").status_code == 200
        gate.opened.set()
        assert waiting.result().status_code == 200
        assert service.post("/v1/answer", json=asking()).status_code == 200


def test_a_request_that_takes_too_long() -> None:
    gate = Gate()
    with client(Limits(seconds=0.2), None, TWO, gate, max_open=1) as service:
        late = service.post("/v1/answer", json=asking(model="second"))
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        gate.opened.set()
        assert "florence_onnx_queue 0.0" in service.get("/metrics").text


def test_a_picture_that_would_take_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLORENCE_ONNX_MAX_PICTURE_MIB", "1")
    with client() as service:
        answer = service.post("/v1/answer", json=asking(png(0, 600, 900)))
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "image_error")
        assert service.post("/v1/answer", json=asking()).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer a"},
        {"authorization": "bearer b"},
        {"X-API-Key": "a"},
        {"Token": "b"},
        {"Authorization": "Basic dXNlcjph"},
    ],
)
def test_keys(headers: dict[str, str]) -> None:
    with client(access=Access(keys=("a", "b"))) as service:
        assert service.get("/v1/models", headers=headers).status_code == 200
        assert service.post("/v1/answer", json=asking(), headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer "}, {"Authorization": "Basic a"}, {"Token": "aa"}]
)
def test_without_a_key(headers: dict[str, str]) -> None:
    with client(access=Access(keys=("a",))) as service:
        for path in ("/v1/models", "/metrics", "/docs", "/openapi.json", "/nothing"):
            answer = service.get(path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
        assert service.post("/v1/answer", json=asking(), headers=headers).status_code == 401
        assert service.get("/healthz", headers=headers).status_code == 200


def test_pages_of_other_origins() -> None:
    origin = {"Origin": "https://page.example"}
    with client() as service:
        answer = service.get("/v1/models", headers=origin)
        assert "access-control-allow-origin" not in answer.headers
    with client(access=Access(keys=("a",), origins=("https://page.example",))) as service:
        answer = service.get("/v1/models", headers=origin)
        assert answer.status_code == 401
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        ask = {"Access-Control-Request-Method": "POST"}
        asked = service.options("/v1/answer", headers={**origin, **ask})
        assert asked.status_code == 200
        other = service.get("/v1/models", headers={"Origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers


def test_a_picture_of_very_many_frames() -> None:
    """Only the first is read, or the file is refused; either way at once."""
    frame = b"\x2c\0\0\0\0\1\0\1\0\0\2\2\x44\1\0"
    head = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff"
    with client() as service:
        answer = service.post("/v1/answer", json=asking(head + frame * 100_000 + b";"))
        assert answer.status_code in (200, 422)
        assert encoded(head)[:8] not in answer.text
