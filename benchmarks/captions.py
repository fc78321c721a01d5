"""Times answers of transformers.js in Node and of this package, both in 8 bits.

    npm --prefix tests/node ci --ignore-scripts
    python -m benchmarks.captions

transformers.js runs graphs that are traced from transformers' own modules and quantised as those of
the hub are: `quantize_dynamic` of ONNX Runtime. This package runs its own export. Both answer by
greedy search, from pixel_values to the last token, in turn.
"""

import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import transformers_js as layout
from benchmarks.harness.checkpoint import kept, prepare
from benchmarks.harness.common import ROOT, make_parser, make_picture, publish
from benchmarks.harness.measuring import alternate, seconds, summarise
from benchmarks.harness.node import add_packages, transformers_js, version_note
from florence_onnx import Florence2, Request
from florence_onnx.engine.layouts import MERGED
from florence_onnx.generation.options import GenerationOptions

if TYPE_CHECKING:
    import onnx

TOKENS = (21, 101)
PRECISION = "q8"


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=5, precisions=False)
    parser.set_defaults(precision=[PRECISION])
    add_packages(parser)
    arguments = parser.parse_args(argv)
    assets = layout.exported(arguments.model, arguments.work)
    setup = prepare(arguments)
    sources = [Path(__file__), ROOT / "tests" / "helpers" / "hub_layout.py"]
    theirs = kept(setup.home, "hub-q8", sources, partial(make_hub_model, setup.checkpoint, assets))
    model = Florence2.load(
        setup.exported,
        precision=PRECISION,
        providers=[arguments.provider],
        threads=arguments.threads,
    )
    prepared = model.prepare(Request(make_picture(), "<OD>"))
    pixels = model.assets.preprocessor(make_picture())[None]

    def ours(tokens: int) -> float:
        options: GenerationOptions = {
            "num_beams": 1,
            "min_new_tokens": tokens,
            "max_new_tokens": tokens,
        }
        return seconds(lambda: model.answer(prepared, **options))

    with transformers_js(
        arguments.packages, theirs, PRECISION, pixels, arguments.threads
    ) as answer:
        sides: dict[str, Callable[[int], float]] = {
            f"transformers.js {PRECISION}": lambda tokens: answer(tokens)["answer"],
            f"ours {PRECISION}": ours,
        }
        cases = {
            f"answer of {tokens} tokens": alternate(
                {name: partial(side, tokens) for name, side in sides.items()}, arguments.repeats
            )
            for tokens in TOKENS
        }
    notes = [version_note(arguments.packages)]
    publish("captions", arguments, argv, {**summarise(cases), "notes": notes}, arguments.provider)


def make_hub_model(checkpoint: Path, assets: Path, folder: Path) -> None:
    """Traces and quantises a checkpoint as the models of the hub are.

    Args:
        checkpoint: Checkpoint in transformers' format.
        assets: Export in the layout of transformers.js, whose files beside the graphs are taken.
        folder: The new model folder.
    """
    import onnx
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import Florence2ForConditionalGeneration

    from tests.helpers.hub_layout import write_hub_layout

    torch.manual_seed(0)
    network = Florence2ForConditionalGeneration.from_pretrained(checkpoint)
    write_hub_layout(network, folder, Florence2.load(assets).assets.preprocessor.size)
    shutil.copytree(assets, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("onnx"))
    for name in MERGED.graphs:
        graph = folder / "onnx" / f"{name}.onnx"
        model = onnx.load(graph)
        _transpose_weights(model.graph)
        onnx.save(model, graph)
        operators = {node.op_type for node in model.graph.node}
        quantize_dynamic(
            graph,
            graph.with_stem(f"{name}_quantized"),
            weight_type=QuantType.QUInt8 if "Conv" in operators else QuantType.QInt8,
            extra_options={"EnableSubgraph": True, "MatMulConstBOnly": True},
        )
    for path in (folder / "onnx").iterdir():
        if not path.stem.endswith("_quantized"):
            path.unlink()


def _transpose_weights(graph: "onnx.GraphProto") -> None:
    """Stores weights as the matmuls of a graph and of its branches read them.

    The tracer leaves the transposition to the graph, as both decoders have to name a weight alike.
    A matmul is quantised only by what is stored.
    """
    from onnx import numpy_helper

    weights = {weight.name: weight for weight in graph.initializer}
    matrices = {name for name, weight in weights.items() if len(weight.dims) == 2}
    turned = {}
    branches = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    for part in (graph, *branches):
        found = [n for n in part.node if n.op_type == "Transpose" and n.input[0] in matrices]
        names = {node.output[0]: f"{node.input[0]}_transposed" for node in found}
        for node in found:
            array = numpy_helper.to_array(weights[node.input[0]]).T.copy()
            name = names[node.output[0]]
            turned[name] = numpy_helper.from_array(array, name)
            part.node.remove(node)
        for node in part.node:
            node.input[:] = [names.get(name, name) for name in node.input]
    used = {name for part in (graph, *branches) for node in part.node for name in node.input}
    del graph.initializer[:]
    graph.initializer.extend(w for w in (*weights.values(), *turned.values()) if w.name in used)


if __name__ == "__main__":
    main(sys.argv[1:])
