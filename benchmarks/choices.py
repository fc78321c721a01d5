"""Measures error, time and size of every method to quantise the matmuls of a graph.

    python -m benchmarks.choices
    python -m benchmarks.choices --model tests/fixtures/demo --out choices.json

A method is used for all weights of a graph that can have the method. The graph is then timed, in
turn with the other choices, on the first inputs (for the decoder, one step of one answer). The
error is that of the graph's outputs relative to float32. The row of a precision has the methods
with which the precision begins.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import onnx
import onnxruntime as ort

from benchmarks.harness.checkpoint import prepare
from benchmarks.harness.common import Setup, make_parser, progress, publish
from benchmarks.harness.measuring import Samples, alternate, compare_sides, describe, seconds
from florence_onnx.engine import contract
from florence_onnx.engine.options import default_options
from florence_onnx_export.quantization.methods import (
    CHANNELS,
    FP32,
    METHODS,
    STORED,
)
from florence_onnx_export.quantization.mixed import Measured
from florence_onnx_export.quantization.reference import SAMPLES, Reference

QUANTIZED = (contract.VISION_ENCODER, contract.ENCODER, contract.DECODER)


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    arguments = make_parser(__doc__, repeats=7, precisions=False).parse_args(argv)
    arguments.precision = ["fp32"]
    setup = prepare(arguments)
    publish("choices", arguments, argv, compare(setup, arguments.repeats), setup.provider)


def compare(setup: Setup, repeats: int) -> dict[str, Any]:
    """Measures error, time and size of every choice."""
    reference = Reference(setup.exported, SAMPLES)
    values: dict[str, Any] = {}
    ratios: dict[str, Any] = {}
    for graph in QUANTIZED:
        progress(graph)
        measured = reference.measured(graph)
        choices = _choices(graph, measured)
        models = {name: measured.quantized(methods) for name, methods in choices.items()}
        times = _times(setup, graph, measured, models, repeats)
        for name, methods in choices.items():
            values[f"{graph}, {name}"] = {
                "error": {**describe([100 * measured.error(methods)]), "unit": "%"},
                "time": describe(times[name]),
                "file": {**describe([models[name].ByteSize() / 1e6]), "unit": "MB"},
            }
        sides = {name if name == FP32 else f"ours {name}": found for name, found in times.items()}
        ratios |= compare_sides(graph, sides)
    return {"unit": "s", "values": values, "ratios": ratios}


def _choices(graph: str, measured: Measured) -> dict[str, dict[str, str]]:
    """Name of a choice -> weight name -> method."""
    choices: dict[str, dict[str, str]] = {FP32: {}}
    for method in METHODS:
        choices[method] = dict.fromkeys(measured.matmuls, method)
    others = {STORED: measured.stored, CHANNELS: measured.channels}
    choices |= {method: dict.fromkeys(names, method) for method, names in others.items() if names}
    for precision in ("q8", "q4"):
        ways = measured.levels(precision, graph)
        choices[precision] = {name: methods[0] for name, methods in ways.items()}
    return choices


def _times(
    setup: Setup,
    graph: str,
    measured: Measured,
    models: Mapping[str, onnx.ModelProto],
    repeats: int,
) -> Samples:
    sessions = {
        name: ort.InferenceSession(
            model.SerializeToString(),
            default_options(graph, "fp32" if name == FP32 else "q8", setup.threads),
            providers=setup.providers,
        )
        for name, model in models.items()
    }

    def run(session: ort.InferenceSession) -> float:
        return seconds(lambda: session.run(measured.outputs, measured.feeds[0]))

    return alternate({name: partial(run, session) for name, session in sessions.items()}, repeats)


if __name__ == "__main__":
    main(sys.argv[1:])
