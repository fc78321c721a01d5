"""Graphs without weights for the released geometries: ``python -m florence_onnx_export.skeletons``.

The command writes the folders of `florence_onnx.skeletons` again, from the modules and each
folder's geometry.json. A change of the modules needs a run of the command. Tracing ``large`` takes
12 GB of memory.
"""

import argparse
import json
import lzma
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch

from florence_onnx.checkpoints import key_maps
from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.engine.hub_contract import FIRST_DECODER, LATER_DECODER, MERGED_DECODER
from florence_onnx.files import read_json, write_whole
from florence_onnx.skeletons.filling import BIAS, GEOMETRY, GRAPH, HUB, RECIPES, SKELETONS
from florence_onnx_export.graphs.hub_specs import build_hub_specs
from florence_onnx_export.graphs.merging import merge
from florence_onnx_export.graphs.specs import GraphSpec, build_specs
from florence_onnx_export.graphs.tracing import trace
from florence_onnx_export.recipes import derive_recipes


def write_skeleton(config: ModelConfig, out: Path, scratch: Path) -> None:
    """Traces the graphs of a geometry and writes the graphs to ``out`` without weights.

    Args:
        config: Geometry. The vocabulary and the number of positions of a checkpoint may differ.
        out: Existing folder.
        scratch: Existing folder for the traced graphs, which are as large as the graphs of a model.
    """
    for logits_bias in (False, True):
        recipes = derive_recipes(config, logits_bias)
        specs = build_specs(config, placeholders(config, logits_bias))
        for spec in specs if not logits_bias else [specs[-1]]:
            stub = without_weights(spec, set(recipes[spec.name]), scratch)
            _write(stub, out, spec.name + BIAS if logits_bias else spec.name)
    _write_recipes(recipes, out)


def write_hub_skeleton(config: ModelConfig, out: Path, scratch: Path) -> None:
    """Writes the graphs of transformers.js that this package's own layout lacks.

    The arguments are those of `write_skeleton`.
    """
    for logits_bias in (False, True):
        recipes = derive_recipes(config, logits_bias, build_hub_specs)
        encoder, *decoders = build_hub_specs(config, placeholders(config, logits_bias))
        stubs = {
            spec.name: without_weights(spec, set(recipes[spec.name]), scratch)
            for spec in (decoders if logits_bias else (encoder, *decoders))
        }
        stubs[MERGED_DECODER] = merge(stubs[FIRST_DECODER], stubs[LATER_DECODER])
        for name, stub in stubs.items():
            _write(stub, out, name + BIAS if logits_bias else name)
    # The first decoder has the weights of all decoders.
    _write_recipes({FIRST_DECODER: recipes[FIRST_DECODER]}, out)


def placeholders(config: ModelConfig, logits_bias: bool) -> dict[str, torch.Tensor]:
    """Makes tensors with the names and shapes of a checkpoint's weights, without values."""
    shapes = key_maps.expected_shapes(config)
    if logits_bias:
        shapes[key_maps.LOGITS_BIAS] = (1, config.text.vocab_size)
    return {name: torch.empty(shape) for name, shape in shapes.items()}


def _write(model: onnx.ModelProto, out: Path, name: str) -> None:
    packed = lzma.compress(model.SerializeToString(), preset=9 | lzma.PRESET_EXTREME)
    write_whole(out / f"{name}{GRAPH}", packed)


def _write_recipes(recipes: Mapping[str, Any], out: Path) -> None:
    text = json.dumps(recipes, separators=(",", ":"))
    write_whole(out / RECIPES, text + "\n")


def without_weights(spec: GraphSpec, names: set[str], scratch: Path) -> onnx.ModelProto:
    """Traces a graph and drops the weights, but not their names and the place of their data."""
    path = scratch / f"{spec.name}.onnx"
    trace(spec, path)
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.name in names:
            beside = tensor.data_location == onnx.TensorProto.EXTERNAL
            name = tensor.name
            tensor.Clear()
            tensor.name = name
            if beside:
                tensor.data_location = onnx.TensorProto.EXTERNAL
    return model


def main() -> None:
    """Writes every skeleton again, or the skeletons that are named."""
    parser = argparse.ArgumentParser(
        prog="python -m florence_onnx_export.skeletons", description=__doc__
    )
    names = sorted(path.parent.name for path in SKELETONS.glob(f"*/{GEOMETRY}"))
    parser.add_argument("names", nargs="*", help="skeletons (default: all)")
    arguments = parser.parse_args()
    for name in arguments.names or names:
        config = ModelConfig.from_dict(read_json(SKELETONS / name / GEOMETRY))
        with tempfile.TemporaryDirectory() as scratch:
            write_skeleton(config, SKELETONS / name, Path(scratch))
            (SKELETONS / name / HUB).mkdir(exist_ok=True)
            write_hub_skeleton(config, SKELETONS / name / HUB, Path(scratch))
        print(f"wrote {SKELETONS / name}")


if __name__ == "__main__":
    main()
