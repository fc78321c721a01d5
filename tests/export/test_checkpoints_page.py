"""The commands of docs/checkpoints.md run as they stand, and its lists are those of the code."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from florence_onnx.cli.program import main
from florence_onnx.generation.settings import UNSAID, notes
from tests.helpers.exports import Exported
from tests.helpers.hub import serve_hub, use_empty_cache, use_hub
from tests.helpers.pages import commands, page
from tests.helpers.plain_checkpoints import original_arrays, save_arrays, save_json, save_plain
from tests.helpers.tiny import change_json, picture

PAGE = page("checkpoints.md")
Capture = pytest.CaptureFixture[str]


def named(name: str) -> list[list[str]]:
    return [words[1:] for words in commands(PAGE) if words[1] == name]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with what the commands name, and a hub."""
    base = save_plain(tmp_path / "base")
    save_plain(tmp_path / "fine-tune")
    (tmp_path / "weights").mkdir()
    save_arrays(tmp_path / "weights" / "captioner.safetensors", original_arrays())
    icons = save_plain(tmp_path / "icons", tokenizer=False)
    (tmp_path / "adapter").mkdir()
    save_json(tmp_path / "adapter" / "adapter_config.json", {"peft_type": "LORA", "lora_alpha": 8})
    module = "base_model.model.language_model.model.decoder.layers.0.fc1"
    factors = {
        f"{module}.lora_A.weight": np.ones((2, 16), np.float32),
        f"{module}.lora_B.weight": np.ones((32, 2), np.float32),
    }
    save_arrays(tmp_path / "adapter" / "adapter_model.safetensors", factors)
    monkeypatch.chdir(tmp_path)
    use_empty_cache(monkeypatch, tmp_path / "hub")
    files = {f"icon_caption/{path.name}": path.read_bytes() for path in icons.iterdir()}
    with serve_hub("org/parser", files) as hub:
        hub.others["org/base"] = {path.name: path.read_bytes() for path in base.iterdir()}
        use_hub(monkeypatch, hub.url)
        yield tmp_path


@pytest.mark.usefixtures("place")
def test_the_doctors_commands(capsys: Capture) -> None:
    assert len(named("doctor")) == 4
    for command in named("doctor"):
        assert main(command) == 0, command
        out = capsys.readouterr().out
        if "--json" in command:
            assert json.loads(out)["exportable"]
        else:
            assert out.endswith("it can be exported\n")


def test_the_comparison(
    native: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    shutil.copytree(native.folder, tmp_path / "model")
    change_json(tmp_path / "model" / "generation_config.json", lambda c: c.update(max_new_tokens=5))
    (tmp_path / "checkpoint").symlink_to(native.checkpoint)
    Image.fromarray(picture(1, 50, 60)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    (command,) = named("verify")
    assert main(command) == 0
    assert "| all | 15 of 15 | 15 of 15 |" in capsys.readouterr().out


def test_the_settings_that_are_followed() -> None:
    section = PAGE.partition("token for token:")[2].partition(", and the ids")[0]
    assert set(re.findall(r"`(\w+)`", section)) == {name for name in UNSAID if not notes({name: 7})}
