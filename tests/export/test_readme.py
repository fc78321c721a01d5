"""The README's commands and snippets run as they stand."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from florence_onnx.cli import main
from helpers.checkpoints import GEOMETRY, save_original
from helpers.hub import serve_hub, use_empty_cache, use_hub
from helpers.random_models import make_model
from helpers.tiny import picture

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("florence-onnx ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a photo, and a hub that serves a checkpoint in Microsoft's format."""
    folder = tmp_path_factory.mktemp("readme")
    Image.fromarray(picture(3, 200, 240)).save(folder / "photo.jpg")
    save_original(make_model(GEOMETRY, seed=5), folder / "checkpoint")
    return folder


def test_commands_then_snippets(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    files = {p.name: p.read_bytes() for p in (folder / "checkpoint").iterdir()}
    use_empty_cache(monkeypatch, folder / "cache")
    with serve_hub("microsoft/Florence-2-base", files) as hub:
        use_hub(monkeypatch, hub.url)
        assert len(commands()) >= 5
        for command in commands():
            assert main(command) == 0, command
            assert capsys.readouterr().out, command
    assert len(blocks("python")) >= 2
    for snippet in blocks("python"):
        exec(compile(snippet, "README.md", "exec"), {})  # noqa: S102
