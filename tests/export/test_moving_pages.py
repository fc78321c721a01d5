"""The pages for those who come from transformers and transformers.js: both sides answer alike."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from florence_onnx.cli.program import main
from florence_onnx.locating import UNGROUNDED_WORDS
from florence_onnx.resolver import DEMO
from florence_onnx.tasks import AnswerKind
from tests.helpers.pages import DOCS, ROOT, blocks, page, run_snippet

CHECKPOINT = ROOT / "tests" / "fixtures" / "demo"
PACKAGES = ROOT / "tests" / "node" / "node_modules"
TRANSFORMERS, TRANSFORMERS_JS = page("from-transformers.md"), page("from-transformers-js.md")


def save_photo(folder: Path) -> int:
    """Saves the scene under the name that the pages have; gives the longer side in pixels."""
    with Image.open(DOCS / "scene.png") as scene:
        scene.convert("RGB").save(folder / "photo.jpg", quality=95)
        return max(scene.size)


def test_from_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = blocks(TRANSFORMERS, "python")
    name = "florence-community/Florence-2-base-ft"
    answers: list[object] = []
    for snippet, folder in ((theirs, CHECKPOINT), (ours, DEMO)):
        place = tmp_path / str(len(answers))
        shutil.copytree(folder, place / name)
        save_photo(place)
        monkeypatch.chdir(place)
        # The released checkpoints bring it.
        parsing: dict[str, object] = {kind.value: {} for kind in AnswerKind}
        parsing[AnswerKind.GROUNDING.value] = {"banned_grounding_tokens": sorted(UNGROUNDED_WORDS)}
        config = {"processor_class": "Florence2Processor", "post_processor_config": parsing}
        (place / name / "processor_config.json").write_text(json.dumps(config))
        variables: dict[str, object] = {}
        run_snippet(snippet, "from-transformers.md", variables)
        answers.append(variables["answer"])
    answer = answers[0]
    assert isinstance(answer, dict) and len(answer["<OD>"]["labels"]) > 3
    assert answers[1] == answer


@pytest.mark.skipif(
    shutil.which("node") is None or not PACKAGES.is_dir(),
    reason="Node or the packages of tests/node are not installed",
)
def test_from_transformers_js(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (theirs,), (ours,) = blocks(TRANSFORMERS_JS, "js"), blocks(TRANSFORMERS_JS, "python")
    folder = tmp_path / "onnx-community" / "Florence-2-base-ft"
    assert main(["export", str(CHECKPOINT), str(folder), "--layout=transformers.js"]) == 0
    longest = save_photo(tmp_path)
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
