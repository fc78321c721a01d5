"""Folders in the hub's layout against transformers' generate: the same tokens."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from florence_onnx import Florence2
from florence_onnx.assets.writing import write_assets
from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.cli.program import main
from florence_onnx.engine import hub_contract
from florence_onnx.engine.layouts import MERGED
from florence_onnx.errors import GraphContractError, ModelFileError, PrecisionError
from florence_onnx.resolver import DEMO
from florence_onnx_export.quantization.quantize import quantize
from tests.export.test_end_to_end import LONGEST, OPTIONS, generated, requests
from tests.helpers.checkpoints import save_native
from tests.helpers.exports import SEED, SQUARE, Exported
from tests.helpers.hub import serve_hub, use_empty_cache, use_hub
from tests.helpers.hub_layout import write_hub_layout
from tests.helpers.random_models import make_model
from tests.helpers.tiny import TINY


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """All six graphs, in fp32 and fp16; not to be changed."""
    place = tmp_path_factory.mktemp("hub")
    model, checkpoint, folder = make_model(SQUARE, SEED), place / "checkpoint", place / "model"
    save_native(model, checkpoint, image_size=SQUARE.image_size)
    for suffix in ("", "_fp16"):
        write_hub_layout(model, folder, SQUARE.image_size, suffix)
    config = json.loads((checkpoint / "config.json").read_text())
    write_assets(checkpoint, ModelConfig.from_dict(config), config, folder)
    return Exported(model, SQUARE, checkpoint, folder, {}, [])


def without(exported: Exported, folder: Path, *graphs: str) -> Path:
    """A folder of links to the files of the model, but for some graphs."""
    (folder / "onnx").mkdir(parents=True)
    for path in exported.folder.rglob("*"):
        if path.is_file() and path.stem not in graphs:
            (folder / path.relative_to(exported.folder)).symlink_to(path)
    return folder


@pytest.fixture(scope="module", params=["merged", "split"])
def model(
    exported: Exported, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Florence2:
    absent = "decoder_model_merged" if request.param == "split" else ""
    return Florence2.load(without(exported, tmp_path_factory.mktemp("o") / "m", absent), threads=1)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_task_gives_the_tokens_of_transformers(
    exported: Exported, model: Florence2, options: dict[str, Any]
) -> None:
    found = model.run(requests(), max_new_tokens=LONGEST, **options)
    for request, result in zip(requests(), found, strict=True):
        expected = generated(exported, model, request, options)
        ours = [result, *result.alternatives]
        assert [answer.token_ids for answer in ours] == [ids for ids, _ in expected], request.task
        for answer, (_, score) in zip(ours, expected, strict=True):
            if score is not None:
                # Sums of 70 float32 log-probabilities.
                assert answer.score == pytest.approx(score, abs=1e-4)


def tokens(model: Florence2, batch_size: int = 8) -> list[tuple[int, ...]]:
    found = model.run(requests(), max_new_tokens=LONGEST, batch_size=batch_size)
    return [result.token_ids for result in found]


def test_one_by_one_and_encoded_once(model: Florence2) -> None:
    """Rows of a request alone share the cache of the cross-attention."""
    decoder: Any = model.graphs.decoder
    assert (decoder.shares(1), decoder.shares(2)) == (True, False)
    expected = tokens(model)
    assert tokens(model, batch_size=1) == expected
    first = requests()[0]
    encoded = model.encode(first.image)  # type: ignore[arg-type]
    assert model(encoded, first.task, max_new_tokens=LONGEST).token_ids == expected[0]


def test_beams_of_a_request_share_one_copy_of_the_cross_attention(model: Florence2) -> None:
    for count, copies in ((1, 1), (2, 6)):
        ids = np.tile(np.arange(3, 9), (count, 1))
        requests, beams = np.arange(count), np.repeat(np.arange(count), 3)
        steps: Any = model.graphs.decoder.start(np.ones_like(ids), model.graphs.embed(ids))
        steps(np.full(count, 2), requests, requests)
        for rows in (beams, np.arange(3 * count)):
            steps(np.full(3 * count, 5), rows, requests)
        assert {value.shape()[0] for value in steps._cross} == {copies}
        assert {value.shape()[0] for value in steps._own} == {3 * count}


def test_a_graph_that_does_not_share(model: Florence2, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tokens(model, batch_size=1)
    for name in ("_shares_of_many", "_shares_of_one"):
        monkeypatch.setitem(vars(model.graphs.decoder), name, False)
    assert tokens(model, batch_size=1) == expected


def test_float16_tensors(exported: Exported) -> None:
    """Random weights have no sure answers, so near ones count: most tokens are the same."""
    model = Florence2.load(exported.folder, threads=1)
    half = Florence2.load(exported.folder, precision="fp16", threads=1)
    assert half.graphs.sessions["decoder_model_merged"].get_inputs()[1].type == "tensor(float16)"
    same = [a == b for a, b in zip(tokens(model), tokens(half), strict=True)]
    assert sum(same) > len(same) / 2


@pytest.mark.parametrize("precision", hub_contract.SUFFIXES)
def test_the_suffix_of_every_precision(exported: Exported, tmp_path: Path, precision: str) -> None:
    """The graphs are the float32 ones: what is in a file is not told by its name."""
    folder = without(exported, tmp_path / "m")
    for path in (folder / "onnx").iterdir():
        path.unlink()
    names = MERGED.files((), precision)
    for graph, name in names.items():
        (folder / name).symlink_to(exported.folder / f"onnx/{graph}.onnx")
    model = Florence2.load(folder, precision=precision, threads=1)
    assert model.precision == precision
    assert model.graphs.files == names
    suffix = {"fp32": "", "q8": "_quantized"}.get(precision, f"_{precision}")
    assert names["embed_tokens"] == f"onnx/embed_tokens{suffix}.onnx"


def test_the_precision_of_the_merged_decoder_is_that_of_the_pair(
    exported: Exported, tmp_path: Path
) -> None:
    merged = "decoder_model_merged"
    folder = without(exported, tmp_path / "m", merged, f"{merged}_fp16")
    model = Florence2.load(folder, precision={merged: "fp16"}, threads=1)
    assert list(model.graphs.precisions.values()) == ["fp32"] * 3 + ["fp16"] * 2


@pytest.mark.parametrize("absent", ["", "decoder_model_merged"])
def test_a_precision_per_graph(exported: Exported, tmp_path: Path, absent: str) -> None:
    precision = {"vision_encoder": "fp16", "decoder_with_past_model": "fp16", "*": "fp32"}
    model = Florence2.load(
        without(exported, tmp_path / "m", absent), precision=precision, threads=1
    )
    assert model.precision == "fp16+fp32"
    assert model.graphs.files["vision_encoder"] == "onnx/vision_encoder_fp16.onnx"
    assert model.graphs.files["embed_tokens"] == "onnx/embed_tokens.onnx"
    assert len(set(tokens(model))) > 3


def replaced(exported: Exported, folder: Path, graph: str, content: bytes) -> Path:
    """The model with another file of a graph, and no pair to fall back on."""
    pair = () if graph == "decoder_with_past_model" else ("decoder_model",)
    without(exported, folder, graph, *pair)
    (folder / f"onnx/{graph}.onnx").write_bytes(content)
    return folder


def changed(exported: Exported, graph: str, change: Callable[[Any], object]) -> bytes:
    model = onnx.load(exported.folder / f"onnx/{graph}.onnx")
    change(model.graph)
    return bytes(model.SerializeToString())


def declared(name: str, axis: int, size: int) -> Callable[[Any], None]:
    """Fixes the size of an input's axis."""

    def change(graph: Any) -> None:
        value = next(value for value in graph.input if value.name == name)
        value.type.tensor_type.shape.dim[axis].dim_value = size

    return change


def dropped(name: str) -> Callable[[Any], None]:
    """Makes an input a weight of the same name."""

    def change(graph: Any) -> None:
        value = next(value for value in graph.input if value.name == name)
        graph.input.remove(value)
        number = value.type.tensor_type.elem_type
        graph.initializer.append(onnx.helper.make_tensor(name, number, [1], [1]))

    return change


def foreign(graph: Any) -> None:
    graph.node[0].domain, graph.node[0].op_type = "com.microsoft", "NewOperator"


@pytest.mark.parametrize(
    ("graph", "change", "message"),
    [
        (
            "decoder_model_merged",
            dropped("use_cache_branch"),
            r"merged\.onnx has no input use_",
        ),
        (
            "encoder_model",
            foreign,
            r"encoder_model\.onnx needs the operator .*NewOperator, which .* precision: fp16$",
        ),
        (
            "encoder_model",
            declared("inputs_embeds", 0, 1),
            r"encoder_model.* axis batch must",
        ),
        ("vision_encoder", declared("pixel_values", 3, 96), r"takes pictures of 96x64 .* 64x64"),
    ],
)
def test_graphs_that_cannot_be_used(
    exported: Exported, tmp_path: Path, graph: str, change: Callable[[Any], object], message: str
) -> None:
    folder = replaced(exported, tmp_path / "m", graph, changed(exported, graph, change))
    with pytest.raises((GraphContractError, ModelFileError), match=message):
        Florence2.load(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer.*git lfs pull"),
        (b"<html>", r"encoder_model\.onnx.*; fetch or export the file again$"),
        (b"", r"encoder_model\.onnx.*; fetch or export the file again$"),
        (b"\x0a\x7fhalf", r"encoder_model\.onnx.*; fetch or export the file again$"),
    ],
)
def test_files_that_are_no_graphs(
    exported: Exported, tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(ModelFileError, match=message):
        Florence2.load(replaced(exported, tmp_path / "m", "encoder_model", content))


def test_a_graph_of_another_model(exported: Exported, tmp_path: Path) -> None:
    content = (DEMO / "onnx/embed_tokens.onnx").read_bytes()
    with pytest.raises(GraphContractError, match="different models; hidden sizes"):
        Florence2.load(replaced(exported, tmp_path / "m", "embed_tokens", content))


def test_the_pair_where_the_merged_graph_does_not_load(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = without(exported, tmp_path / "m", "decoder_model_merged")
    (folder / "onnx/decoder_model_merged.onnx").write_bytes(b"damaged")
    model = Florence2.load(folder)
    assert list(model.graphs.files)[-2:] == ["decoder_model", "decoder_with_past_model"]
    assert "instead of one decoder: " in capsys.readouterr().err


def test_what_a_folder_has(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(PrecisionError, match=r"'q4' in .*; present: fp32, fp16$"):
        Florence2.load(exported.folder, precision="q4")
    with pytest.raises(PrecisionError, match=r"vision_encoder_q4\.onnx is missing"):
        Florence2.load(exported.folder, precision={"vision_encoder": "q4"})
    with pytest.raises(PrecisionError, match=r"decoder_model_merged_q4\.onnx is missing"):
        Florence2.load(exported.folder, precision={"decoder_model_merged": "q4"})
    with pytest.raises(PrecisionError, match=r"no graph of this model: 'vision'; use vision_enc"):
        Florence2.load(exported.folder, precision={"vision": "q4"})
    folder = without(exported, tmp_path / "m", "encoder_model", "encoder_model_fp16")
    with pytest.raises(ModelFileError, match=r"encoder_model\.onnx is missing"):
        Florence2.load(folder)


def test_a_vision_graph_for_one_picture(exported: Exported, tmp_path: Path) -> None:
    expected = tokens(Florence2.load(exported.folder, threads=1))
    content = changed(exported, "vision_encoder", declared("pixel_values", 0, 1))
    model = Florence2.load(replaced(exported, tmp_path / "m", "vision_encoder", content))
    assert tokens(model) == expected
    pictures = [model.assets.preprocessor(np.full((9, 9, 3), 80 * i, np.uint8)) for i in range(3)]
    assert model.graphs.image_features(np.stack(pictures)).shape[0] == 3


def test_quantising_is_refused(exported: Exported) -> None:
    with pytest.raises(PrecisionError, match=r"layout of transformers\.js"):
        quantize(exported.folder, ["q8"])


def test_both_layouts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "m"
    shutil.copytree(TINY, folder)
    (folder / "onnx/decoder_model_merged.onnx").write_bytes(b"not read")
    assert "decoder_with_past_slots" in Florence2.load(folder).graphs.files
    assert "two layouts; florence-onnx's own are opened" in capsys.readouterr().err


# What a graph does not say


def symbolic(graph: Any) -> None:
    """Names every axis that has a size, but for the colours and the switch."""
    for value in (*graph.input, *graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_value > 3:
                dim.dim_param = f"{value.name}_{axis}"


def rewritten(
    exported: Exported, folder: Path, changes: Mapping[str, Callable[[Any], object]]
) -> Path:
    """The model with changed graphs, and without those whose names are not in ``changes``."""
    others = {"decoder_model", "decoder_model_merged", "decoder_with_past_model"} - changes.keys()
    without(exported, folder, *changes, *others)
    for graph, change in changes.items():
        (folder / f"onnx/{graph}.onnx").write_bytes(changed(exported, graph, change))
    return folder


ALL = ("vision_encoder", "embed_tokens", "encoder_model")
PAIR = ("decoder_model", "decoder_with_past_model")


@pytest.mark.parametrize("decoders", [("decoder_model_merged",), PAIR], ids=["merged", "pair"])
def test_sizes_that_graphs_do_not_declare(
    exported: Exported, tmp_path: Path, decoders: tuple[str, ...]
) -> None:
    known = Florence2.load(exported.folder, threads=1)
    folder = rewritten(exported, tmp_path / "m", dict.fromkeys((*ALL, *decoders), symbolic))
    model = Florence2.load(folder, threads=1)
    assert model.graphs.geometry == known.graphs.geometry
    assert tokens(model) == tokens(known)


def without_states(graph: Any) -> None:
    """Drops the encoder's states, of which the graph reads no more than how many there are."""
    for node in graph.node:
        if "encoder_hidden_states" in node.input:
            assert node.op_type == "Shape"
            node.input[:] = ["encoder_attention_mask"]
    (states,) = [value for value in graph.input if value.name == "encoder_hidden_states"]
    graph.input.remove(states)


def test_a_later_decoder_without_the_states_of_the_encoder(
    exported: Exported, tmp_path: Path
) -> None:
    changes = {"decoder_model": lambda graph: None, "decoder_with_past_model": without_states}
    model = Florence2.load(rewritten(exported, tmp_path / "m", changes), threads=1)
    names = [value.name for value in model.graphs.sessions[PAIR[1]].get_inputs()]
    assert "encoder_hidden_states" not in names
    assert tokens(model) == tokens(Florence2.load(exported.folder, threads=1))


def test_a_merged_decoder_without_them_is_named(exported: Exported, tmp_path: Path) -> None:
    changes = {"decoder_model_merged": dropped("encoder_hidden_states")}
    folder = rewritten(exported, tmp_path / "m", changes)
    with pytest.raises(
        (GraphContractError, ModelFileError), match=r"decoder_model_merged\.onnx (has no|is not a)"
    ):
        Florence2.load(folder)


def in_halves(*begins: str) -> Callable[[Any], None]:
    """Makes inputs and outputs float16 by their names, and leaves the graph inside in float32."""

    def rename(graph: Any, names: Mapping[str, str]) -> None:
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
            for attribute in node.attribute:
                rename(attribute.g, names)

    def change(graph: Any) -> None:
        given, returned = (
            [v for v in side if v.name.startswith(begins)] for side in (graph.input, graph.output)
        )
        names = {value.name: f"{value.name}.float" for value in (*given, *returned)}
        rename(graph, names)
        cast = onnx.helper.make_node
        first = [cast("Cast", [v.name], [names[v.name]], to=onnx.TensorProto.FLOAT) for v in given]
        last = [
            cast("Cast", [names[v.name]], [v.name], to=onnx.TensorProto.FLOAT16) for v in returned
        ]
        for value in (*given, *returned):
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
        nodes = [*first, *graph.node, *last]
        del graph.node[:]
        graph.node.extend(nodes)

    return change


CACHE = ("past_key_values.", "present.")


@pytest.mark.parametrize(
    "changes",
    [
        {"decoder_model_merged": CACHE},
        {"decoder_model_merged": ("encoder_hidden_states",)},
        {"decoder_model_merged": ("inputs_embeds", "logits")},
        {"decoder_model": CACHE, "decoder_with_past_model": CACHE},
        {"decoder_model": (), "decoder_with_past_model": CACHE},
        {"decoder_model": ("encoder_hidden_states",), "decoder_with_past_model": ()},
    ],
)
def test_float16_in_some_tensors_of_a_decoder(
    exported: Exported, tmp_path: Path, changes: Mapping[str, tuple[str, ...]]
) -> None:
    """As graphs of the hub have a cache in float16 beside embeddings and logits in float32."""
    halves = {graph: in_halves(*begins or ("nothing",)) for graph, begins in changes.items()}
    model = Florence2.load(rewritten(exported, tmp_path / "m", halves), threads=1)
    expected = tokens(Florence2.load(exported.folder, threads=1))
    same = [a == b for a, b in zip(tokens(model), expected, strict=True)]
    assert sum(same) > 0.9 * len(same)


# Of the hub


NAME = "someone/Florence-2-square-ONNX"


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("precision", ["fp32", {"decoder_model_merged": "fp16", "*": "fp32"}])
def test_the_pair_is_fetched_where_the_merged_graph_does_not_load(
    exported: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    precision: Any,
) -> None:
    suffix = "" if precision == "fp32" else "_fp16"
    files = contents(exported.folder)
    use_empty_cache(monkeypatch, tmp_path / "cache")
    with serve_hub(NAME, files) as hub:
        use_hub(monkeypatch, hub.url)
        expected = tokens(Florence2.load(NAME, precision=precision, threads=1))
        assert not any("decoder_model." in name or "with_past" in name for name in hub.fetched)
        # The next commit has a graph that is damaged.
        damaged = {f"onnx/decoder_model_merged{suffix}.onnx": b"damaged"}
        hub.move("d" * 40, files | damaged)
        hub.requests.clear()
        model = Florence2.load(NAME, revision="d" * 40, precision=precision, threads=1)
        graphs = {name for name in hub.fetched if "decoder" in name}
        assert graphs == {*damaged, *(f"onnx/{name}{suffix}.onnx" for name in PAIR)}
        hub.requests.clear()
        Florence2.load(NAME, revision="d" * 40, precision=precision, local_files_only=True)
        assert not hub.requests
    assert tokens(model) == expected
    assert "instead of one decoder: " in capsys.readouterr().err


def test_no_pair_is_fetched_for_another_fault_or_where_there_is_none(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = contents(exported.folder)
    use_empty_cache(monkeypatch, tmp_path / "cache")
    with serve_hub(NAME, files | {"onnx/encoder_model.onnx": b"damaged"}) as hub:
        use_hub(monkeypatch, hub.url)
        with pytest.raises(ModelFileError, match=r"encoder_model\.onnx is not a graph"):
            Florence2.load(NAME)
        assert not any("with_past" in name for name in hub.fetched)
        merged = "onnx/decoder_model_merged.onnx"
        alone = {name: files[name] for name in files if not name.startswith("onnx/decoder_")}
        hub.move("e" * 40, alone | {merged: b"damaged"})
        with pytest.raises(ModelFileError, match=r"decoder_model_merged\.onnx is not a graph"):
            Florence2.load(NAME, revision="e" * 40)


@pytest.mark.parametrize(
    ("precision", "missing"),
    [("fp32", "encoder_model.onnx"), ({"vision_encoder": "q4"}, "vision_encoder_q4.onnx")],
)
def test_a_graph_that_a_repository_lacks_is_named(
    exported: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: Any,
    missing: str,
) -> None:
    files = contents(exported.folder)
    files.pop(f"onnx/{missing}", None)
    use_empty_cache(monkeypatch, tmp_path / "cache")
    with serve_hub(NAME, files) as hub:
        use_hub(monkeypatch, hub.url)
        with pytest.raises(PrecisionError, match=rf": onnx/{missing} missing; it has .*fp16"):
            Florence2.load(NAME, precision=precision)
        assert not hub.fetched


# On the command line


def test_a_precision_per_graph_on_the_command_line(
    exported: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = "vision_encoder=fp16, decoder_model_merged=fp32,*=fp16"
    assert main(["info", str(exported.folder), "--precision", chosen, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["precision"] == "fp16+fp32"
    halves = content["bytes"]["embed_tokens"]
    assert halves == (exported.folder / "onnx/embed_tokens_fp16.onnx").stat().st_size
    assert main(["info", str(exported.folder), "--precision", "vision=fp16"]) == 2
    assert "no graph of this model: 'vision'; use vision_encoder, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vision_encoder=", "'vision_encoder=' in"),
        ("=fp16", "'=fp16' in"),
        ("vision_encoder=fp16,q4", "'q4' in 'vision_encoder=fp16,q4' is not GRAPH=PRECISION"),
        ("*=fp16=q4", "is not GRAPH=PRECISION"),
        ("*=fp16,*=q4", "names * twice"),
    ],
)
@pytest.mark.parametrize("command", ["run", "info", "bench", "pull"])
def test_what_is_no_precision_per_graph(
    command: str, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--precision", text])
    assert words in capsys.readouterr().err


def test_pulling_a_precision_per_graph(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_empty_cache(monkeypatch, tmp_path / "cache")
    with serve_hub(NAME, contents(exported.folder)) as hub:
        use_hub(monkeypatch, hub.url)
        assert main(["pull", NAME, "--precision", "vision_encoder=fp16"]) == 0
        graphs = {name for name in hub.fetched if name.startswith("onnx/")}
        assert graphs == {
            "onnx/vision_encoder_fp16.onnx",
            *(f"onnx/{name}.onnx" for name in (*ALL[1:], "decoder_model_merged")),
        }
        assert main(["pull", NAME, "--precision", "vision_encoder=fp61"]) == 2
        assert main(["pull", NAME, "--precision", "vision=fp16"]) == 2
