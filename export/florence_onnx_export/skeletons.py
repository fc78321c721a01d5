"""Graphs without weights for the released geometries: ``python -m florence_onnx_export.skeletons``.

Writes `florence_onnx.skeletons`'s folders again, from the modules and each folder's geometry.json.
Run it after a change of the modules. Tracing ``large`` takes 12 GB of memory.
"""

import argparse
import json
import lzma
import tempfile
from pathlib import Path

import onnx
import torch

from florence_onnx.checkpoints import key_maps
from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.files import read_json, write_whole
from florence_onnx.skeletons.filling import (
    BIASED,
    GEOMETRY,
    GRAPH,
    RECIPES,
    SKELETONS,
)
from florence_onnx_export.graphs.specs import build_specs
from florence_onnx_export.graphs.tracing import trace
from florence_onnx_export.recipes import derive_recipes


def write_skeleton(config: ModelConfig, out: Path, scratch: Path) -> None:
    """Traces the graphs of a geometry and writes them to ``out`` without their weights.

    Args:
        config: The geometry; a checkpoint's vocabulary and number of positions may differ.
        out: An existing folder.
        scratch: An existing folder for the traced graphs, which are as large as a model's.
    """
    for logits_bias in (False, True):
        recipes = derive_recipes(config, logits_bias)
        shapes = key_maps.expected_shapes(config)
        if logits_bias:
            shapes[key_maps.LOGITS_BIAS] = (1, config.text.vocab_size)
        weights = {name: torch.empty(shape) for name, shape in shapes.items()}
        specs = build_specs(config, weights)
        for spec in specs if not logits_bias else [specs[-1]]:
            path = scratch / f"{spec.name}.onnx"
            trace(spec, path)
            name = BIASED if logits_bias else spec.name
            graph = _without_weights(path, set(recipes[spec.name]))
            packed = lzma.compress(graph, preset=9 | lzma.PRESET_EXTREME)
            write_whole(out / f"{name}{GRAPH}", packed)
    text = json.dumps(recipes, separators=(",", ":"))
    write_whole(out / RECIPES, text + "\n")


def _without_weights(path: Path, names: set[str]) -> bytes:
    """The graph with nothing but the names of its weights, and whether they lie beside it."""
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.name in names:
            beside = tensor.data_location == onnx.TensorProto.EXTERNAL
            name = tensor.name
            tensor.Clear()
            tensor.name = name
            if beside:
                tensor.data_location = onnx.TensorProto.EXTERNAL
    content: bytes = model.SerializeToString()
    return content


def main() -> None:
    """Writes every skeleton again, or those that are named."""
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
        print(f"wrote {SKELETONS / name}")


if __name__ == "__main__":
    main()
