"""Exports in the layout of transformers.js: their graphs, what reads them here, and the client."""

import json
import lzma
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from benchmarks import captions, transformers_js
from benchmarks.harness.common import BenchmarkError
from florence_onnx import Florence2
from florence_onnx.checkpoints import key_maps
from florence_onnx.checkpoints.checkpoint import read_checkpoint
from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.cli.program import main
from florence_onnx.engine import hub_contract
from florence_onnx.engine.layouts import MERGED, SPLIT, WITH_PAIR
from florence_onnx.images.pixels import to_rgb
from florence_onnx.skeletons import filling
from florence_onnx.skeletons.filling import GEOMETRY, GRAPH, HUB, RECIPES, SKELETONS, fill
from florence_onnx_export.graphs import files as graph_files
from florence_onnx_export.graphs.hub_specs import build_hub_specs
from florence_onnx_export.graphs.merging import merge
from florence_onnx_export.graphs.tracing import traced_model
from florence_onnx_export.graphs.validation import validate
from florence_onnx_export.quantization import hub_layout
from florence_onnx_export.quantization.bounds import Bounds
from florence_onnx_export.recipes import derive_recipes
from florence_onnx_export.skeletons import placeholders, without_weights, write_hub_skeleton
from florence_onnx_export.weights import torch_weights
from tests.export.conftest import BESIDE
from tests.export.test_end_to_end import LONGEST, OPTIONS, requests
from tests.helpers.exports import Exported

FIRST, LATER = hub_contract.FIRST_DECODER, hub_contract.LATER_DECODER
NEW = 24
"""Tokens of an answer that clients are compared on."""
NODE = Path(__file__).parents[1] / "node"
"""Where .ci/run installs the client's packages."""
SCRIPT = Path(__file__).parents[1] / "helpers" / "transformers_js.mjs"
TASKS = ("<CAPTION>", "<OD>")


@pytest.fixture(scope="module")
def skeleton(skeletons: Path, native: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The skeleton of `native`'s geometry with the graphs of this layout."""
    place = tmp_path_factory.mktemp("skeletons")
    folder = Path(shutil.copytree(skeletons / "square", place / "square"))
    (folder / HUB).mkdir()
    config = ModelConfig.from_dict(json.loads((folder / GEOMETRY).read_text()))
    scratch = tmp_path_factory.mktemp("scratch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_files, "LARGE", BESIDE)
        write_hub_skeleton(config, folder / HUB, scratch)
    return folder


@pytest.fixture(scope="module")
def exported(skeleton: Path, native: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command makes of `native`'s checkpoint, in all precisions; not to be changed."""
    out = tmp_path_factory.mktemp("exported") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filling, "SKELETONS", skeleton.parent)
        options = ["--layout", "transformers.js", "--split-decoder", "--accept-error"]
        precisions = "fp32,fp16,q8,q4,q4f16"
        command = ["export", str(native.checkpoint), str(out), "--precision", precisions]
        assert main([*command, *options]) == 0
    return out


# The graphs


def test_filled_decoders_equal_traced_ones(
    native: Exported, skeleton: Path, tmp_path: Path
) -> None:
    checkpoint = read_checkpoint(native.checkpoint)
    fill(skeleton, checkpoint, tmp_path, layout=WITH_PAIR)
    specs = build_hub_specs(checkpoint.config, torch_weights(checkpoint))
    traced = {spec.name: traced_model(spec) for spec in specs}
    traced[hub_contract.MERGED_DECODER] = merge(traced[FIRST], traced[LATER])
    for name, model in traced.items():
        path = tmp_path / f"onnx/{name}.onnx"
        filled = onnx.load(str(path))
        for tensor in filled.graph.initializer:
            tensor.ClearField("data_location")
        assert filled == model, name
        onnx.checker.check_model(filled)
    for spec in specs:
        assert validate(spec, tmp_path / f"onnx/{spec.name}.onnx", "fp32")


def test_weights_of_both_branches_are_stored_once(exported: Path) -> None:
    graph = onnx.load(str(exported / "onnx/decoder_model_merged.onnx")).graph
    (switch,) = graph.node
    assert (switch.op_type, list(switch.input)) == ("If", ["use_cache_branch"])
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    first = onnx.load(str(exported / "onnx/decoder_model.onnx")).graph.initializer
    large = [tensor.name for tensor in first if np.prod(tensor.dims) > 64]
    assert len(large) > 20
    assert weights.keys() >= set(large)
    for attribute in switch.attribute:
        assert sum(np.prod(tensor.dims) for tensor in attribute.g.initializer) < 64


@pytest.mark.parametrize("name", [folder.name for folder in filling.skeletons(MERGED)])
def test_recipes_of_the_released_geometries_are_those_of_the_modules(name: str) -> None:
    geometry = json.loads((SKELETONS / name / GEOMETRY).read_text())
    derived = derive_recipes(ModelConfig.from_dict(geometry), True, build_hub_specs)
    saved = json.loads((SKELETONS / name / HUB / RECIPES).read_text())
    assert saved == {FIRST: json.loads(json.dumps(derived[FIRST]))}
    assert derived[LATER].items() <= derived[FIRST].items()
    for graph in (*SPLIT.graphs, *MERGED.graphs):
        file = SKELETONS / name / HUB / f"{graph}{GRAPH}"
        assert file.exists() or graph in hub_contract.SHARED


def test_the_later_decoder_of_base_is_what_the_tracer_makes(tmp_path: Path) -> None:
    """Takes 20 seconds; the other decoders would take three times as long."""
    config = ModelConfig.from_dict(json.loads((SKELETONS / "base" / GEOMETRY).read_text()))
    recipes = derive_recipes(config, False, build_hub_specs)
    specs = build_hub_specs(config, placeholders(config, logits_bias=False))
    (spec,) = [spec for spec in specs if spec.name == LATER]
    made = without_weights(spec, set(recipes[LATER]), tmp_path)
    packed = (SKELETONS / "base" / HUB / f"{LATER}{GRAPH}").read_bytes()
    assert made.SerializeToString() == lzma.decompress(packed)


def test_a_bias_on_the_logits(native: Exported, skeleton: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(native.checkpoint)
    rows = checkpoint.weights[key_maps.HEAD].shape[0]
    bias = np.linspace(-1, 1, rows, dtype=np.float32)[None]

    @dataclass(frozen=True)
    class Bias:
        shape: tuple[int, ...]

        def read(self) -> Any:
            return bias

    for name in ("without", "with"):
        (tmp_path / name).mkdir()
    fill(skeleton, checkpoint, tmp_path / "without", layout=MERGED)
    weights: dict[str, Any] = {**checkpoint.weights, key_maps.LOGITS_BIAS: Bias(bias.shape)}
    object.__setattr__(checkpoint, "weights", weights)
    fill(skeleton, checkpoint, tmp_path / "with", layout=MERGED)
    logits = []
    for name in ("without", "with"):
        for path in native.folder.glob("*.json"):
            shutil.copy(path, tmp_path / name)
        model = Florence2.load(tmp_path / name, threads=1)
        mask, embeds = np.ones((1, 4), np.int64), model.graphs.embed(np.array([[3, 4, 5, 6]]))
        steps: Any = model.graphs.decoder.start(mask, embeds)
        logits.append(steps(np.array([2]), np.array([0]), np.array([0])).logits())
    np.testing.assert_allclose(logits[1] - logits[0], bias, atol=1e-5)


# What reads them here


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_tokens_are_those_of_our_own_layout(
    native: Exported, exported: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    split = Path(shutil.copytree(exported, tmp_path / "split"))
    for path in split.glob("onnx/decoder_model_merged*"):
        path.unlink()
    answers = [
        Florence2.load(folder, threads=1).run(requests(), max_new_tokens=LONGEST, **options)
        for folder in (native.folder, exported, split)
    ]
    own, merged, pair = ([result.token_ids for result in found] for found in answers)
    assert merged == own
    assert pair == own


@pytest.mark.parametrize("precision", ["fp32", "fp16", "q8", "q4", "q4f16"])
def test_beams_share_one_copy_of_the_cross_attention(exported: Path, precision: str) -> None:
    """Whatever the number of requests: the rows of a request are the tokens of one query."""
    model = Florence2.load(exported, precision=precision, threads=1)
    for count in (1, 2):
        ids = np.tile(np.arange(3, 9), (count, 1))
        beams = np.repeat(np.arange(count), 3)
        steps: Any = model.graphs.decoder.start(np.ones_like(ids), model.graphs.embed(ids))
        steps(np.full(count, 2), np.arange(count), np.arange(count))
        for rows in (beams, np.arange(3 * count)):
            steps(np.full(3 * count, 5), rows, np.arange(count))
        assert {value.shape()[0] for value in steps._cross} == {count}
        assert {value.shape()[0] for value in steps._own} == {3 * count}


@pytest.mark.parametrize("precision", ["fp16", "q8", "q4", "q4f16"])
def test_other_precisions_answer_nearly_the_same(exported: Path, precision: str) -> None:
    report = json.loads((exported / "export_report.json").read_text())
    fidelity = report["precisions"][precision]["fidelity"]
    # The matrices are small, so 4 bits cost twice what the bound allows of real ones.
    assert fidelity["first_logits"] < {"fp16": 0.01, "q8": 0.06}.get(precision, 0.32)
    assert fidelity["token_agreement"] > 0.8
    model = Florence2.load(exported, precision=precision, threads=1)
    assert model.precision == precision
    sizes = [
        sum(path.stat().st_size for path in MERGED.parts(exported, "decoder_model_merged", name))
        for name in ("fp32", precision)
    ]
    assert sizes[1] < 0.7 * sizes[0]


def test_a_vision_encoder_beyond_its_bound_keeps_more_bits_alone(
    native: Exported, skeleton: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "SKELETONS", skeleton.parent)
    monkeypatch.setattr(hub_layout, "BOUNDS", {"q4": Bounds(1e-6, 1.0)})
    out = tmp_path / "model"
    command = ["export", str(native.checkpoint), str(out), "--layout", "transformers.js"]
    assert main([*command, "--precision", "q4"]) == 0
    entry = json.loads((out / "export_report.json").read_text())["precisions"]["q4"]
    assert entry["preferred_methods"] == {"vision_encoder": ["fp32"]}
    assert entry["fidelity"]["image_features"] <= 1e-6
    (switch,) = onnx.load(str(out / "onnx/decoder_model_merged_q4.onnx")).graph.node
    nodes = [node for attribute in switch.attribute for node in attribute.g.node]
    bits = [a.i for node in nodes for a in node.attribute if a.name == "bits"]
    assert set(bits) == {4, 8}


def test_the_encoder_beyond_the_bound_of_the_logits_stays_in_float32(
    native: Exported, skeleton: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "SKELETONS", skeleton.parent)
    found = iter(["beyond", "beyond still", ""])
    monkeypatch.setattr(hub_layout, "beyond_bounds", lambda *measured: next(found))
    out = tmp_path / "model"
    command = ["export", str(native.checkpoint), str(out), "--layout", "transformers.js"]
    assert main([*command, "--precision", "q8"]) == 0
    entry = json.loads((out / "export_report.json").read_text())["precisions"]["q8"]
    preferred = entry["preferred_methods"]
    assert (preferred["encoder_model"], preferred["decoder_model"]) == (["fp32"], ["blocks8"])
    encoder = onnx.load(str(out / "onnx/encoder_model_quantized.onnx")).graph
    assert {node.op_type for node in encoder.node}.isdisjoint({"MatMulNBits", "MatMulInteger"})


# The command


def test_what_an_export_holds(exported: Path) -> None:
    names = {path.name for path in exported.glob("onnx/*.onnx")}
    assert names == {
        Path(file).name
        for precision in ("fp32", "fp16", "q8", "q4", "q4f16")
        for file in WITH_PAIR.files((), precision).values()
    }
    config = json.loads((exported / "config.json").read_text())
    beside = {path.name.removesuffix("_data"): 1 for path in exported.glob("onnx/*_data")}
    assert beside
    assert config["transformers.js_config"] == {
        "dtype": "fp32",
        "use_external_data_format": beside,
    }
    assert main(["verify", str(exported)]) == 0


def test_without_the_pair_and_without_float32(
    native: Exported, skeleton: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing imports torch on the way, because there is a skeleton."""
    monkeypatch.setattr(filling, "SKELETONS", skeleton.parent)
    for name in ("torch", "transformers", "florence_onnx_export.exporter"):
        monkeypatch.setitem(sys.modules, name, None)
    out = tmp_path / "model"
    command = ["export", str(native.checkpoint), str(out), "--layout", "transformers.js"]
    assert main([*command, "--precision", "fp16"]) == 0
    names = {path.name for path in out.glob("onnx/*.onnx")}
    assert names == {Path(file).name for file in MERGED.files((), "fp16").values()}
    assert main(["verify", str(out)]) == 0
    assert main(command) == 2, "it exists"
    assert main([*command, "--force"]) == 0
    names = {path.name for path in out.glob("onnx/*.onnx")}
    assert names == {Path(file).name for file in MERGED.files((), "fp32").values()}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--split-decoder"], "--split-decoder is of --layout transformers.js"),
        (["--precision", "q4f16"], "unknown precision 'q4f16'; choose from fp32, fp16, q8, q4"),
        (["--layout", "transformers.js", "--precision", "bnb4"], "fp32, fp16, q8, q4, q4f16"),
    ],
)
def test_wrong_options(
    native: Exported,
    tmp_path: Path,
    options: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["export", str(native.checkpoint), str(tmp_path / "m"), *options]) == 2
    assert words in capsys.readouterr().err


# The client


def smooth_picture(path: Path) -> Path:
    """A picture of slow gradients, which resizes that differ give nearly the same."""
    height, width = 48, 70
    smooth = np.add.outer(np.arange(height), np.arange(width))[..., None] * np.array([1, 2, 3])
    Image.fromarray((smooth % 256).astype(np.uint8)).save(path)
    return path


def asked_of_client(
    folder: Path, picture: Path, place: Path, tasks: Sequence[str], dtype: str | None
) -> tuple[dict[str, Any], list[list[int]]]:
    """What transformers.js answers, and our greedy token ids, for the same pixel_values."""
    model = Florence2.load(folder, precision=dtype or "fp32", threads=1)
    pixels = model.assets.preprocessor(to_rgb(picture))[None]
    (place / "pixels").write_bytes(pixels.tobytes())
    content = {
        "picture": str(picture),
        "pixels": str(place / "pixels"),
        "shape": pixels.shape,
        "tasks": tasks,
        "dtype": dtype,
        "max_new_tokens": NEW,
    }
    (place / "asked.json").write_text(json.dumps(content))
    command = ["node", str(SCRIPT), str(NODE), str(folder), str(place / "asked.json")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    options: Any = {"num_beams": 1, "max_new_tokens": NEW}
    ours = [list(model(picture, task.strip("<>").lower(), **options).token_ids) for task in tasks]
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found, ours


needs_client = pytest.mark.skipif(
    shutil.which("node") is None or not (NODE / "node_modules").is_dir(),
    reason="Node or the packages of tests/node are not installed",
)


@needs_client
@pytest.mark.parametrize("dtype", [None, "fp16", "q8", "q4"])
def test_transformers_js_gives_our_tokens(
    exported: Path, tmp_path: Path, dtype: str | None
) -> None:
    picture = smooth_picture(tmp_path / "picture.png")
    found, ours = asked_of_client(exported, picture, tmp_path, TASKS, dtype)
    assert [found["ids"][task] for task in TASKS] == ours
    assert found["answers"]["<OD>"].keys() == {"labels", "bboxes"}
    # Its resize is not Pillow's: libvips computes in fixed point, with another filter.
    assert found["mean"] < 0.1


@needs_client
@pytest.mark.parametrize("photo", ["000000039769.jpg", "ms_base_object_detection.jpeg"])
def test_transformers_js_gives_our_tokens_for_a_photo(
    exported: Path, shared: Path, tmp_path: Path, photo: str
) -> None:
    """The difference of its preprocessing from ours is in the report of pytest -rP."""
    picture = shared / "photos" / photo
    found, ours = asked_of_client(exported, picture, tmp_path, TASKS, None)
    assert [found["ids"][task] for task in TASKS] == ours
    assert found["answers"]["<OD>"].keys() == {"labels", "bboxes"}
    print(f"pixel_values of {photo}: differences of {found['mean']:.3f}, up to {found['most']:.2f}")
    # It is the same picture, although a picture made ten times smaller shows what a filter does.
    pixels = Florence2.load(exported, threads=1).assets.preprocessor(to_rgb(picture))
    assert found["mean"] < 0.5 * np.abs(pixels - pixels[..., ::-1]).mean()


@needs_client
def test_the_benchmark(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--exported", str(exported), "--repeats", "1", "--threads", "1", "--json"]
    transformers_js.main(options)
    record = json.loads(capsys.readouterr().out)
    assert record["ratios"].keys() == {
        f"token: {side} / transformers.js greedy" for side in ("ours greedy", "ours 3 beams")
    }
    assert all(side["min"] > 0 for side in record["values"]["token"].values())


@pytest.mark.parametrize("script", [captions, transformers_js])
def test_the_benchmarks_take_random_weights_alone(script: Any, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    arguments = ["--model", str(folder), "--work", str(tmp_path / "work"), "--json"]
    with pytest.raises(BenchmarkError, match="must be one of base, large, tiny"):
        script.main(arguments)
    assert list(tmp_path.iterdir()) == [folder]


def test_the_stand_in_for_the_hubs_8_bits(exported: Path, native: Exported, tmp_path: Path) -> None:
    captions.make_hub_model(native.checkpoint, exported, tmp_path)
    assert {path.name for path in (tmp_path / "onnx").iterdir()} == {
        f"{name}_quantized.onnx" for name in MERGED.graphs
    }
    for name in MERGED.graphs:
        graph = onnx.load(tmp_path / "onnx" / f"{name}_quantized.onnx").graph
        assert weights_in_float(graph) == []
    model = Florence2.load(tmp_path, precision="q8", threads=1)
    assert model(np.zeros((9, 9, 3), np.uint8), "od", max_new_tokens=5).token_ids


def weights_in_float(graph: onnx.GraphProto) -> list[str]:
    """The weights that matmuls of a graph and of its branches read, if not in 8 bits."""
    stored = {weight.name for weight in graph.initializer}
    branches = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    found = []
    for part in (graph, *branches):
        makers = {output: node for node in part.node for output in node.output}
        for node in (node for node in part.node if node.op_type == "MatMul"):
            maker = makers.get(node.input[1])
            is_turned = maker is not None and maker.op_type == "Transpose"
            found.append(maker.input[0] if maker is not None and is_turned else node.input[1])
    return [name for name in found if name in stored]
