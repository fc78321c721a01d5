"""A checkpoint in, a model folder out."""

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import onnxscript
import torch
import transformers

from florence_onnx.assets.writing import write_assets
from florence_onnx.checkpoints.checkpoint import check_values, read_checkpoint
from florence_onnx.engine import contract
from florence_onnx.errors import ExportError, FlorenceError, OutputExistsError, PrecisionError
from florence_onnx.staging import staged_folder
from florence_onnx_export.graphs.reference import compare_with_transformers, transformers_model
from florence_onnx_export.graphs.specs import build_specs
from florence_onnx_export.graphs.tracing import OPSET, trace
from florence_onnx_export.graphs.validation import TOLERANCE, validate
from florence_onnx_export.ownership import check_apart, digests, exported_files
from florence_onnx_export.quantization.quantize import Reference, make_precision
from florence_onnx_export.report import REPORT, write_report
from florence_onnx_export.weights import torch_weights

Progress = Callable[[str], None]


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
        source: A local folder or hub id, in Microsoft's or transformers' format.
        out: The model folder to write; it appears whole or not at all.
        precisions: Precisions to write, of `contract.PRECISIONS`.
        force: Whether the files of an export that is in ``out`` are replaced; other files stay.
        accept_error: Whether precisions below fp32 are written whatever their error.
        progress: Called with a line of text at the start of every long step.

    Returns:
        The content of export_report.json.

    Raises:
        CheckpointError: The checkpoint cannot be read or is not a Florence-2.
        ValidationError: A module or graph does not agree with the reference, or a precision is
            beyond its bounds.
        OutputExistsError: ``out`` exists and ``force`` is false, or no export has written it, or
            something else has the name of one of its files.
        PrecisionError: An unknown precision.
        ExportError: The disk is full, or the folder cannot be written, or another process is
            writing there.
    """
    unknown = [name for name in precisions if name not in contract.PRECISIONS]
    if unknown:
        raise PrecisionError(
            f"unknown precision {unknown[0]!r}; choose from {', '.join(contract.PRECISIONS)}"
        )

    def replaced(folder: Path) -> set[str]:
        if not force:
            raise OutputExistsError(f"{out} exists; choose another folder or pass --force")
        check_apart(folder, source)
        return exported_files(folder)

    try:
        with staged_folder(out, replaced) as folder:
            report = _export_into(folder, source, precisions, accept_error, progress)
            write_report(folder / REPORT, report)
            return report
    except FlorenceError:
        raise
    except OSError as error:
        raise ExportError(f"exporting to {out} failed: {error}") from error


def _export_into(
    folder: Path,
    source: str | Path,
    precisions: Sequence[str],
    accept_error: bool,
    progress: Progress,
) -> dict[str, Any]:
    seconds: dict[str, float] = {}

    @contextmanager
    def step(name: str, message: str) -> Iterator[None]:
        progress(message)
        start = time.perf_counter()
        yield
        seconds[name] = round(time.perf_counter() - start, 2)

    with step("read", f"reading {source}"):
        checkpoint = read_checkpoint(source)
        check_values(checkpoint)
        weights = torch_weights(checkpoint)
        repairs = write_assets(checkpoint.folder, checkpoint.config, checkpoint.raw_config, folder)
    for repair in repairs:
        progress(f"note: {repair}")
    with step("compare", "comparing the export modules with transformers"):
        specs = build_specs(checkpoint.config, weights)
        traced = specs[0].sizes[0]
        reference = transformers_model(checkpoint.config, weights)
        modules = compare_with_transformers(
            specs,
            reference,
            height=traced.width,
            width=traced.height,  # tall, as tracing is wide
        )
    checks = []
    for spec in specs:
        path = folder / contract.graph_file(spec.name, "fp32")
        path.parent.mkdir(exist_ok=True)
        with step(f"{spec.name} fp32", f"tracing and validating {path.name}"):
            trace(spec, path)
            checks += [check.to_dict() for check in validate(spec, path, "fp32")]
    others = _add_precisions(folder, precisions, accept_error, progress)
    return {
        "checkpoint": str(source),
        "format": checkpoint.format,
        "repairs": repairs,
        "parameters": checkpoint.parameters,
        "opset": OPSET,
        "versions": _versions(),
        "platform": platform.platform(),
        "seconds": seconds,
        "bytes": {path.name: path.stat().st_size for path in sorted(folder.glob("onnx/*"))},
        "tolerance": TOLERANCE,
        "modules_against_transformers": modules,
        "graphs_against_pytorch": checks,
        "precisions": others,
        "files": digests(folder, _files(folder, precisions)),
    }


def _files(folder: Path, precisions: Sequence[str]) -> list[Path]:
    """What the report lists besides the files of other precisions, which have entries there."""
    graphs = contract.GRAPHS if "fp32" in precisions else ()
    parts = [part for graph in graphs for part in contract.graph_parts(folder, graph, "fp32")]
    return [*(folder / name for name in contract.ASSETS), *parts]


def _add_precisions(
    folder: Path, precisions: Sequence[str], accept_error: bool, progress: Progress
) -> dict[str, Any]:
    """Makes the other precisions from float32, which goes if it was not asked for."""
    others = [name for name in dict.fromkeys(precisions) if name != "fp32"]
    entries = {}
    if others:
        progress("running the float32 graphs")
        reference = Reference(folder)
        for name in others:
            entries[name] = make_precision(reference, name, folder, accept_error, progress)
    if "fp32" not in precisions:
        for graph in contract.GRAPHS:
            for path in contract.graph_parts(folder, graph, "fp32"):
                path.unlink()
    return entries


def _versions() -> dict[str, str]:
    """Asked of the packages themselves: onnxruntime is installed under several names."""
    return {
        "python": platform.python_version(),
        "florence-onnx": metadata.version("florence-onnx"),
        **{p.__name__: p.__version__ for p in (torch, transformers, onnx, onnxscript, onnxruntime)},
    }
