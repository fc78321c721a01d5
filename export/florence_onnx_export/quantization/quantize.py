"""Quantisation of a model folder: graphs of lower precision beside the float32 graphs."""

import math
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from florence_onnx.assets.reading import Assets
from florence_onnx.assets.report import REPORT, read_report, write_report
from florence_onnx.engine import contract
from florence_onnx.engine.layouts import SLOTS
from florence_onnx.engine.present import check_precision
from florence_onnx.errors import (
    ExportError,
    FlorenceError,
    ModelFileError,
    OutputExistsError,
    PrecisionError,
    ValidationError,
)
from florence_onnx.exporting import SHARES
from florence_onnx.resolver import DEMO
from florence_onnx.space import require_space
from florence_onnx.staging import finish_replacement, staged_folder
from florence_onnx_export.graphs.files import save_graph
from florence_onnx_export.graphs.half_storage import load_float32
from florence_onnx_export.quantization.bounds import BOUNDS, GRAPH_LIMITS, beyond_bounds
from florence_onnx_export.quantization.embedding import quantize_table
from florence_onnx_export.quantization.entries import make_entry
from florence_onnx_export.quantization.float16 import to_half
from florence_onnx_export.quantization.mixed import choose, choose_together
from florence_onnx_export.quantization.pictures import own_pictures
from florence_onnx_export.quantization.reference import Reference
from florence_onnx_export.quantization.running import return_freed_memory

Progress = Callable[[str], None]


def quantize(
    folder: Path,
    precisions: Sequence[str],
    force: bool = False,
    accept_error: bool = False,
    pictures: Path | None = None,
    progress: Progress = lambda message: None,
    fast: bool = False,
) -> dict[str, Any]:
    """Adds graphs of other precisions to a model folder, and their errors to the report.

    Args:
        folder: Model folder with float32 graphs.
        precisions: Keys of `BOUNDS`.
        force: Whether existing graphs of these precisions are replaced.
        accept_error: Whether all matmuls are quantised and the graphs written whatever the error.
        pictures: Folder of pictures for calibration, in place of drawn pictures. Every second
            picture is held back for the measurement of errors.
        progress: Called with a line of text at the start of every long step.
        fast: Whether fewer pictures are rounded for and measured on. The bounds are the same.

    Returns:
        The report's entry per precision.

    Raises:
        PrecisionError: A precision is unknown, or the folder has no float32 graphs.
        OutputExistsError: Graphs of a precision exist and ``force`` is false, or the folder is the
            installed demo.
        InputError: ``pictures`` is no folder, or too few pictures in it can be read.
        DiskSpaceError: The disk has too little free space.
        ValidationError: A precision is beyond its bounds and ``accept_error`` is false.
        ModelError: The folder's files cannot be used.
        ExportError: The disk is full, or the folder cannot be written, or another process is
            writing there.
    """
    check_quantizable(precisions)
    _check_not_installed(folder)
    finish_replacement(folder)
    if check_precision(folder, "fp32") is not SLOTS:
        raise PrecisionError(
            f"the graphs of {folder} are in the layout of transformers.js, of which no other "
            "precisions are made here; export the checkpoint with florence-onnx export"
        )
    _check_writable(folder)
    _check_weights_here(folder)
    size = sum(path.stat().st_size for path in _parts(folder, "fp32") if path.exists())
    require_space(folder, int(size * sum(SHARES[name] for name in precisions)), "quantising")
    read_report(folder)  # A broken report is refused before the work, not after.
    for precision in precisions:
        _replaced(folder, precision, force)
    try:
        reference = _reference(folder, pictures, fast, progress)
        return {
            precision: _add_precision(reference, precision, force, accept_error, progress)
            for precision in precisions
        }
    except FlorenceError:
        raise
    except OSError as error:
        raise ExportError(f"quantising {folder} failed: {error}") from error


def add_precisions(
    folder: Path,
    precisions: Sequence[str],
    progress: Progress,
    accept_error: bool,
    pictures: Path | None = None,
    fast: bool = False,
) -> dict[str, Any]:
    """Makes precisions from the float32 graphs, and removes float32 if nobody asked for it."""
    others = [name for name in dict.fromkeys(precisions) if name != "fp32"]
    entries = {}
    if others:
        reference = _reference(folder, pictures, fast, progress)
        for name in others:
            entries[name] = make_precision(reference, name, folder, accept_error, progress)
    if "fp32" not in precisions:
        for graph in contract.GRAPHS:
            for path in SLOTS.parts(folder, graph, "fp32"):
                path.unlink()
    return entries


def _reference(folder: Path, pictures: Path | None, fast: bool, progress: Progress) -> Reference:
    own = pictures and own_pictures(pictures, Assets.read(folder), progress, fast)
    progress("running the float32 graphs")
    return Reference(folder, own=own or None, fast=fast)


def check_quantizable(precisions: Sequence[str]) -> None:
    """Raises PrecisionError for a precision that cannot be made from float32."""
    unknown = [name for name in precisions if name not in BOUNDS]
    if unknown:
        raise PrecisionError(
            f"cannot quantise to precision {unknown[0]!r}; choose from {', '.join(BOUNDS)}"
        )


def _check_not_installed(folder: Path) -> None:
    """Refuses the installed demo: an update of the package would not replace added graphs."""
    if folder.resolve() == DEMO.resolve():
        raise OutputExistsError(
            f"{folder} belongs to the installed package; quantise a copy: cp -r {folder} my-demo"
        )


def _check_writable(folder: Path) -> None:
    """Refuses a folder before the work whose result could not be written."""
    for place in (folder, folder / "onnx"):
        if place.exists() and not os.access(place, os.W_OK):
            raise ExportError(
                f"{place} cannot be written; quantise a copy: "
                f"cp -rL {shlex.quote(str(folder))} COPY"
            )


def _check_weights_here(folder: Path) -> None:
    """Refuses links to weights elsewhere: ONNX Runtime runs no changed graph with such weights."""
    for path in _parts(folder, "fp32"):
        real = path.resolve()
        if path.name.endswith(contract.DATA_SUFFIX) and real.parent != path.parent.resolve():
            raise ModelFileError(
                f"{path} is a link to {real}; quantise a copy without links: "
                f"cp -rL {shlex.quote(str(folder))} COPY"
            )


def _replaced(folder: Path, precision: str, force: bool) -> set[str]:
    """Files that new graphs of a precision replace, the report included."""
    there = [path for path in _parts(folder, precision) if path.exists()]
    if there and not force:
        raise OutputExistsError(f"{there[0]} exists; pass --force to replace it")
    return {REPORT, *(path.relative_to(folder).as_posix() for path in there)}


def _add_precision(
    reference: Reference, precision: str, force: bool, accept_error: bool, progress: Progress
) -> dict[str, Any]:
    """Adds the graphs of a precision and the entry in the report: all of these or nothing."""
    folder = reference.folder
    with staged_folder(folder, lambda _: _replaced(folder, precision, force)) as staging:
        entry = make_precision(reference, precision, staging, accept_error, progress)
        report = read_report(folder)
        report["precisions"] = {**report.get("precisions", {}), precision: entry}
        write_report(staging / REPORT, report)
    return entry


def make_precision(
    reference: Reference,
    precision: str,
    folder: Path,
    accept_error: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Writes the graphs of one precision to ``folder`` and returns the entry in the report.

    At first all matmuls are quantised. Some matmuls keep more bits only if the errors are then
    beyond the bounds. Where that should be fast, the vision encoder gets more bits as soon as its
    own error is beyond the bound of the image features.

    Raises:
        ValidationError: The errors are beyond the bounds and ``accept_error`` is false.
    """
    start = time.perf_counter()
    limits = dict.fromkeys(contract.GRAPHS, math.inf)
    if reference.fast and not accept_error:
        limits[contract.VISION_ENCODER] = BOUNDS[precision].image_features
    mixed = _write(reference, precision, folder, limits, progress)
    fidelity = reference.fidelity(folder, precision)
    beyond = "" if accept_error else beyond_bounds(precision, fidelity, BOUNDS[precision])
    if beyond and precision in GRAPH_LIMITS:
        progress(beyond)
        limits = dict(GRAPH_LIMITS[precision])
        if reference.fast and fidelity.image_features <= BOUNDS[precision].image_features:
            del limits[contract.VISION_ENCODER]
        mixed |= _write(reference, precision, folder, limits, progress)
        fidelity = reference.fidelity(folder, precision)
        beyond = beyond_bounds(precision, fidelity, BOUNDS[precision])
    if beyond:
        raise ValidationError(f"{beyond}; pass --accept-error to write it all the same")
    more: dict[str, Any] = {"fast": True} if reference.fast else {}
    if reference.own:
        more["pictures"] = reference.own.to_dict()
    more["mixed_precision"] = {graph: methods for graph, methods in mixed.items() if methods}
    return make_entry(folder, _parts(folder, precision), start, fidelity, BOUNDS[precision], more)


def _write(
    reference: Reference,
    precision: str,
    folder: Path,
    limits: Mapping[str, float],
    progress: Progress,
) -> dict[str, dict[str, str]]:
    """Writes graphs, each with an error within its limit, as far as more bits can bring it there.

    Returns:
        Graph -> the methods of the matmuls that keep more bits.
    """
    mixed = {}
    for graph, limit in limits.items():
        path = folder / contract.graph_file(graph, precision)
        path.parent.mkdir(exist_ok=True)
        progress(f"writing and measuring {path.name}")
        mixed[graph] = _write_graph(reference, graph, precision, path, limit, progress)
        return_freed_memory()
    progress(f"comparing {precision} with float32")
    return mixed


def _write_graph(
    reference: Reference,
    graph: str,
    precision: str,
    path: Path,
    limit: float,
    progress: Progress,
) -> dict[str, str]:
    """Writes one graph; returns the methods of the matmuls that keep more bits."""
    if precision == "fp16" or graph == contract.EMBED_TOKENS:
        model = load_float32(SLOTS.path(reference.folder, graph, "fp32"))
        if precision == "fp16":
            to_half(model)
        else:
            quantize_table(model)
        save_graph(model, path)
        return {}
    measured = reference.measured(graph)
    tried = measured.levels(precision, graph)
    methods = fastest = {name: ways[0] for name, ways in tried.items()}
    if limit < math.inf:
        choice = choose_together if reference.fast else choose
        methods = choice(measured, tried, limit, progress).methods
    save_graph(measured.quantized(methods), path)
    return {name: method for name, method in methods.items() if method != fastest[name]}


def _parts(folder: Path, precision: str) -> list[Path]:
    return [path for g in contract.GRAPHS for path in SLOTS.parts(folder, g, precision)]
