"""The MCP server, spoken to by the official client."""

import asyncio
import base64
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from florence_onnx import Florence2
from tests.helpers.service import encoded, png
from tests.helpers.tiny import TEXT, TINY, picture

mcp = pytest.importorskip("mcp")


def call(
    arguments: Sequence[str], calls: Sequence[tuple[str, dict[str, Any]]]
) -> tuple[list[str], list[Any]]:
    """The names of the tools, and what calls of them return."""

    async def run() -> tuple[list[str], list[Any]]:
        from mcp import ClientSession, StdioServerParameters
        from mcp.client.stdio import stdio_client

        command = ["-m", "florence_onnx", "mcp", "--model", str(TINY), *arguments]
        server = StdioServerParameters(command=sys.executable, args=command)
        async with (
            stdio_client(server) as (receive, send),
            ClientSession(receive, send) as session,
        ):
            await session.initialize()
            tools = [tool.name for tool in (await session.list_tools()).tools]
            return tools, [await session.call_tool(name, given) for name, given in calls]

    return asyncio.run(run())


def test_texts_that_cannot_be_paths(tmp_path: Path) -> None:
    """Base64 of a small picture has longer words than names of files; others have a zero."""
    file = io.BytesIO()
    Image.fromarray(picture(0, 24, 32) // 8).save(file, "BMP")
    small = encoded(file.getvalue())
    assert len(small) < 4096 and max(map(len, small.split("/"))) > 255
    calls = [("caption", {"image": image}) for image in (small, "a\0.png", "x" * 300, "")]
    _, answers = call(["--folder", str(tmp_path)], calls)
    assert answers[0].content[0].text == Florence2.load(TINY)(file.getvalue(), "caption").text
    for answer, words in zip(answers[1:], ("in base64", "format", "empty"), strict=True):
        assert answer.is_error
        assert words in answer.content[0].text


def test_tools(tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(png())
    inside = tmp_path / "folder"
    inside.mkdir()
    (inside / "a.png").write_bytes(png())
    uri = f"data:image/png;base64,{encoded(png())}"
    calls: list[tuple[str, dict[str, Any]]] = [
        ("caption", {"image": uri}),
        ("detect", {"image": "a.png"}),
        ("read_text", {"image": encoded(png())}),
        ("locate", {"image": uri, "text": TEXT}),
        ("caption", {"image": "../in.png"}),
        ("caption", {"image": str(tmp_path / "in.png")}),
        ("read_text", {"image": encoded(b"no picture")}),
        ("locate", {"image": uri, "text": ""}),
        ("caption", {"image": uri, "detail": "huge"}),
    ]
    tools, answers = call(["--folder", str(inside)], calls)
    assert tools == ["caption", "detect", "read_text", "locate"]
    model = Florence2.load(TINY)
    assert answers[0].content[0].text == model(png(), "caption").text
    found = json.loads(answers[1].content[0].text)
    expected = model(png(), "od")
    assert found["size"] == [32, 24]
    assert [one["box"] for one in found["found"]] == [list(d.box) for d in expected.detections]
    assert not any(answer.is_error for answer in answers[:4])
    assert all(answer.is_error for answer in answers[4:])
    # The words of an error reach the assistant.
    for answer, words in zip(
        answers[4:], ("in base64", "in base64", "format", "text"), strict=False
    ):
        assert words in answer.content[0].text
    assert "longest" in answers[-1].content[0].text
    assert base64.b64encode(png()).decode()[:20] not in str(answers[4])
