"""The commands of docs/export.md run as they stand."""

from pathlib import Path

import pytest
from PIL import Image

from florence_onnx.cli.program import main
from florence_onnx.skeletons import filling
from tests.helpers.checkpoints import save_original
from tests.helpers.exports import Exported
from tests.helpers.hub import serve_hub, use_empty_cache, use_hub
from tests.helpers.pages import commands, page
from tests.helpers.tiny import picture

COMMANDS = commands(page("export.md"))
ROUGH = ("quantize",)
"""Commands whose bound on the error random weights do not keep."""


def test_the_commands_run(
    native: Exported,
    skeletons: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_original(native.model, tmp_path / "checkpoint")
    Image.fromarray(picture(7, 200, 240)).save(tmp_path / "photo.jpg")
    files = {path.name: path.read_bytes() for path in (tmp_path / "checkpoint").iterdir()}
    monkeypatch.chdir(tmp_path)
    use_empty_cache(monkeypatch, tmp_path / "cache")
    monkeypatch.setattr(filling, "SKELETONS", skeletons)
    with serve_hub("microsoft/Florence-2-base", files) as hub:
        use_hub(monkeypatch, hub.url)
        for words in COMMANDS:
            rough = ["--accept-error"] if words[1] in ROUGH else []
            assert main([*words[1:], *rough]) == 0, words
            assert capsys.readouterr().out, words
    assert {words[1] for words in COMMANDS} >= {"export", "verify", "quantize", "pull", "remove"}
