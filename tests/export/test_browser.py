"""The page of docs/browser in a headless Chromium, with the demo model exported for it."""

import json
import shutil
from pathlib import Path

import pytest

from florence_onnx import Florence2
from florence_onnx.cli.program import main
from tests.helpers.browser import answer_of_page, chromium

ROOT = Path(__file__).parents[2]
PACKAGES = ROOT / "tests" / "node" / "node_modules"
PROGRAM = chromium()


@pytest.mark.skipif(
    PROGRAM is None or not PACKAGES.is_dir(),
    reason="Chromium or the packages of tests/node are not installed",
)
def test_the_page_answers_as_we_do(tmp_path: Path) -> None:
    assert PROGRAM is not None
    folder = tmp_path / "demo"
    checkpoint = str(ROOT / "tests" / "fixtures" / "demo")
    assert main(["export", checkpoint, str(folder), "--layout", "transformers.js"]) == 0
    picture = shutil.copy(ROOT / "docs" / "scene.png", tmp_path)
    folders = {"page": ROOT / "docs" / "browser", "npm": PACKAGES, "files": tmp_path}
    query = "npm={url}/npm/&model=/files/demo/&picture={url}/files/scene.png&task=<OD>"
    profile = tmp_path / "profile"
    status, answer = answer_of_page(PROGRAM, f"page/index.html?{query}", folders, profile)
    assert status == "Done.", status
    found = json.loads(answer)["answer"]
    ours = Florence2.load(folder, threads=1)(picture, "od", num_beams=1)
    # Its resize is another one, so a box may be a few bins off.
    assert sorted(found["labels"]) == sorted(d.label for d in ours.detections)
    boxes = sorted(tuple(box) for box in found["bboxes"])
    for box, detection in zip(boxes, sorted(d.box for d in ours.detections), strict=True):
        assert box == pytest.approx(detection, abs=0.02 * max(ours.image_size))
