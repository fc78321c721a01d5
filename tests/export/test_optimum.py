"""What ``optimum-cli`` writes with export/optimum-plugin installed, in an environment of its own.

``OPTIMUM_CLI`` is the path of the program; .ci/run makes the environment.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from florence_onnx import Florence2
from florence_onnx.checkpoints.checkpoint import read_checkpoint
from florence_onnx.cli.program import main
from florence_onnx.engine.layouts import MERGED, SPLIT, WITH_PAIR, Layout
from florence_onnx_export.verification import compare
from tests.export.test_transformers_js import TASKS, asked_of_client, needs_client
from tests.helpers.checkpoints import save_native, save_original
from tests.helpers.exports import SEED, SQUARE, WIDE
from tests.helpers.plain_checkpoints import original_arrays, save_json, save_plain
from tests.helpers.random_models import Geometry, make_model
from tests.helpers.tiny import picture

PROGRAM = os.environ.get("OPTIMUM_CLI")

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="OPTIMUM_CLI names no optimum-cli")

MADE: dict[str, tuple[Geometry, Callable[..., Path]]] = {
    "native": (SQUARE, save_native),
    "original": (WIDE, save_original),
}


def optimum(checkpoint: Path, out: Path, *options: str) -> tuple[int, str]:
    """The exit status of an export, and what it says, of which the last line is its error."""
    task = () if "--task" in options else ("--task", "image-text-to-text")
    command = [
        str(PROGRAM),
        "export",
        "onnx",
        "--model",
        str(checkpoint),
        *task,
        *options,
        str(out),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    return ended.returncode, ended.stderr


@pytest.fixture(scope="module", params=MADE)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in one of the formats, with pictures wider than high in the second."""
    geometry, save = MADE[request.param]
    folder = tmp_path_factory.mktemp(request.param) / "checkpoint"
    save(make_model(geometry, SEED), folder, image_size=geometry.image_size)
    if request.param == "original":  # Without this, transformers.js finds no layers.
        config = json.loads((folder / "config.json").read_text())
        config["text_config"]["model_type"] = "florence2_language"
        save_json(folder / "config.json", config)
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    """What ``optimum-cli`` makes of it, validated by itself."""
    out = checkpoint.parent / "model"
    status, said = optimum(checkpoint, out)
    assert status == 0, said
    assert "succeeded with the warning" not in said
    return out


def files(folder: Path, layout: Layout) -> set[str]:
    return {*map(str, layout.files((), "fp32").values())}


def found(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_holds_the_layout_of_the_hub(exported: Path) -> None:
    beside = {f"{name}.json" for name in ("config", "generation_config", "preprocessor_config")}
    beside |= {"tokenizer.json", "tokenizer_config.json", "export_report.json"}
    assert found(exported) == beside | files(exported, WITH_PAIR)
    assert {*SPLIT.graphs, *MERGED.graphs} == set(WITH_PAIR.graphs)
    report = json.loads((exported / "export_report.json").read_text())
    assert report["versions"]["optimum-onnx"].startswith("0.1.")
    assert main(["verify", str(exported)]) == 0


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    Image.fromarray(picture(1, 100, 64)).save(path)
    return path


def test_answers_are_those_of_transformers(checkpoint: Path, exported: Path, photo: Path) -> None:
    """Greedy and with beams, from the checkpoint's own weights."""
    answers = compare(Florence2.load(exported, threads=1), read_checkpoint(checkpoint), [photo])
    assert {answer.beams for answer in answers} == {1, 3}
    assert [answer for answer in answers if not answer.equal] == []
    assert len({answer.ours for answer in answers}) > 8


@needs_client
def test_transformers_js_gives_our_tokens(exported: Path, photo: Path, tmp_path: Path) -> None:
    told, ours = asked_of_client(exported, photo, tmp_path, TASKS, None)
    assert [told["ids"][task] for task in TASKS] == ours


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_plain(tmp_path_factory.mktemp("plain") / "checkpoint")


def test_without_the_merged_decoder_in_place_of_an_earlier_export(
    plain: Path, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    for options, layout in ((("--task", "auto"), WITH_PAIR), (("--no-post-process",), SPLIT)):
        status, said = optimum(plain, tmp_path / "model", *options)
        assert status == 0, said
        graphs = {name for name in found(tmp_path / "model") if name.endswith(".onnx")}
        assert graphs == files(tmp_path / "model", layout)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--dtype", "fp16"), "in fp32"),
        (("--monolith", "--task", "text-generation"), "image-text-to-text alone"),
    ],
)
def test_other_options_are_refused(
    plain: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    status, said = optimum(plain, tmp_path / "model", *options)
    assert (status, found(tmp_path)) == (1, set())
    assert said.startswith("optimum-cli: ") and words in said
    assert said.count("\n") == 1


def test_a_bad_checkpoint_and_a_file_in_the_way_are_one_line(tmp_path: Path) -> None:
    weights: dict[str, Any] = original_arrays()
    name = "image_projection"
    bad = save_plain(tmp_path / "bad", {**weights, name: np.full_like(weights[name], np.nan)})
    status, said = optimum(bad, tmp_path / "model")
    assert (status, said.splitlines()[-1].startswith("optimum-cli: ")) == (1, True)
    assert "NaN or infinite" in said and "Traceback" not in said
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("mine")
    status, said = optimum(bad, tmp_path / "model")
    assert status == 1, said
    assert "choose another folder" in said and "Traceback" not in said
    assert (tmp_path / "model/config.json").read_text() == "mine"


def test_other_models_are_left_to_optimum(tmp_path: Path) -> None:
    save_json(tmp_path / "config.json", {"model_type": "bart"})
    status, said = optimum(tmp_path, tmp_path / "model", "--task", "feature-extraction")
    assert status == 1
    assert "optimum-cli: " not in said and "model.safetensors" in said
