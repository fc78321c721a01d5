"""Answers of a model folder compared with those of transformers, and the table of it."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from florence_onnx import Florence2
from florence_onnx.checkpoints.checkpoint import read_checkpoint
from florence_onnx.cli.program import main
from florence_onnx.tasks import Task
from florence_onnx_export.verification import compare
from tests.helpers.checkpoints import GEOMETRY, save_native, save_original
from tests.helpers.exports import Exported
from tests.helpers.random_models import make_model
from tests.helpers.tiny import change_json, picture

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(native: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared export with short answers."""
    folder = tmp_path_factory.mktemp("verified") / "model"
    shutil.copytree(native.folder, folder)
    change_json(folder / "generation_config.json", lambda c: c.update(max_new_tokens=6))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    place = tmp_path_factory.mktemp("photos")
    paths = [place / name for name in ("a.png", "b.png")]
    for seed, path in enumerate(paths):
        Image.fromarray(picture(seed, 40 + 20 * seed, 60)).save(path)
    return [str(path) for path in paths]


def test_an_export_answers_as_transformers(
    native: Exported, folder: Path, photos: list[str], capsys: Capture
) -> None:
    command = ["verify", str(folder), "--against", str(native.checkpoint), "--image", *photos]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "token for token; 2 pictures, onnxruntime " in lines[0]
    assert lines[2:4] == ["| task | greedy | 3 beams |", "|---|---|---|"]
    assert len(lines) == 4 + len(Task) + 1
    assert "| `<CAPTION>` | 2 of 2 | 2 of 2 |" in lines
    total = 2 * len(Task)
    assert lines[-1] == f"| all | {total} of {total} | {total} of {total} |"


def test_another_checkpoint_of_the_geometry_answers_otherwise(
    native: Exported, folder: Path, photos: list[str], tmp_path: Path, capsys: Capture
) -> None:
    """In Microsoft's format, of which transformers' model has another token for the picture."""
    other = save_original(make_model(native.geometry, seed=8), tmp_path / "other")
    command = ["verify", str(folder), "--against", str(other), "--image", photos[0], "--json"]
    assert main(command) == 1
    compared = json.loads(capsys.readouterr().out)
    assert compared["tasks"]["<OD>"]["greedy"] == {"equal": 0, "answers": 1}
    assert compared["pictures"] == [photos[0]]
    assert {"onnxruntime", "torch", "transformers"} == compared["versions"].keys()
    different = compared["differences"][0]
    assert different["florence_onnx"] != different["transformers"]
    assert 0 < different["first_difference"] < 7
    assert main(command[:-1]) == 1
    assert "- <CAPTION>, a.png, greedy: from token " in capsys.readouterr().out


def test_both_searches_are_compared(native: Exported, folder: Path, photos: list[str]) -> None:
    model = Florence2.load(folder)
    answers = compare(model, read_checkpoint(native.checkpoint), [Path(photos[0])])
    greedy, beams = answers[::2], answers[1::2]
    assert {one.beams for one in greedy} == {1}
    assert {one.beams for one in beams} == {3}
    assert any(one.ours != two.ours for one, two in zip(greedy, beams, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "{checkpoint}"], "name some with --image"),
        (["--image", "photo.jpg"], "--image goes with --against"),
        (["--precision", "q4"], "--precision goes with --against"),
        (["--companions", "nowhere"], "--companions goes with --against"),
        (["--local-files-only"], "--local-files-only goes with --against"),
        (["--against", "{checkpoint}", "--image", "nothing.png"], "nothing.png"),
        (["--against", "{checkpoint}", "--image", "{photo}", "{checkpoint}"], "Is a directory"),
        (
            ["--against", "{checkpoint}", "--image", "{photo}", "--precision", "vision_encoder=q4"],
            "vision_encoder_q4.onnx is missing",
        ),
        (["--against", "nowhere", "--image", "nothing.png"], "'nowhere' is not an existing folder"),
    ],
)
def test_what_is_asked_wrongly(
    native: Exported,
    folder: Path,
    photos: list[str],
    arguments: list[str],
    message: str,
    capsys: Capture,
) -> None:
    filled = [part.format(checkpoint=native.checkpoint, photo=photos[0]) for part in arguments]
    assert main(["verify", str(folder), *filled]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "asking" not in err
    assert message in err.splitlines()[-1]


def test_a_damaged_checkpoint_is_blamed(
    native: Exported, folder: Path, photos: list[str], tmp_path: Path, capsys: Capture
) -> None:
    model = make_model(native.geometry, seed=8)
    name = "model.multi_modal_projector.image_projection.weight"
    model.state_dict()[name][0, 0] = float("nan")
    other = save_native(model, tmp_path / "other", image_size=native.geometry.image_size)
    assert main(["verify", str(folder), "--against", str(other), "--image", photos[0]]) == 2
    assert f"weight {name} is NaN or infinite" in capsys.readouterr().err


def test_a_folder_of_another_geometry(
    folder: Path, photos: list[str], tmp_path: Path, capsys: Capture
) -> None:
    other = save_original(make_model(GEOMETRY, seed=1), tmp_path / "other")
    change_json(
        other / "config.json", lambda content: content["vision_config"].update(window_size=3)
    )
    command = ["verify", str(folder), "--against", str(other), "--image", *photos]
    assert main(command) == 2
    assert "have different geometries" in capsys.readouterr().err
