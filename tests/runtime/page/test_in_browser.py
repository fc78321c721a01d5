"""The page in a headless Chromium: upload, choose, run, see the drawn answer.

With a folder in FLORENCE_ONNX_SCREENSHOTS, the picture of the page in the documentation is written
there.
"""

import ast
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from florence_onnx import Florence2, Result
from florence_onnx.cli.program import main
from florence_onnx.drawing import draw
from florence_onnx.page.blocks import EXAMPLES
from florence_onnx.page.form import PROMPT
from florence_onnx.plain_text import lines
from florence_onnx.tasks import AnswerKind, InputKind, Task
from tests.helpers.browser import chromium

sync_api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("gradio")

PROGRAM = chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")

DOCS = Path(__file__).parents[3] / "docs"
SCENE = sorted(EXAMPLES.glob("*.png"))[0]
SIZE = {"width": 1280, "height": 1180}
"""Pixels of the window."""

COMMAND = """
import sys

def tell(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        host = arguments[1] if event == "socket.connect" else arguments[0]
        host = host[0] if isinstance(host, tuple) else host
        if host not in ("127.0.0.1", "::1", "localhost", None):
            print("asked for", host, file=sys.stderr, flush=True)

sys.addaudithook(tell)
from florence_onnx.cli.program import main

sys.exit(main(["demo", *sys.argv[1:]]))
"""
"""Runs the command; tells of every connection to another machine."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the page, whose process runs anywhere and asks no other machine for anything."""
    given = ["--model", "demo", "--port", "0", "--threads", "1"]
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, *given],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:[0-9]+/", line)
        assert found, (line, process.poll() is not None and process.communicate())
        try:
            yield found[0]
        finally:
            process.send_signal(signal.SIGINT if sys.platform != "win32" else signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "asked for" not in errors, errors
    assert "Traceback" not in errors, errors


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as found:
        running = found.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def model() -> Florence2:
    return Florence2.load("demo", threads=1)


@dataclass
class Visit:
    """The page in a window of its own."""

    window: Any
    urls: list[str] = field(default_factory=list)
    """What was asked for."""

    def find(self, name: str, inside: str = "") -> Any:
        return self.window.locator(f"#{name} {inside}")

    def give(self, picture: Path) -> None:
        self.find("picture", "input[type=file]").set_input_files(str(picture))
        self.find("picture", "img").wait_for()

    def choose(self, tasks: Sequence[str]) -> None:
        for box in self.find("tasks", "input[type=checkbox]").all():
            box.set_checked(box.evaluate("box => box.name") in tasks)

    def write(self, name: str, text: str) -> None:
        """Writes into a field, which has its first value by the time that a click reaches it."""
        place = self.find(name, ":is(input, textarea)").first
        place.click()
        place.fill(text)

    def drag(self, box: Sequence[float]) -> list[float]:
        """Draws a box in pixels of the picture; gives the region that comes of it."""
        field = self.find("region", ":is(input, textarea)")
        field.wait_for()
        image = self.find("picture", "img")
        outer = image.bounding_box()
        width, height = image.evaluate("one => [one.naturalWidth, one.naturalHeight]")
        scale = min(outer["width"] / width, outer["height"] / height)
        left = outer["x"] + (outer["width"] - width * scale) / 2
        top = outer["y"] + (outer["height"] - height * scale) / 2
        places = [(left + x * scale, top + y * scale) for x, y in (box[:2], box[2:])]
        mouse = self.window.mouse
        mouse.move(*places[0])
        mouse.down()
        mouse.move(*places[1], steps=3)
        mouse.up()
        return [float(part) for part in field.input_value().split(",")]

    def run(self, text: str) -> None:
        """Runs, and waits for an answer of this text."""
        self.find("run").click()
        sync_api.expect(self.find("answers", "textarea")).to_have_value(text, timeout=60_000)

    def tab(self, name: str) -> None:
        self.window.get_by_role("tab", name=name, exact=True).click()

    def drawings(self) -> list[Any]:
        """The pixels of the drawings."""
        found = []
        for image in self.find("drawings", "img").all():
            with urllib.request.urlopen(image.evaluate("one => one.src")) as file:  # noqa: S310
                found.append(np.asarray(Image.open(io.BytesIO(file.read()))))
        return found


@contextmanager
def visited(browser: Any, address: str) -> Iterator[Visit]:
    """A window, which asks nobody but the page's server for anything."""
    context = browser.new_context(viewport=SIZE, permissions=["clipboard-read", "clipboard-write"])
    found = Visit(context.new_page())
    found.window.on("request", lambda request: found.urls.append(request.url))
    found.window.goto(address)
    found.find("run").wait_for()
    yield found
    context.close()
    others = [url for url in found.urls if not url.startswith((address, "data:", "blob:"))]
    assert found.urls and others == []


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Visit]:
    with visited(browser, address) as found:
        yield found


@pytest.fixture(scope="module")
def used(browser: Any, address: str) -> Iterator[Visit]:
    """A window that several tests use one after the other, with a picture."""
    with visited(browser, address) as found:
        found.give(SCENE)
        yield found


KINDS: Mapping[str, dict[str, Any]] = {
    "caption": {},
    "od": {},
    "region_proposal": {},
    "ocr_with_region": {},
    "caption_to_phrase_grounding": {"text": "a circle"},
    "referring_expression_segmentation": {"text": "the circle"},
    "open_vocabulary_detection": {"text": "circle"},
    "region_to_category": {"region": True},
    "region_to_segmentation": {"region": True},
}


def test_there_is_a_task_of_each_kind() -> None:
    tasks = [Task.parse(name) for name in KINDS]
    assert {task.answer_kind for task in tasks} == set(AnswerKind)
    assert {task.input_kind for task in tasks} == set(InputKind)


def check(visit: Visit, result: Result) -> None:
    """Runs, and looks at the text and the drawing."""
    visit.run("\n".join(lines(result)))
    if result.answer_kind is AnswerKind.TEXT:
        sync_api.expect(visit.find("drawings")).to_be_hidden()
        return
    sync_api.expect(visit.find("drawings", "img")).to_have_count(1)
    (drawing,) = visit.drawings()
    assert np.array_equal(drawing, np.asarray(draw(str(SCENE), result)))


@pytest.mark.parametrize("task", KINDS)
def test_a_task_of_each_kind(used: Visit, model: Florence2, task: str) -> None:
    used.choose([task])
    text, region = KINDS[task].get("text"), None
    if text is not None:
        used.write("text", text)
    if "region" in KINDS[task]:
        box = model(str(SCENE), "od").detections[0].box
        region = used.drag(box)
        assert region == pytest.approx(box, abs=2)
        assert used.window.locator("#region-box").is_visible()
    check(used, model(str(SCENE), task, text, region=region))


def test_the_prompt_of_a_fine_tune(used: Visit, model: Florence2) -> None:
    used.choose([PROMPT])
    used.write("prompt", Task.OD.prompt)
    used.find("answer", "input").click()
    used.window.get_by_role("option", name="boxes", exact=True).click()
    check(used, model(str(SCENE), prompt=Task.OD.prompt, answer="boxes"))


def test_options(visit: Visit, model: Florence2) -> None:
    visit.give(SCENE)
    visit.window.get_by_text("Search, precision and constraints").click()
    visit.write("beams", "1")
    visit.find("constrain", "input").check()
    visit.write("labels", "pink square,green square")
    labels = ["pink square", "green square"]
    rules: dict[str, Any] = {"labels": labels, "constrain": True}
    check(visit, model(str(SCENE), "od", num_beams=1, **rules))


def test_several_tasks_and_what_is_copied(
    visit: Visit,
    model: Florence2,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The program and the commands that are copied print the records of the page."""
    tasks = ["caption", "od", "region_to_segmentation"]
    visit.give(SCENE)
    visit.choose(tasks)
    region = visit.drag(model(str(SCENE), "od").detections[0].box)
    results = [
        model(str(SCENE), task, region=region if task.startswith("region") else None)
        for task in tasks
    ]
    visit.find("run").click()
    sync_api.expect(visit.find("drawings", "img")).to_have_count(2, timeout=60_000)
    screenshot(visit, tmp_path)
    records = [result.record() for result in results]
    monkeypatch.chdir(tmp_path)
    shutil.copy(SCENE, tmp_path)
    program = copied(visit, "Python")
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(program, "page", "exec"), {})  # noqa: S102
    found = [ast.literal_eval(line) for line in printed.getvalue().splitlines()]
    assert sorted(map(str, found)) == sorted(map(str, records))
    for command in copied(visit, "Command").splitlines():
        assert main(shlex.split(command)[1:]) == 0
        record = json.loads(capsys.readouterr().out)
        assert record.pop("image") == SCENE.name
        assert record in records
    visit.tab("JSON")
    sync_api.expect(visit.find("records")).to_contain_text("<REGION_TO_SEGMENTATION>")
    visit.tab("Time")
    sync_api.expect(visit.find("times")).to_contain_text("vision")


def screenshot(visit: Visit, folder: Path) -> None:
    """Takes the picture of the documentation, which is kept where this is asked for."""
    folder = Path(os.environ.get("FLORENCE_ONNX_SCREENSHOTS", folder))
    progress = visit.find("drawings", "[data-testid=status-tracker]")
    sync_api.expect(progress).to_have_class(re.compile(r"\bhide\b"))
    taken = Image.open(io.BytesIO(visit.window.screenshot(animations="disabled")))
    taken.convert("RGB").quantize(256).save(folder / "demo.png", optimize=True)
    with Image.open(DOCS / "demo.png") as committed:
        assert taken.size == committed.size == tuple(SIZE.values())


def copied(visit: Visit, tab: str) -> str:
    """What the button of a tab copies."""
    visit.tab(tab)
    button = {"Python": "Copy as Python", "Command": "Copy as command"}[tab]
    visit.window.evaluate("navigator.clipboard.writeText('')")
    visit.window.get_by_role("button", name=button).click()
    visit.window.wait_for_function("async () => (await navigator.clipboard.readText()) !== ''")
    return str(visit.window.evaluate("navigator.clipboard.readText()"))


def test_an_example(visit: Visit, model: Florence2) -> None:
    visit.find("examples", "button").last.click()
    visit.find("picture", "img").wait_for()
    picture = sorted(EXAMPLES.glob("*.png"))[-1]
    visit.run("\n".join(lines(model(str(picture), "od"))))


def test_a_picture_that_is_pasted(visit: Visit, model: Florence2) -> None:
    visit.window.evaluate(
        """async (bytes) => {
          const picture = new Blob([new Uint8Array(bytes)], { type: 'image/png' });
          await navigator.clipboard.write([new ClipboardItem({ 'image/png': picture })]);
        }""",
        list(SCENE.read_bytes()),
    )
    visit.window.get_by_label("Paste from clipboard").click()
    visit.find("picture", "img").wait_for()
    visit.run("\n".join(lines(model(str(SCENE), "od"))))


def test_what_is_wrong_is_told_as_text(visit: Visit, tmp_path: Path) -> None:
    """And the page goes on."""
    toast = visit.window.get_by_test_id("toast-body")
    visit.find("run").click()
    sync_api.expect(toast).to_contain_text("give a picture first")
    visit.give(SCENE)
    visit.choose(["region_to_ocr"])
    visit.write("region", "<b>bold</b>")
    visit.find("run").click()
    sync_api.expect(toast.last).to_contain_text("'<b>bold</b>' is not a region")


def test_a_region_that_is_typed_is_shown(visit: Visit) -> None:
    visit.give(SCENE)
    visit.choose(["region_to_ocr"])
    box = visit.window.locator("#region-box")
    visit.write("region", "10,20,60,50")
    outer, shown = visit.find("picture", "img").bounding_box(), box.bounding_box()
    with Image.open(SCENE) as picture:
        scale = min(outer["width"] / picture.width, outer["height"] / picture.height)
    assert shown["width"] == pytest.approx(50 * scale, abs=5)
    assert shown["height"] == pytest.approx(30 * scale, abs=5)
    visit.write("region", "10,20")
    sync_api.expect(box).to_be_hidden()
    visit.write("region", "10,20,60,50")
    visit.choose(["od"])
    sync_api.expect(box).to_be_hidden()
