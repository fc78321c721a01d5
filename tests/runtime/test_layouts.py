"""Which file is which graph, by the names of a folder's files."""

import shutil
from pathlib import Path

import pytest

from florence_onnx import Florence2
from florence_onnx.engine import contract
from florence_onnx.engine.layouts import SLOTS, graph_files
from florence_onnx.engine.present import present_precisions
from florence_onnx.errors import GraphContractError, ModelFileError, PrecisionError
from florence_onnx.resolver import resolve
from tests.helpers.hub import serve_hub, use_empty_cache, use_hub
from tests.helpers.tiny import TINY, aged, copy_tiny, picture

CPU = "CPUExecutionProvider"
NAME = "someone/Florence-2-tiny"
DECODER = "onnx/decoder_with_past_slots.onnx"
FORMER = "onnx/decoder_with_past_model.onnx"
ALL = {*SLOTS.files((), "fp32").values()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model as it was written before its decoder got a name of its own."""
    return aged(copy_tiny(tmp_path))


def test_the_decoder_has_a_name_that_no_graph_of_the_hub_has() -> None:
    assert graph_files(TINY) == ALL
    assert contract.graph_file(contract.DECODER, "fp32") == DECODER
    assert contract.graph_file(contract.DECODER, "q8") == DECODER[:-5] + "_quantized.onnx"


# Its former name


def test_a_folder_with_the_former_name_opens(folder: Path) -> None:
    providers = {contract.DECODER: [CPU], "*": [CPU]}
    model = Florence2.load(folder, providers=providers, threads=1)
    assert model.graphs.files[contract.DECODER] == FORMER
    assert model.providers == {graph: [CPU] for graph in contract.GRAPHS}
    request = (picture(1), "od")
    assert model(*request, max_new_tokens=8) == Florence2.load(TINY)(*request, max_new_tokens=8)
    assert present_precisions(folder) == ["fp32"]


def test_the_present_name_comes_first(folder: Path) -> None:
    (folder / FORMER).write_bytes(b"not a graph")
    with pytest.raises(ModelFileError, match=r"decoder_with_past_model\.onnx is not a graph"):
        Florence2.load(folder)
    shutil.copy(TINY / DECODER, folder / DECODER)
    assert Florence2.load(folder).graphs.files[contract.DECODER] == DECODER


def test_every_precision_has_names_of_its_own(folder: Path) -> None:
    for name in SLOTS.files((), "q8").values():
        shutil.copy(TINY / contract.graph_file(contract.DECODER, "fp32"), folder / name)
    assert present_precisions(folder) == ["fp32", "q8"]
    (folder / FORMER).rename(folder / FORMER.replace(".onnx", "_q4.onnx"))
    assert present_precisions(folder) == ["q8"]


@pytest.mark.parametrize("name", ["decoder_model", "decoder_model_merged", "decoder_model_q4"])
def test_where_the_hubs_graphs_are_the_former_name_is_theirs(folder: Path, name: str) -> None:
    (folder / f"onnx/{name}.onnx").touch()
    assert SLOTS.precisions(graph_files(folder)) == []
    with pytest.raises(ModelFileError, match=r"onnx/decoder_model\w*\.onnx is (not a g|missing)"):
        Florence2.load(folder)


def test_a_decoder_of_the_hub_alone_is_not_taken_for_ours(folder: Path) -> None:
    path = folder / FORMER
    path.write_bytes(path.read_bytes().replace(b"cache_slots", b"other_input"))
    with pytest.raises(GraphContractError, match=r"past_model\.onnx has no input cache_slots; it"):
        Florence2.load(folder)


def test_weights_beside_a_graph_keep_its_name(folder: Path) -> None:
    (folder / f"{FORMER}_data").touch()
    parts = SLOTS.parts(folder, contract.DECODER, "fp32")
    assert parts == [folder / FORMER, folder / f"{FORMER}_data"]


# On the hub


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_repository_with_the_former_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = contents(folder) | {f"{FORMER}_data": b"weights", "onnx/notes_data": b"others'"}
    use_empty_cache(monkeypatch, tmp_path / "cache")
    with serve_hub(NAME, files) as hub:
        use_hub(monkeypatch, hub.url)
        found = resolve(NAME)
        assert graph_files(found) == {*ALL - {DECODER}, FORMER, f"{FORMER}_data"}
        asked = len(hub.fetched)
        assert resolve(NAME) == found
        assert len(hub.fetched) == asked
    assert Florence2.load(NAME).graphs.files[contract.DECODER] == FORMER


def test_a_repository_in_the_hubs_layout(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = contents(folder) | {
        "onnx/decoder_model_merged.onnx": b"graph",
        "onnx/decoder_model_merged_q4.onnx": b"graph",
        "onnx/decoder_model_merged_q4.onnx_data_1": b"weights",
        "onnx/vision_encoder_fp16.onnx": b"graph",
    }
    use_empty_cache(monkeypatch, tmp_path / "cache")
    with serve_hub(NAME, files) as hub:
        use_hub(monkeypatch, hub.url)
        found = resolve(NAME)
        merged = "onnx/decoder_model_merged.onnx"
        assert graph_files(found) == {*ALL - {DECODER}, merged}, "not those of other precisions"
        wanted = {"vision_encoder": "fp32", "decoder_model_merged": "q4"}
        assert resolve(NAME, precision=wanted) == found
        fourbit = "onnx/decoder_model_merged_q4.onnx"
        assert graph_files(found) == {*ALL - {DECODER}, merged, fourbit, f"{fourbit}_data_1"}
        with pytest.raises(PrecisionError, match=r"no graphs of precision 'bnb4'.* it has fp32$"):
            resolve(NAME, precision="bnb4")
