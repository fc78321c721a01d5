"""The README's commands and snippets run as they stand."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from florence_onnx.cli.options import default_model
from florence_onnx.cli.program import main
from florence_onnx.skeletons import filling
from tests.helpers.checkpoints import save_original
from tests.helpers.exports import Exported
from tests.helpers.hub import serve_hub, use_empty_cache, use_hub
from tests.helpers.pages import ROOT, blocks, commands, copy_docs, page, run_snippet
from tests.helpers.tiny import picture

RELEASED = "microsoft/Florence-2-base"
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [words for words in commands(README) if words[0] != "pytest"]


def run(words: list[str]) -> int:
    """Runs a command in this process; of a training, two steps."""
    assert words[0] == "florence-onnx", words
    return main([*words[1:], *(["--steps", "2"] if words[1] == "train" else [])])


@pytest.fixture(scope="module")
def folder(native: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone's pictures, a photo to ask and learn about, a checkpoint in Microsoft's format."""
    folder = tmp_path_factory.mktemp("readme")
    Image.fromarray(picture(7, 200, 240)).save(folder / "photo.jpg")
    copy_docs(folder)
    for name in ("train.jsonl", "held-out.jsonl"):
        (folder / name).write_text(blocks(README, "json")[0])
    save_original(native.model, folder / "checkpoint")
    return folder


def test_commands_then_snippets(
    folder: Path,
    native: Exported,
    skeletons: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    printed = {}
    files = {p.name: p.read_bytes() for p in (folder / "checkpoint").iterdir()}
    use_empty_cache(monkeypatch, folder / "cache")
    monkeypatch.setattr(filling, "SKELETONS", skeletons)
    monkeypatch.delenv("FLORENCE_ONNX_MODEL", raising=False)
    with serve_hub(RELEASED, files) as hub:
        hub.others[default_model()] = {
            path.name: path.read_bytes() for path in native.checkpoint.iterdir()
        }
        use_hub(monkeypatch, hub.url)
        assert len(COMMANDS) >= 5
        for command in COMMANDS:
            assert run(command) == 0, command
            printed[shlex.join(command)] = capsys.readouterr().out
    silent = [command for command, output in printed.items() if not output]
    # Two steps of training log nothing.
    assert [command for command in silent if " train " not in command] == []
    assert COMMANDS[0] == ["florence-onnx", "run", "photo.jpg", "--task", "od"]
    (demo,) = (output for command, output in printed.items() if "--model demo" in command)
    assert blocks(README, "console")[0] == demo
    assert blocks(page("index.md"), "console") == [demo]
    assert len(blocks(README, "python")) >= 2
    for snippet in blocks(README, "python"):
        run_snippet(snippet, "README.md", {})


def test_the_architecture_names_what_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"[a-z_]+/(?:[a-z_]+/)*(?:[a-z_]+\.py)?|[a-z_]+\.py", text)
    files = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py")]
    assert {"engine/contract.py", "answering.py", "florence_onnx/cli/"} <= set(named)
    for name in named:
        assert any(f"/{name}" in f"/{path}" for path in files) or (ROOT / name).is_dir(), name
