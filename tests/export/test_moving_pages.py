"""The pages for those who come from transformers and transformers.js: both sides answer alike."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from florence_onnx.cli.program import main
from tests.helpers.pages import ROOT, blocks, page, run_snippet

PACKAGES = ROOT / "tests" / "node" / "node_modules"
TRANSFORMERS, TRANSFORMERS_JS = page("from-transformers.md"), page("from-transformers-js.md")


def test_from_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = blocks(TRANSFORMERS, "python")
    answers = []
    for snippet, folder in ((theirs, CHECKPOINT), (ours, Path(demo.__file__).parent)):
        place = tmp_path / str(len(answers))
        (place / "florence-community").mkdir(parents=True)
        (place / "florence-community" / "Florence-2-base-ft").symlink_to(folder)
        save_photo(place)
        monkeypatch.chdir(place)
        variables: dict[str, object] = {}
        run_snippet(snippet, "from-transformers.md", variables)
        answers.append(variables["answer"])
    assert answers[0] == answers[1]
    assert isinstance(answers[0], dict) and answers[0]["<OD>"]


@pytest.mark.skipif(
    shutil.which("node") is None or not PACKAGES.is_dir(),
    reason="Node or the packages of tests/node are not installed",
)
def test_from_transformers_js(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (theirs,), (ours,) = blocks(TRANSFORMERS_JS, "js"), blocks(TRANSFORMERS_JS, "python")
    checkpoint = ROOT / "tests" / "fixtures" / "demo"
    name = "onnx-community/Florence-2-base-ft"
    assert main(["export", str(checkpoint), str(tmp_path / name), "--layout=transformers.js"]) == 0
    with Image.open(ROOT / "docs" / "scene.png") as scene:
        scene.convert("RGB").save(tmp_path / "photo.jpg", quality=95)
        longest = max(scene.size)
    (tmp_path / "node_modules").symlink_to(PACKAGES)
    local = "import { env } from '@huggingface/transformers';\nenv.allowRemoteModels = false;\n"
    (tmp_path / "page.mjs").write_text(f"{local}env.localModelPath = '{tmp_path}';\n{theirs}")
    monkeypatch.chdir(tmp_path)
    node = subprocess.run(["node", "page.mjs"], capture_output=True, text=True, timeout=300)
    assert node.returncode == 0, node.stderr
    capsys.readouterr()
    run_snippet(ours, "from-transformers-js.md", {})
    found = json.loads(node.stdout)["<OD>"]
    answer = json.loads(capsys.readouterr().out)["<OD>"]
    assert sorted(found["labels"]) == sorted(answer["labels"]) != []
    # Its resize is another one, so a box may be a few bins off.
    for box, other in zip(sorted(found["bboxes"]), sorted(answer["bboxes"]), strict=True):
        assert box == pytest.approx(other, abs=0.02 * longest)
