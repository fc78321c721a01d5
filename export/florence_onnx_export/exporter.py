"""Export of a checkpoint to a model folder, with graphs traced by torch."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import onnxscript
import torch
import transformers

from florence_onnx import exporting
from florence_onnx.checkpoints.checkpoint import Checkpoint
from florence_onnx.engine import contract
from florence_onnx.engine.hub_contract import SHARED
from florence_onnx.engine.layouts import SLOTS, WITH_PAIR, Layout
from florence_onnx.exporting import Progress, Steps
from florence_onnx_export.graphs.hub_specs import build_hub_specs
from florence_onnx_export.graphs.merging import merge_decoders
from florence_onnx_export.graphs.reference import compare_with_transformers, transformers_model
from florence_onnx_export.graphs.specs import GraphSpec, build_specs
from florence_onnx_export.graphs.tracing import OPSET, trace
from florence_onnx_export.graphs.validation import TOLERANCE, validate
from florence_onnx_export.quantization.quantize import add_precisions
from florence_onnx_export.weights import torch_weights


def export(
    source: str | Path,
    out: Path,
    precisions: Sequence[str] = ("fp32",),
    force: bool = False,
    accept_error: bool = False,
    progress: Progress = lambda message: None,
) -> dict[str, Any]:
    """Exports a Florence-2 checkpoint to a folder that `florence_onnx` runs.

    Args:
        source: Local folder or hub id, in Microsoft's or transformers' format.
        out: Model folder to write. The folder appears whole or not at all.
        precisions: Precisions to write, of `contract.PRECISIONS`.
        force: Whether the files of an earlier export in ``out`` are replaced. Other files stay.
        accept_error: Whether precisions below fp32 are written whatever the error.
        progress: Called with a line of text at the start of every long step.

    Returns:
        The content of export_report.json.

    Raises:
        CheckpointError: The checkpoint cannot be read or is not a Florence-2.
        ValidationError: A module or graph does not agree with the reference, or a precision is
            beyond its bounds.
        OutputExistsError: ``out`` exists and ``force`` is false, or ``out`` was not written by an
            export, or another file has the name of a file to write.
        PrecisionError: A precision is unknown.
        ExportError: The disk is full, or the folder cannot be written, or another process is
            writing there.
    """
    return exporting.export(
        source,
        out,
        trace_graphs,
        add_precisions=partial(add_precisions, accept_error=accept_error),
        precisions=precisions,
        force=force,
        progress=progress,
    )


def trace_graphs(
    checkpoint: Checkpoint, folder: Path, steps: Steps, layout: Layout = SLOTS
) -> dict[str, Any]:
    """Compares the modules with transformers, traces them, and compares graphs with modules.

    See `florence_onnx.exporting.WriteGraphs`.
    """
    with steps.step("compare", "comparing the export modules with transformers"):
        modules = _compare_modules(checkpoint)
        specs = _specs(checkpoint, layout)
    checks = []
    for spec in specs:
        path = folder / contract.graph_file(spec.name, "fp32")
        path.parent.mkdir(exist_ok=True)
        with steps.step(f"{spec.name} fp32", f"tracing and validating {path.name}"):
            trace(spec, path)
            checks += [check.to_dict() for check in validate(spec, path, "fp32")]
    if layout is not SLOTS:
        with steps.step("merge", "putting both decoders into one graph"):
            merge_decoders(folder, "fp32", keep=layout is WITH_PAIR)
    return {
        "opset": OPSET,
        "tolerance": TOLERANCE,
        "modules_against_transformers": modules,
        "graphs_against_pytorch": checks,
        "versions": {
            # From the packages, because onnxruntime is installed under several names.
            package.__name__: package.__version__
            for package in (torch, transformers, onnx, onnxscript, onnxruntime)
        },
    }


def _specs(checkpoint: Checkpoint, layout: Layout) -> list[GraphSpec]:
    """Makes the specs of the graphs to trace."""
    weights = torch_weights(checkpoint)
    own = build_specs(checkpoint.config, weights)
    if layout is SLOTS:
        return own
    others = build_hub_specs(checkpoint.config, weights)
    return [spec for spec in own if spec.name in SHARED] + others


def _compare_modules(checkpoint: Checkpoint) -> dict[str, float]:
    """Compares each stage with the same stage of transformers; returns the differences."""
    weights = torch_weights(checkpoint, torch.float64)
    specs = build_specs(checkpoint.config, weights)
    traced = specs[0].sizes[0]
    return compare_with_transformers(
        specs,
        transformers_model(checkpoint.config, weights),
        height=traced.width,
        width=traced.height,  # a tall picture, because the traced picture is wide
    )
