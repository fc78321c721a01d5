"""Graphs of lower precision in the layout of transformers.js.

Weights are rounded to the nearest value, without calibration. Where an error is beyond its bound,
weights keep more bits: first those of the vision encoder, whose error is measured alone. Both
decoders are quantised with the same methods and then merged, so that weights are stored once.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
    Array,
    Fidelity,
    answer,
    compare,
    drawn_requests,
    relative_error,
)
from florence_onnx_export.quantization.float16 import to_half
from florence_onnx_export.quantization.matmuls import matmul_weights, replace_matmuls
from florence_onnx_export.quantization.methods import FP32, METHODS, STORED, levels
from florence_onnx_export.quantization.stored import storable_weights, store_weights

Progress = Callable[[str], None]

_HALVES = ("fp16", "q4f16")
"""Precisions in which all floating-point values are float16."""
_LIKE = {"q4f16": "q4"}
"""Precision -> precision of `BOUNDS` with weights in the same number of bits."""
_EXACT = "blocks8"
"""Most exact of the methods in 8 bits."""
_VISION_LADDER = ((), (_EXACT,), (_EXACT, FP32), (FP32,))
"""Methods to prefer to the fastest in the vision encoder, for one try after the other until the
error is allowed. Each weight has the first of these methods that it can have. Weights that are
stored in 8 bits cause half of the error."""
_VISION_LADDERS = {"fp16": _VISION_LADDER[:1], "q4f16": (_VISION_LADDER[0], _VISION_LADDER[-1])}
"""Precision -> the tries that differ in this precision, where these are not all."""
_DECODERS = (FIRST_DECODER, LATER_DECODER)
_EXACT_DECODERS: dict[str, tuple[str, ...]] = dict.fromkeys(_DECODERS, (_EXACT,))
_LADDER: tuple[dict[str, tuple[str, ...]], ...] = (
    {},
    {contract.ENCODER: (_EXACT,), **_EXACT_DECODERS},
    {contract.ENCODER: (FP32,), **_EXACT_DECODERS},
)
"""The same for the other graphs: graph -> methods."""


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
    tries = 1 if force or precision == "fp16" else None
    vision = _write_vision_encoder(folder, precision, wanted, tries, progress)
    for others in _LADDER[:tries]:
        for graph in SPLIT.graphs:
            if graph != contract.VISION_ENCODER:
                _write(folder, graph, precision, others.get(graph, ()), progress)
        merge_decoders(folder, precision, keep=layout is WITH_PAIR)
        progress(f"comparing {precision} with float32")
        fidelity = _fidelity(folder, precision, wanted)
        beyond = beyond_bounds(precision, fidelity, bounds)
        if not beyond:
            break
        progress(f"{beyond}; the other graphs keep more bits, as far as they may")
    if beyond and not force:
        raise ValidationError(f"{beyond}; pass --accept-error to write it all the same")
    parts = [part for graph in layout.graphs for part in layout.parts(folder, graph, precision)]
    more = {"preferred_methods": {contract.VISION_ENCODER: vision, **others}}
    return make_entry(folder, parts, start, fidelity, bounds, more)


def _write_vision_encoder(
    folder: Path, precision: str, wanted: Answers, tries: int | None, progress: Progress
) -> tuple[str, ...]:
    """Writes the vision encoder within its bound; returns the methods that were preferred."""
    bound = BOUNDS[_LIKE.get(precision, precision)].image_features
    ladder = _VISION_LADDERS.get(precision, _VISION_LADDER)[:tries]
    for methods in ladder:
        _write(folder, contract.VISION_ENCODER, precision, methods, progress)
        if methods is ladder[-1]:
            break
        error = relative_error(_image_features(folder, precision), wanted.features)
        if error <= bound:
            break
        progress(
            f"{precision}: image_features differs from float32 by {error:.2%}, and {bound:.0%} is "
            "allowed; the vision encoder keeps more bits"
        )
    return methods


def _write(
    folder: Path, graph: str, precision: str, methods: Sequence[str], progress: Progress
) -> None:
    path = folder / SPLIT.file(graph, precision)
    progress(f"writing {path.name}")
    model = load_float32(SPLIT.path(folder, graph, "fp32"))
    _convert(model, graph, precision, methods)
    save_graph(model, path)


def _convert(model: onnx.ModelProto, graph: str, precision: str, preferred: Sequence[str]) -> None:
    """Turns a float32 graph into a graph of this precision."""
    if precision != "fp16" and not (precision == "q4f16" and graph == contract.EMBED_TOKENS):
        if graph == contract.EMBED_TOKENS:
            quantize_table(model)
        else:
            _quantize(model, _methods(model.graph, graph, precision, preferred))
    if precision in _HALVES:
        to_half(model)


def _methods(
    graph: onnx.GraphProto, name: str, precision: str, preferred: Sequence[str]
) -> Mapping[str, str]:
    """Weight name -> name of the method of its matmuls."""
    is_decoder = name in _DECODERS
    stored = [] if precision in _HALVES else storable_weights(graph)
    tried = levels(
        _LIKE.get(precision, precision),
        contract.DECODER if is_decoder else name,
        list(matmul_weights(graph)),
        stored,
    )
    if not preferred and precision == "q4f16" and not is_decoder:
        preferred = (_EXACT,)  # Methods with one scale for all inputs take float32 only.
    return {
        weight: next((method for method in preferred if method in ways), ways[0])
        for weight, ways in tried.items()
    }


def _quantize(model: onnx.ModelProto, methods: Mapping[str, str]) -> None:
    replace_matmuls(model, {name: METHODS[key] for name, key in methods.items() if key in METHODS})
    store_weights(model, [name for name, key in methods.items() if key == STORED])


def _answers(folder: Path, precision: str, feed: Any = None) -> Answers:
    graphs = open_graphs(folder, precision, providers=["CPUExecutionProvider"])
    assets = Assets.read(folder)
    return answer(graphs, assets, drawn_requests(assets, range(PICTURES)), feed=feed)


def _image_features(folder: Path, precision: str) -> Array:
    """Image features of a precision, where only the vision encoder is there."""
    chosen = {contract.VISION_ENCODER: precision, "*": "fp32"}
    graphs = open_graphs(folder, chosen, providers=["CPUExecutionProvider"])
    requests = drawn_requests(Assets.read(folder), range(PICTURES))
    return np.concatenate([graphs.image_features(one.pixel_values) for one in requests])


def _fidelity(folder: Path, precision: str, wanted: Answers) -> Fidelity:
    found = _answers(folder, precision, wanted.fed)
    return compare(found, wanted, Assets.read(folder).tokenizer.eos_token_id)
