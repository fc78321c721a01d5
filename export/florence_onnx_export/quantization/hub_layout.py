"""Graphs of lower precision in the layout of transformers.js.

Weights are rounded to the nearest value, without calibration. Both decoders are quantised with the
same methods and then merged, so that common weights are stored once.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from florence_onnx.assets.reading import Assets
from florence_onnx.engine import contract
from florence_onnx.engine.hub_contract import FIRST_DECODER, LATER_DECODER
from florence_onnx.engine.layouts import SPLIT, WITH_PAIR, Layout
from florence_onnx.engine.sessions import open_graphs
from florence_onnx.errors import ValidationError
from florence_onnx_export.graphs.files import save_graph
from florence_onnx_export.graphs.half_storage import load_float32
from florence_onnx_export.graphs.merging import merge_decoders
from florence_onnx_export.quantization.bounds import BOUNDS, beyond_bounds
from florence_onnx_export.quantization.embedding import quantize_table
from florence_onnx_export.quantization.entries import make_entry
from florence_onnx_export.quantization.fidelity import (
    PICTURES,
    Answers,
    Fidelity,
    answer,
    compare,
    drawn_requests,
)
from florence_onnx_export.quantization.float16 import to_half
from florence_onnx_export.quantization.matmuls import matmul_weights, replace_matmuls
from florence_onnx_export.quantization.methods import METHODS, STORED, levels
from florence_onnx_export.quantization.stored import storable_weights, store_weights

Progress = Callable[[str], None]

_HALVES = ("fp16", "q4f16")
"""Precisions in which all floating-point values are float16."""
_LIKE = {"q4f16": "q4"}
"""Precision -> precision of `BOUNDS` with weights in the same number of bits."""
_EXACT = "blocks8"
"""Method of all matmuls where the fastest methods are beyond the bounds."""


def add_precisions(
    folder: Path, precisions: Sequence[str], progress: Progress, *, layout: Layout, force: bool
) -> dict[str, Any]:
    """Makes precisions from the float32 graphs, and removes float32 if nobody asked for it.

    See `florence_onnx.exporting.AddPrecisions`.

    Args:
        folder: Folder with the assets and the float32 graphs, both decoders among the graphs.
        precisions: Precisions to write.
        progress: Called with a line of text at the start of every long step.
        layout: Layout of the graphs.
        force: Whether precisions are written whatever the error.

    Raises:
        ValidationError: A precision is beyond its bounds, and ``force`` is false.
    """
    progress("running the float32 graphs")
    wanted = _answers(folder, "fp32")
    entries = {
        name: _make(folder, name, wanted, layout, force, progress)
        for name in dict.fromkeys(precisions)
        if name != "fp32"
    }
    unwanted = WITH_PAIR.graphs.keys() - (layout.graphs.keys() if "fp32" in precisions else ())
    for graph in unwanted:
        for path in WITH_PAIR.parts(folder, graph, "fp32"):
            path.unlink()
    return entries


def _make(
    folder: Path, precision: str, wanted: Answers, layout: Layout, force: bool, progress: Progress
) -> dict[str, Any]:
    """Writes the graphs of a precision; returns the precision's entry in the report."""
    start = time.perf_counter()
    bounds = BOUNDS[_LIKE.get(precision, precision)]
    for method in (None, _EXACT):
        for graph in SPLIT.graphs:
            path = folder / SPLIT.file(graph, precision)
            progress(f"writing {path.name}")
            model = load_float32(SPLIT.path(folder, graph, "fp32"))
            _convert(model, graph, precision, method)
            save_graph(model, path)
        merge_decoders(folder, precision, keep=layout is WITH_PAIR)
        progress(f"comparing {precision} with float32")
        fidelity = _fidelity(folder, precision, wanted)
        beyond = beyond_bounds(precision, fidelity, bounds)
        if not beyond or force or precision == "fp16":
            break
        progress(beyond)
    if beyond and not force:
        raise ValidationError(f"{beyond}; pass --accept-error to write it all the same")
    parts = [part for graph in layout.graphs for part in layout.parts(folder, graph, precision)]
    more = {"method": method or "fastest"}
    return make_entry(folder, parts, start, fidelity, bounds, more)


def _convert(model: onnx.ModelProto, graph: str, precision: str, method: str | None) -> None:
    """Turns a float32 graph into a graph of this precision."""
    if precision != "fp16" and not (precision == "q4f16" and graph == contract.EMBED_TOKENS):
        if graph == contract.EMBED_TOKENS:
            quantize_table(model)
        else:
            _quantize(model, _methods(model.graph, graph, precision, method))
    if precision in _HALVES:
        to_half(model)


def _methods(
    graph: onnx.GraphProto, name: str, precision: str, method: str | None
) -> Mapping[str, str]:
    """Weight name -> name of the method of its matmuls."""
    is_decoder = name in (FIRST_DECODER, LATER_DECODER)
    stored = [] if precision in _HALVES else storable_weights(graph)
    tried = levels(
        _LIKE.get(precision, precision),
        contract.DECODER if is_decoder else name,
        list(matmul_weights(graph)),
        stored,
    )
    if method is None and precision == "q4f16" and not is_decoder:
        method = _EXACT  # Methods with one scale for all inputs take float32 only.
    return {weight: method if method in ways else ways[0] for weight, ways in tried.items()}


def _quantize(model: onnx.ModelProto, methods: Mapping[str, str]) -> None:
    replace_matmuls(model, {name: METHODS[key] for name, key in methods.items() if key in METHODS})
    store_weights(model, {name: None for name, key in methods.items() if key == STORED})


def _answers(folder: Path, precision: str, feed: Any = None) -> Answers:
    graphs = open_graphs(folder, precision, providers=["CPUExecutionProvider"])
    assets = Assets.read(folder)
    return answer(graphs, assets, drawn_requests(assets, range(PICTURES)), feed=feed)


def _fidelity(folder: Path, precision: str, wanted: Answers) -> Fidelity:
    found = _answers(folder, precision, wanted.fed)
    return compare(found, wanted, Assets.read(folder).tokenizer.eos_token_id)
