"""Profiles the vision encoder and the text encoder, operator by operator.

    python -m benchmarks.profile
    python -m benchmarks.profile --precision fp32 q8

The times are from ONNX Runtime's own profiler. For matmuls the script also counts the operations,
to compare their rate with the peak of the processor.
"""

import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from benchmarks.harness.checkpoint import prepare
from benchmarks.harness.common import Setup, make_parser, make_picture, progress, publish
from benchmarks.harness.measuring import summarise
from florence_onnx.assets.reading import Assets
from florence_onnx.engine import contract
from florence_onnx.engine.options import default_options

Array = npt.NDArray[Any]

PROMPT = 12
"""Number of text tokens behind the picture: a longer prompt."""

_MATMULS = {
    *("MatMul", "Gemm", "FusedMatMul", "FusedGemm"),
    *("DynamicQuantizeMatMul", "MatMulIntegerToFloat"),
    *("Attention", "MultiHeadAttention"),
}


@dataclass(frozen=True)
class Operator:
    """Operators of one kind in one run."""

    seconds: float
    """Seconds of all nodes of the kind."""
    flop: float
    """Floating-point (or integer) operations of matmuls; 0 for other kinds."""


def main(argv: Sequence[str]) -> None:
    """Profiles and publishes."""
    arguments = make_parser(__doc__, repeats=5).parse_args(argv)
    setup = prepare(arguments)
    samples: dict[str, dict[str, list[float]]] = defaultdict(dict)
    notes = []
    for precision in arguments.precision:
        feeds = _picture(setup)
        for graph in (contract.VISION_ENCODER, contract.ENCODER):
            progress(f"{graph} {precision}")
            column = f"ours {precision} {graph}"
            output, runs = profile(setup, graph, precision, feeds, arguments.repeats)
            feeds = _with_prompt(output)
            for kind in {kind for run in runs for kind in run}:
                samples[kind][column] = [run[kind].seconds for run in runs]
            notes.append(_rate(column, runs))
    content = {**summarise(_largest(samples)), "notes": notes}
    publish("profile", arguments, argv, content, setup.provider)


def _largest(samples: Mapping[str, dict[str, list[float]]]) -> dict[str, dict[str, list[float]]]:
    """Kinds that take a hundredth of a graph or more, the longest first."""
    whole: dict[str, float] = defaultdict(float)
    for columns in samples.values():
        for column, times in columns.items():
            whole[column] += median(times)

    def share(kind: str) -> float:
        return max(median(times) / whole[column] for column, times in samples[kind].items())

    kinds = sorted(samples, key=share, reverse=True)
    return {kind: samples[kind] for kind in kinds if share(kind) >= 0.01}


def profile(
    setup: Setup, graph: str, precision: str, feeds: Mapping[str, Array], runs: int
) -> tuple[Array, list[dict[str, Operator]]]:
    """Profiles a graph; returns the first output and, per run, operators by kind."""
    options = default_options(graph, precision, setup.threads)
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        path = setup.exported / contract.graph_file(graph, precision)
        session = ort.InferenceSession(str(path), options, providers=setup.providers)
        for _ in range(runs + 1):
            output, *_ = session.run(None, dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    noted = [event for event in events if event.get("cat") in ("Node", "Session")]
    return np.asarray(output), _by_run(noted)[1:]


def _picture(setup: Setup) -> dict[str, Array]:
    pixels = Assets.read(setup.exported).preprocessor(make_picture())
    return {"pixel_values": pixels[None]}


def _with_prompt(image_features: Array) -> dict[str, Array]:
    """Makes inputs of the text encoder for a picture, with random embeddings as the prompt."""
    width = image_features.shape[2]
    prompt = np.random.default_rng(0).standard_normal((1, PROMPT, width), np.float32)
    embeds = np.concatenate([image_features, prompt], axis=1)
    return {"attention_mask": np.ones(embeds.shape[:2], np.int64), "inputs_embeds": embeds}


def _by_run(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Operator]]:
    """Sums the nodes of every run. An event of the session ends a run."""
    runs: list[dict[str, Operator]] = []
    current: dict[str, Operator] = {}
    for event in sorted(events, key=lambda event: event["ts"] + event["dur"]):
        if event["cat"] == "Session":
            if event["name"] == "model_run":
                runs.append(current)
                current = {}
        elif event["name"].endswith("_kernel_time"):
            kind = event["args"]["op_name"]
            if kind == "If":
                continue  # The nodes of the branch have their own events.
            before = current.get(kind, Operator(0.0, 0.0))
            flop = flop_of(event["args"]) if kind in _MATMULS else 0.0
            current[kind] = Operator(before.seconds + event["dur"] / 1e6, before.flop + flop)
    return runs


def flop_of(arguments: Mapping[str, Any]) -> float:
    """Operations of a matmul: two per pair of numbers that are multiplied."""
    inputs = [next(iter(shape.values())) for shape in arguments["input_type_shape"]]
    outputs = [next(iter(shape.values())) for shape in arguments["output_type_shape"]]
    kind = arguments["op_name"]
    if kind == "DynamicQuantizeMatMul":  # The profiler does not note packed weights.
        return float(2 * np.prod(outputs[0]) * inputs[0][-1])
    if kind == "MultiHeadAttention":
        return float(2 * np.prod(inputs[0]) * 2 * inputs[1][1])
    if kind == "Attention":
        batch, tokens, _ = inputs[0]
        pairs = inputs[1][0] * inputs[1][1] + 2 * tokens * outputs[0][2]
        return float(2 * batch * tokens * pairs)
    # Both factors have the summed axis, and the result does not.
    shared = np.prod(inputs[0][-2:]) * np.prod(inputs[1][-2:]) / np.prod(outputs[0][-2:])
    return 2.0 * float(np.prod(outputs[0])) * float(np.sqrt(shared))


def _rate(column: str, runs: Sequence[Mapping[str, Operator]]) -> str:
    run = runs[len(runs) // 2]
    flop = sum(operator.flop for operator in run.values())
    seconds = sum(operator.seconds for operator in run.values() if operator.flop)
    whole = sum(operator.seconds for operator in run.values())
    return (
        f"{column}: matmuls are {flop / 1e9:.0f} GFLOP at {flop / seconds / 1e9:.0f} GFLOP/s and "
        f"{seconds / whole:.0%} of the time."
    )


if __name__ == "__main__":
    main(sys.argv[1:])
