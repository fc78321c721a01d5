"""Graphs whose weights lie in a file of their own."""

import json
from pathlib import Path

import onnx
import pytest

from florence_onnx import Florence2
from florence_onnx.cli.program import main
from florence_onnx.engine import contract
from florence_onnx.engine.layouts import SLOTS
from florence_onnx.errors import ModelFileError
from florence_onnx_export.graphs import files as graph_files
from florence_onnx_export.graphs.files import save_graph
from florence_onnx_export.quantization import quantize
from tests.helpers.tiny import TINY, copy_tiny, picture


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model with weights beside its graphs, as large models have them."""
    monkeypatch.setattr(graph_files, "LARGE", 0)
    folder = copy_tiny(tmp_path)
    for graph in contract.GRAPHS:
        path = folder / contract.graph_file(graph, "fp32")
        save_graph(onnx.load(str(path)), path)
    return folder


def parts(folder: Path, precision: str) -> list[str]:
    return [
        path.name for graph in contract.GRAPHS for path in SLOTS.parts(folder, graph, precision)
    ]


def test_small_graphs_are_one_file(tmp_path: Path) -> None:
    model = onnx.load(str(TINY / contract.graph_file(contract.ENCODER, "fp32")))
    save_graph(model, tmp_path / "encoder.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.onnx"]


def test_weights_apart_give_the_same_answers(apart: Path) -> None:
    assert len(parts(apart, "fp32")) == 2 * len(contract.GRAPHS)
    assert (apart / "onnx/vision_encoder.onnx").stat().st_size < 1e5
    plain, split = (
        Florence2.load(folder, threads=1)(picture(0), "od", max_new_tokens=8)
        for folder in (TINY, apart)
    )
    assert plain == split


def test_saving_again_replaces_the_weights(apart: Path) -> None:
    path = apart / contract.graph_file(contract.DECODER, "fp32")
    before = path.with_name(f"{path.name}_data").read_bytes()
    save_graph(onnx.load(str(path)), path)
    assert path.with_name(f"{path.name}_data").read_bytes() == before


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_damaged_weights_are_named(apart: Path, damage: str) -> None:
    data = apart / "onnx/encoder_model.onnx_data"
    content = data.read_bytes()
    data.unlink() if damage == "missing" else data.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelFileError, match=r"encoder_model\.onnx is not a graph .*"):
        Florence2.load(apart)


def test_quantising_reads_writes_and_replaces_them(
    apart: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = quantize.quantize(apart, ["q8"], accept_error=True)["q8"]
    assert sorted(entry["bytes"]) == sorted(parts(apart, "q8"))
    assert len(parts(apart, "q8")) == 2 * len(contract.GRAPHS)
    answer = Florence2.load(apart, precision="q8")(picture(0), "od", max_new_tokens=8)
    monkeypatch.setattr(graph_files, "LARGE", 1 << 24)
    again = quantize.quantize(apart, ["q8"], force=True, accept_error=True)["q8"]
    assert sorted(again["bytes"]) == sorted(parts(apart, "q8"))
    assert len(parts(apart, "q8")) == len(contract.GRAPHS), "no stale weights are left"
    assert Florence2.load(apart, precision="q8")(picture(0), "od", max_new_tokens=8) == answer


def test_info_counts_them(apart: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(apart), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["bytes"]
    for graph, size in shown.items():
        assert size == sum(path.stat().st_size for path in SLOTS.parts(apart, graph, "fp32"))
