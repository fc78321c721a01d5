"""The snippets of docs/drawing.md run as they stand."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.pages import blocks, copy_docs, page, run_snippet

SNIPPETS = blocks(page("drawing.md"), "python")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy_docs(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(snippet: str) -> None:
    run_snippet(snippet, "drawing.md", {})


def test_the_page_has_the_snippets_that_are_run() -> None:
    assert [re.findall(r"drawing import|supervision|to_yolo", one)[0] for one in SNIPPETS] == [
        *("drawing import", "to_yolo", "supervision")
    ]


def test_a_drawing_is_made(folder: Path) -> None:
    run(SNIPPETS[0])
    with Image.open("drawn.png") as drawn, Image.open("docs/scene.png") as scene:
        assert drawn.size == scene.size
        assert drawn.tobytes() != scene.convert("RGB").tobytes()


def test_files_of_other_tools_are_made(folder: Path) -> None:
    run(SNIPPETS[1])
    boxes = len(json.loads(Path("coco.json").read_text())["annotations"])
    assert boxes > 0
    assert len(json.loads(Path("docs/scene.json").read_text())["shapes"]) == boxes
    assert len(Path("scene.txt").read_text().splitlines()) == boxes


def test_supervision_draws(folder: Path) -> None:
    pytest.importorskip("supervision")
    run(SNIPPETS[2])
    with Image.open("supervision.png") as drawn, Image.open("docs/scene.png") as scene:
        assert drawn.tobytes() != scene.convert("RGB").tobytes()
