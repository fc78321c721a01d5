"""Checkpoints that become models without torch, from folders and from the hub."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from florence_onnx import Florence2, FlorenceError, exporting, model_cache
from florence_onnx.assets.report import REPORT
from florence_onnx.checkpoints.finding import find_checkpoint
from florence_onnx.cli.program import main
from florence_onnx.engine import contract
from florence_onnx.errors import (
    FolderBusyError,
    ModelNotFoundError,
    OutputExistsError,
    PrecisionError,
)
from florence_onnx.hub import ANYHOW
from florence_onnx.skeletons import filling
from tests.helpers.checkpoints import native_weights, save_native, save_weights
from tests.helpers.exports import Exported
from tests.helpers.hub import COMMIT, Hub, serve_hub, use_empty_cache, use_hub
from tests.helpers.tiny import picture, run_python

NAME = "org/model"

WITHOUT_TORCH = """
import sys
from collections.abc import Iterator
from pathlib import Path

class Ban:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "onnx", "onnxscript", "safetensors"):
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Ban())
import numpy as np
from florence_onnx import Florence2, Task
from florence_onnx.cli.program import main
from florence_onnx.skeletons import filling

filling.SKELETONS, checkpoint, out = map(Path, sys.argv[1:])
assert main(["export", str(checkpoint), str(out)]) == 0
model = Florence2.load(out)
image = np.arange(64 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(64, 64, 3)
for task in Task:
    given = {"text": {"text": "cat"}, "region": {"region": (1, 2, 30, 40)}}.get(task.input_kind, {})
    print(task, model(image, task, max_new_tokens=8, **given).token_ids)
"""


@pytest.fixture(autouse=True)
def small_skeletons(skeletons: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "SKELETONS", skeletons)


@pytest.fixture
def hub(native: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serves the checkpoint; caches are empty."""
    use_empty_cache(monkeypatch, tmp_path / "hub")
    files = {path.name: path.read_bytes() for path in native.checkpoint.iterdir()}
    with serve_hub(NAME, files) as server:
        use_hub(monkeypatch, server.url)
        yield server


def ask(model: Florence2) -> tuple[int, ...]:
    return model(picture(3, 64, 64), "od", max_new_tokens=20).token_ids


def test_export_answers_as_the_traced_graphs_do(
    native: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(native.checkpoint), str(out)]) == 0
    printed = capsys.readouterr()
    assert "filling the graphs of the geometry square, without torch" in printed.err
    assert "from PyTorch" not in printed.out
    assert ask(Florence2.load(out)) == ask(Florence2.load(native.folder))
    report = json.loads((out / REPORT).read_text())
    assert report["skeleton"] == "square"
    assert set(report["versions"]) == {"python", "florence-onnx", "numpy"}
    assert report["parameters"] == native.report["parameters"]


def test_everything_without_torch(native: Exported, skeletons: Path, tmp_path: Path) -> None:
    arguments = (str(skeletons), str(native.checkpoint), str(tmp_path / "out"))
    result = run_python("-c", WITHOUT_TORCH, *arguments)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 16


def test_torch_can_be_asked_for(
    native: Exported,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("florence_onnx_export.exporter.trace_graphs", lambda *rest: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["export", str(native.checkpoint), str(tmp_path / "out"), "--with", "torch"])
    assert "tracing the graphs with torch, as --with torch asks" in capsys.readouterr().err


def test_verify_names_what_changed(
    native: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main(["export", str(native.checkpoint), str(out)])
    capsys.readouterr()
    assert main(["verify", str(out)]) == 0
    assert "files are as they were written" in capsys.readouterr().out
    data = out / f"{contract.graph_file(contract.ENCODER, 'fp32')}_data"
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    (out / "tokenizer.json").unlink()
    assert main(["verify", str(out)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["onnx/encoder_model.onnx_data: changed", "tokenizer.json: missing"]
    assert main(["verify", str(native.checkpoint)]) == 2
    capsys.readouterr()
    damaged: tuple[object, ...] = ({}, [], 3, {"config.json": None})
    for listed in damaged:
        (out / REPORT).write_text(json.dumps({"files": listed}))
        assert main(["verify", str(out)]) == 2
        assert "has no export_report.json that lists its files" in capsys.readouterr().err


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite(native: Exported, tmp_path: Path, value: float) -> None:
    checkpoint = save_native(native.model, tmp_path / "checkpoint", image_size=(64, 64))
    weights = {name: tensor.clone() for name, tensor in native_weights(native.model).items()}
    name = "model.language_model.encoder.layers.1.fc2.bias"
    weights[name][3] = value
    save_weights(weights, checkpoint)
    with pytest.raises(FlorenceError, match=rf"model\.safetensors: weight {name} is NaN or infin"):
        exporting.export(checkpoint, tmp_path / "out", lambda *rest: pytest.fail("it was made"))
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_the_hub_is_made_once(
    hub: Hub, native: Exported, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(Florence2.load(NAME)) == ask(Florence2.load(native.folder))
    assert f"making ONNX graphs of {NAME}" in capsys.readouterr().err
    count = len(hub.requests)
    monkeypatch.setattr(model_cache, "export", lambda *rest: pytest.fail("it was made again"))
    Florence2.load(NAME)
    assert len(hub.requests) == count
    with pytest.raises(PrecisionError, match=r"florence-onnx pull org/model --precision q8"):
        Florence2.load(NAME, precision="q8")


def test_a_made_model_needs_its_checkpoint_no_more(hub: Hub, tmp_path: Path) -> None:
    Florence2.load(NAME)
    count = len(hub.requests)
    for path in (tmp_path / "hub").rglob("model.safetensors"):
        path.unlink()
    Florence2.load(NAME)
    assert len(hub.requests) == count


def test_two_that_start_at_once_make_it_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    find_checkpoint(NAME)
    made = []
    both = threading.Barrier(2)
    export = exporting.export

    def counted(source: str, out: Path, write: exporting.WriteGraphs, **more: Any) -> None:
        def write_and_count(*given: object) -> dict[str, object]:
            made.append(out)
            return write(*given)  # type: ignore[arg-type]

        export(source, out, write_and_count, **more)

    monkeypatch.setattr(model_cache, "export", counted)
    folders = []

    def start() -> None:
        both.wait()
        folders.append(model_cache.make_model(NAME, ANYHOW))

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 1
    assert len(folders) == 2
    assert len(made) == 1


def test_a_file_in_a_made_models_place(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "hub-models" / "org--model" / f"{COMMIT}-{contract.VERSION}"
    folder.parent.mkdir(parents=True)
    folder.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=f"{COMMIT}-.* exists"):
        Florence2.load(NAME)
    assert folder.read_bytes() == b"mine"


def test_a_wait_is_told_once(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = iter([True, True, True, False])

    def wait(*given: Any, **more: Any) -> None:
        if next(busy):
            raise FolderBusyError("another process is writing")
        exporting.export(*given, **more)

    monkeypatch.setattr(model_cache, "export", wait)
    monkeypatch.setattr(model_cache, "_PAUSE", 0)
    model_cache.make_model(NAME, ANYHOW)
    printed = capsys.readouterr().err
    assert printed.count("making ONNX graphs") == printed.count("waiting for another") == 1


def test_pull_list_and_remove(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert capsys.readouterr().out.startswith("no models in ")
    assert main(["pull", NAME]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder == tmp_path / "hub-models" / "org--model" / f"{COMMIT}-{contract.VERSION}"
    assert main(["list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["model"] == NAME
    assert row["precisions"] == ["fp32"]
    assert main(["list"]) == 0
    assert capsys.readouterr().out.startswith(f"{NAME}  {COMMIT[:8]}  ")
    (folder / "notes.txt").write_text("mine")
    assert main(["remove", NAME]) == 0
    assert [path.name for path in folder.rglob("*")] == ["notes.txt"]
    (folder / "notes.txt").unlink()


def test_a_cache_in_no_home(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(model_cache.VARIABLE, "~nobody-of-this-name/models")
    assert main(["list"]) == 2
    assert "FLORENCE_ONNX_CACHE is '~nobody-of-this-name/models'" in capsys.readouterr().err


def test_removing_what_is_not_there(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelNotFoundError, match="no model of 'org/other' is in the cache"):
        model_cache.remove("org/other")
    assert main(["remove", "org/other"]) == 2


def test_a_geometry_of_its_own(
    original: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_empty_cache(monkeypatch, tmp_path / "hub")
    files = {path.name: path.read_bytes() for path in original.checkpoint.iterdir()}
    with serve_hub(NAME, files) as server:
        use_hub(monkeypatch, server.url)
        with pytest.raises(FlorenceError, match="has a geometry of its own, not that of square"):
            Florence2.load(NAME)
    assert not list((tmp_path / "hub-models").rglob("config.json"))
