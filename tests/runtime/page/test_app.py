"""The page as an application: its limits, and what it does not do."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from florence_onnx import Florence2
from florence_onnx.page.app import folder_for_files, make_app
from florence_onnx.page.blocks import make_page
from florence_onnx.page.form import LIMITS
from florence_onnx.page.models import Models
from florence_onnx.page.snippets import Source
from tests.helpers.page import filled
from tests.helpers.picture_files import png_chunk
from tests.helpers.tiny import TINY, picture

pytest.importorskip("gradio")

UPLOAD, JOIN, NEWS = "/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/queue/data"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where Gradio keeps files."""
    with folder_for_files() as folder:
        yield folder
    assert not folder.exists()


@pytest.fixture(scope="module")
def page(folder: Path) -> Any:
    model = Florence2.load(TINY, threads=1)
    models = Models(model, "fp32", [], lambda precision: model)
    return make_page(models, lambda precision: Source("<b>tiny</b>", {}, []))


@pytest.fixture(scope="module")
def client(page: Any) -> Iterator[Any]:
    from starlette.testclient import TestClient

    with TestClient(make_app(page)) as client:
        yield client


def answer(client: Any, page: Any, fields: dict[str, Any]) -> dict[str, Any]:
    """What the page's function answers to fields, sent as a browser sends them."""
    (number,) = (key for key, one in page.fns.items() if one.name == "answer")
    session = "session"
    order = [*filled("")]
    body = {"data": [fields[name] for name in order], "fn_index": number, "session_hash": session}
    joined = client.post(JOIN, json=body)
    assert joined.status_code == 200, joined.text
    with client.stream("GET", NEWS, params={"session_hash": session}) as news:
        for line in news.iter_lines():
            told = json.loads(line.removeprefix("data: ")) if line else {}
            if told.get("msg") == "process_completed":
                return {"success": told["success"], **told["output"]}
    raise AssertionError("no answer")


def uploaded(client: Any, name: str, content: bytes) -> str:
    """The path of an uploaded file."""
    sent = client.post(UPLOAD, files={"files": (name, content)})
    assert sent.status_code == 200, sent.text
    (path,) = sent.json()
    return str(path)


def png(folder: Path) -> bytes:
    Image.fromarray(picture(1, 60, 80)).save(folder / "a.png")
    return (folder / "a.png").read_bytes()


def test_an_answer(client: Any, page: Any, folder: Path, tmp_path: Path) -> None:
    path = uploaded(client, "a.png", png(tmp_path))
    assert Path(path).is_relative_to(folder)
    told = answer(client, page, filled(path, tokens=8))
    assert told["success"]
    text, scores, times, record = told["data"][1:5]
    assert record["task"] == "<OD>"
    assert "ms" in times["headers"]
    assert isinstance(text, str)
    assert scores["headers"][0] == "task"
    assert 'model("a.png", "od", max_new_tokens=8)' in told["data"][5]


def test_files_of_this_machine_are_not_opened(
    client: Any, page: Any, folder: Path, tmp_path: Path
) -> None:
    """Only what was uploaded is, and nothing else is copied to where it could be fetched."""
    png(tmp_path)
    outside = tmp_path / "a.png"
    before = sorted(folder.rglob("*"))
    for path in (outside, folder / ".." / outside.relative_to("/"), Path("/etc/passwd")):
        told = answer(client, page, filled(path))
        assert not told["success"]
        assert sorted(folder.rglob("*")) == before
        assert client.get(f"/gradio_api/file={path}").status_code == 403


def test_errors_are_the_packages_own(client: Any, page: Any, tmp_path: Path) -> None:
    """In one line, as text and not as HTML."""
    for name in ("a.png", "a.svg", "a.html"):
        path = uploaded(client, name, b"<svg>no picture</svg>")
        told = answer(client, page, filled(path))
        assert "picture" in told["error"] or "bytes given" in told["error"]
    size = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", size) + png_chunk(b"IDAT", b"x")
    told = answer(client, page, filled(uploaded(client, "a.png", bomb)))
    assert "60000x60000" in told["error"] or "pixels" in told["error"]
    told = answer(client, page, filled(path, ["region_to_ocr"], region="<b>"))
    assert "&lt;b&gt;" in told["error"] and "<b>" not in told["error"]
    told = answer(client, page, {**filled(path), "beams": 1000})
    assert "beams is 1000" in told["error"]


def test_bodies_have_a_limit(client: Any) -> None:
    most = LIMITS.body_mib << 20
    for route in (UPLOAD, JOIN, "/elsewhere"):
        large = client.post(route, content=b"x", headers={"Content-Length": str(2 * most)})
        assert large.status_code == 413
        assert large.json()["error"]["code"] == "too_large"
        endless = client.post(route, content=iter([b"x"]))
        assert endless.status_code == 411
        odd = client.post(route, content=b"x", headers={"Content-Length": "-1"})
        assert odd.status_code == 411
    file = client.post(UPLOAD, files={"files": ("a.png", bytes(most + 1))})
    assert file.status_code == 413


def test_nothing_comes_from_elsewhere(client: Any, page: Any) -> None:
    assert page.analytics_enabled is False
    config = client.get("/config").json()
    assert config["analytics_enabled"] is False
    assert config["footer_links"] == []
    assert config["max_file_size"] == LIMITS.body_mib << 20
    assert "https://fonts" not in client.get("/").text + client.get("/theme.css").text
    assert "<b>tiny" not in client.get("/config").text
