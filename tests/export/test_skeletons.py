"""Graphs filled without torch equal those that are traced, byte for byte."""

import copy
import json
import lzma
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor
from transformers import Florence2ForConditionalGeneration

from florence_onnx.checkpoints.checkpoint import Checkpoint, read_checkpoint
from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.engine import contract
from florence_onnx.errors import MissingDependencyError, ValidationError
from florence_onnx.skeletons.filling import (
    GEOMETRY as GEOMETRY_FILE,
)
from florence_onnx.skeletons.filling import (
    RECIPES,
    SKELETONS,
    fill,
    find_skeleton,
)
from florence_onnx_export.graphs import files as graph_files
from florence_onnx_export.graphs.specs import build_specs
from florence_onnx_export.graphs.tracing import trace
from florence_onnx_export.graphs.validation import TOLERANCE, validate
from florence_onnx_export.recipes import derive_recipes
from florence_onnx_export.skeletons import write_skeleton
from florence_onnx_export.weights import torch_weights
from tests.export.conftest import BESIDE
from tests.helpers.checkpoints import (
    GEOMETRY,
    original_weights,
    save_native,
    save_original,
    save_weights,
)
from tests.helpers.exports import Exported
from tests.helpers.random_models import amplify_rounding, make_model

RELEASED = ("base", "large")


def traced(checkpoint: Checkpoint, out: Path) -> Path:
    for spec in build_specs(checkpoint.config, torch_weights(checkpoint)):
        path = out / contract.graph_file(spec.name, "fp32")
        path.parent.mkdir(parents=True, exist_ok=True)
        trace(spec, path)
    return out


def filled(checkpoint: Checkpoint, skeleton: Path, out: Path) -> Path:
    out.mkdir()
    fill(skeleton, checkpoint, out)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "onnx").iterdir())}


def write_small(config: ModelConfig, folder: Path) -> Path:
    out, scratch = folder / "out", folder / "scratch"
    out.mkdir()
    scratch.mkdir()
    write_skeleton(config, out, scratch)
    return out


@pytest.fixture
def skeleton(skeletons: Path) -> Path:
    return skeletons / "square"


def test_filled_graphs_equal_exported_ones(
    native: Exported, skeleton: Path, tmp_path: Path
) -> None:
    found = filled(read_checkpoint(native.checkpoint), skeleton, tmp_path / "filled")
    for graph in contract.GRAPHS:
        name = contract.graph_file(graph, "fp32")
        assert (found / f"{name}_data").exists()
        graph_beside = onnx.load(str(found / name))
        for tensor in graph_beside.graph.initializer:
            tensor.ClearField("data_location")
        # The exported graphs are small, so their weights lie inside.
        assert graph_beside == onnx.load(str(native.folder / name)), graph


def odd_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Equal norms and biases of zero, which a tracer merges and drops where it sees them.

    The logits have a bias, and the head is not the embedding.
    """
    changed = dict(weights)
    for name, tensor in weights.items():
        if "norm" in name and name.endswith("weight"):
            changed[name] = torch.ones_like(tensor)
        elif name.endswith("bias"):
            changed[name] = torch.zeros_like(tensor)
    embedding = weights["language_model.model.shared.weight"]
    bias = torch.linspace(-1, 1, len(embedding))[None]
    own = {"lm_head.weight": embedding * 2, "final_logits_bias": bias}
    return changed | {f"language_model.{name}": tensor for name, tensor in own.items()}


def test_filled_graphs_equal_traced_ones_byte_for_byte(
    native: Exported, skeleton: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = native.geometry.vocab_size + 13
    other = replace(native.geometry, vocab_size=tokens, max_positions=500)
    model = make_model(other, seed=4)
    folder = save_original(model, tmp_path / "checkpoint")
    save_weights(odd_weights(original_weights(model)), folder, safetensors=False)
    checkpoint = read_checkpoint(folder)
    monkeypatch.setattr(graph_files, "LARGE", BESIDE)
    expected = contents(traced(checkpoint, tmp_path / "traced"))
    found = contents(filled(checkpoint, skeleton, tmp_path / "filled"))
    assert found.keys() == expected.keys()
    for name, content in expected.items():
        assert found[name] == content, name


@pytest.mark.parametrize("save", [save_native, save_original])
@pytest.mark.parametrize("safetensors", [True, False])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_how_a_checkpoint_is_stored_makes_no_difference(
    native: Exported,
    tmp_path: Path,
    save: Callable[..., Path],
    safetensors: bool,
    shards: int,
    dtype: torch.dtype,
    skeleton: Path,
) -> None:
    model = native.model
    plain = save_native(rounded(model, dtype), tmp_path / "plain")
    stored = save(model, tmp_path / "stored", safetensors=safetensors, shards=shards, dtype=dtype)
    expected = contents(filled(read_checkpoint(plain), skeleton, tmp_path / "a"))
    assert contents(filled(read_checkpoint(stored), skeleton, tmp_path / "b")) == expected


def test_a_checkpoint_that_amplifies_rounding_is_valid(
    native: Exported, skeleton: Path, tmp_path: Path
) -> None:
    """And a wrong graph of it is not."""
    model: Any = copy.deepcopy(native.model)
    amplify_rounding(model)
    checkpoint = read_checkpoint(save_native(model, tmp_path / "checkpoint"))
    folder = filled(checkpoint, skeleton, tmp_path / "filled")
    decoder = build_specs(checkpoint.config, torch_weights(checkpoint))[-1]
    path = folder / contract.graph_file(decoder.name, "fp32")
    worst = max(validate(decoder, path, "fp32"), key=lambda check: check.max_rel_diff)
    assert TOLERANCE["fp32"] < worst.max_rel_diff
    data = path.with_name(path.name + contract.DATA_SUFFIX)
    values = np.fromfile(data, np.float32)
    values[::101] *= 1.01
    values.tofile(data)
    with pytest.raises(ValidationError, match="differs from PyTorch"):
        validate(decoder, path, "fp32")


def rounded(
    model: Florence2ForConditionalGeneration, dtype: torch.dtype
) -> Florence2ForConditionalGeneration:
    copied: Any = copy.deepcopy(model)
    return copied.to(dtype).float()


def test_a_python_without_lzma(
    native: Exported, skeleton: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lzma", None)
    with pytest.raises(MissingDependencyError, match=r"built without lzma, .* --with torch"):
        filled(read_checkpoint(native.checkpoint), skeleton, tmp_path / "filled")


def test_every_released_configuration_has_a_skeleton(shared: Path) -> None:
    found = set()
    paths = sorted((shared / "configs").glob("**/config*.json"))
    for path in paths:
        skeleton = find_skeleton(ModelConfig.from_dict(json.loads(path.read_text())))
        assert skeleton is not None, path
        found.add(skeleton.name)
    assert found == set(RELEASED)
    assert len(paths) >= 8


def test_other_geometries_have_none(tmp_path: Path) -> None:
    config = read_checkpoint(save_native(make_model(GEOMETRY, seed=1), tmp_path)).config
    assert find_skeleton(config) is None


@pytest.mark.parametrize("name", RELEASED)
def test_recipes_are_those_of_the_modules(name: str) -> None:
    geometry = json.loads((SKELETONS / name / GEOMETRY_FILE).read_text())
    derived = derive_recipes(ModelConfig.from_dict(geometry), logits_bias=True)
    assert json.loads((SKELETONS / name / RECIPES).read_text()) == json.loads(json.dumps(derived))


def test_the_skeleton_of_base_is_what_the_tracer_makes(tmp_path: Path) -> None:
    """Takes a minute; ``large`` would take three and 12 GB, so its recipes have to do."""
    geometry = json.loads((SKELETONS / "base" / GEOMETRY_FILE).read_text())
    made = write_small(ModelConfig.from_dict(geometry), tmp_path)
    assert len([*made.iterdir()]) > 4
    for path in sorted(made.iterdir()):
        assert unpacked(path) == unpacked(SKELETONS / "base" / path.name), path.name


def unpacked(path: Path) -> bytes:
    """The same bytes may be packed in more than one way."""
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content
