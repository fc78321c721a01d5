"""Command ``florence-onnx export``: a PyTorch checkpoint to a model folder."""

import argparse
import importlib
import os
from functools import partial

from florence_onnx.assets.ownership import replaced_files
from florence_onnx.checkpoints.checkpoint import Checkpoint
from florence_onnx.cli.exporting import (
    add_accept_error,
    add_checkpoint,
    comma_list,
    print_precisions,
    requested_checkpoint,
    require_quantizing,
    timed_progress,
)
from florence_onnx.cli.options import add_hub_options, path, requested_access
from florence_onnx.cli.status import exit_on_termination
from florence_onnx.engine import contract
from florence_onnx.exporting import AddPrecisions, WriteGraphs, check_precisions, export
from florence_onnx.packages import require_packages
from florence_onnx.skeletons.filling import find_skeleton
from florence_onnx.skeletons.writing import write_graphs
from florence_onnx.terminal import show

NAME = "export"
SUMMARY = "Export a Florence-2 checkpoint to ONNX."
EXAMPLES = """examples:
  florence-onnx export microsoft/Florence-2-base base-onnx
  florence-onnx export ./my-fine-tune my-onnx --force
  florence-onnx export ./my-fine-tune my-onnx --precision fp32,q8
  florence-onnx export ./my-adapter my-onnx --base microsoft/Florence-2-base-ft
  florence-onnx export org/name:folder my-onnx --companions microsoft/Florence-2-base

CHECKPOINT is in Microsoft's or transformers' format, .bin or safetensors, or a LoRA adapter of
peft, which is merged into its base model. florence-onnx doctor examines CHECKPOINT, without export.
The graphs of the released geometries, base and large, come with this package and are filled with
the checkpoint's weights. Any other geometry is traced, which needs torch:
pip install 'florence-onnx[export]'.
OUT appears whole or not at all. OUT/export_report.json lists the files of OUT, and says how far a
traced output is from PyTorch and every other precision from fp32.
"""

_NEEDED = ("torch", "transformers", "onnx", "onnxscript", "safetensors", "onnxruntime", "PIL")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_checkpoint(parser)
    parser.add_argument("out", metavar="OUT", type=path, help="model folder to write")
    parser.add_argument(
        "--precision",
        default="fp32",
        type=comma_list,
        metavar="P,P",
        help=f"precisions to write, of {', '.join(contract.PRECISIONS)} (default fp32)",
    )
    parser.add_argument(
        "--with",
        dest="ways",
        choices=["torch"],
        help="trace the graphs with torch also where the geometry is a released one",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace the export that is in OUT; other files stay"
    )
    add_accept_error(parser)
    add_hub_options(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    progress = timed_progress()
    asked = arguments.ways == "torch"
    if asked:
        require_packages(_NEEDED, "tracing a checkpoint", "export")
    released = find_skeleton(_check(arguments).config) is not None
    traced = asked or not released
    if traced:
        why = "as --with torch asks" if asked else "because its geometry is no released one"
        require_packages(_NEEDED, f"tracing the checkpoint, {why},", "export")
        progress(f"tracing the graphs with torch, {why}")
    if set(arguments.precision) - {"fp32"}:
        require_quantizing()
    with exit_on_termination():
        report = export(
            arguments.checkpoint,
            arguments.out,
            _writer(traced),
            add_precisions=_adder(arguments),
            precisions=arguments.precision,
            access=requested_access(arguments),
            force=arguments.force,
            base=arguments.base,
            companions=arguments.companions,
            progress=progress,
        )
    size = sum(report["bytes"].values()) / 1e6
    checks = report.get("graphs_against_pytorch", ())
    worst = max((check["max_rel_diff"] for check in checks), default=None)
    compared = "" if worst is None else f", at most {worst:.1e} from PyTorch (relative)"
    show(f"{arguments.out}: {size:.0f} MB{compared}")
    print_precisions(report["precisions"])
    return 0


def _writer(traced: bool) -> WriteGraphs:
    if not traced:
        return write_graphs
    writer: WriteGraphs = importlib.import_module("florence_onnx_export.exporter").trace_graphs
    return writer


def _adder(arguments: argparse.Namespace) -> AddPrecisions | None:
    if arguments.precision == ["fp32"]:
        return None
    quantizing = importlib.import_module("florence_onnx_export.quantization.quantize")
    return partial(quantizing.add_precisions, accept_error=arguments.accept_error)


def _check(arguments: argparse.Namespace) -> Checkpoint:
    """Raises what the exporter would raise after the import of torch; returns the checkpoint."""
    check_precisions(arguments.precision)
    out, source = arguments.out, arguments.checkpoint
    if os.path.lexists(out):
        replaced_files(out, source, arguments.precision, arguments.force)
    return requested_checkpoint(arguments)
