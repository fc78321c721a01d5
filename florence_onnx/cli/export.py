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
    add_rounding,
    check_rounding,
    comma_list,
    given_rounding,
    print_precisions,
    requested_checkpoint,
    require_quantizing,
    timed_progress,
)
from florence_onnx.cli.options import add_hub_options, path, requested_access
from florence_onnx.cli.status import exit_on_termination
from florence_onnx.engine import contract
from florence_onnx.engine.layouts import MERGED, SLOTS, WITH_PAIR, Layout
from florence_onnx.errors import ExportError
from florence_onnx.exporting import AddPrecisions, WriteGraphs, check_precisions, export
from florence_onnx.packages import require_packages
from florence_onnx.skeletons.filling import find_skeleton
from florence_onnx.skeletons.writing import write_graphs
from florence_onnx.terminal import show

OWN, BROWSER = "florence-onnx", "transformers.js"
"""Choices of ``--layout``."""

NAME = "export"
SUMMARY = "Export a Florence-2 checkpoint to ONNX."
EXAMPLES = """examples:
  florence-onnx export microsoft/Florence-2-base base-onnx
  florence-onnx export ./my-fine-tune my-onnx --force
  florence-onnx export ./my-fine-tune my-onnx --precision fp32,q8
  florence-onnx export ./my-adapter my-onnx --base microsoft/Florence-2-base-ft
  florence-onnx export ./my-fine-tune my-onnx --layout transformers.js --precision fp32,q8
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
        help=f"precisions to write, of {', '.join(contract.PRECISIONS)}, and with --layout "
        f"{BROWSER} also q4f16 (default fp32)",
    )
    parser.add_argument(
        "--layout",
        default=OWN,
        choices=[OWN, BROWSER],
        help=f"graphs for this package, or for {BROWSER} in Node and browsers (default {OWN})",
    )
    parser.add_argument(
        "--split-decoder",
        action="store_true",
        help=f"with --layout {BROWSER}: write decoder_model and decoder_with_past_model too",
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
    add_rounding(parser)
    add_hub_options(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    progress = timed_progress()
    asked = arguments.ways == "torch"
    if asked:
        require_packages(_NEEDED, "tracing a checkpoint", "export")
    layout = _layout(arguments)
    config = _check(arguments).config
    traced = asked or find_skeleton(config, layout) is None
    if traced:
        released = find_skeleton(config) is not None
        why = "because its geometry is no released one"
        if asked or released:
            why = "as --with torch asks" if asked else f"as --layout {BROWSER} needs here"
        require_packages(_NEEDED, f"tracing the checkpoint, {why},", "export")
        progress(f"tracing the graphs with torch, {why}")
    if set(arguments.precision) - {"fp32"}:
        require_quantizing()
    with exit_on_termination():
        report = export(
            arguments.checkpoint,
            arguments.out,
            _writer(traced, arguments),
            add_precisions=_adder(arguments),
            precisions=arguments.precision,
            access=requested_access(arguments),
            force=arguments.force,
            base=arguments.base,
            companions=arguments.companions,
            layout=layout,
            progress=progress,
        )
    size = sum(report["bytes"].values()) / 1e6
    checks = report.get("graphs_against_pytorch", ())
    worst = max((check["max_rel_diff"] for check in checks), default=None)
    compared = "" if worst is None else f", at most {worst:.1e} from PyTorch (relative)"
    show(f"{arguments.out}: {size:.0f} MB{compared}")
    print_precisions(report["precisions"])
    return 0


def _layout(arguments: argparse.Namespace) -> Layout:
    if arguments.layout == OWN:
        return SLOTS
    return WITH_PAIR if arguments.split_decoder else MERGED


def _writer(traced: bool, arguments: argparse.Namespace) -> WriteGraphs:
    layout = _layout(arguments)
    if layout is not SLOTS and arguments.precision != ["fp32"]:
        layout = WITH_PAIR  # The other precisions are made from the pair.
    if not traced:
        return partial(write_graphs, layout=layout)
    exporter = importlib.import_module("florence_onnx_export.exporter")
    return partial(exporter.trace_graphs, layout=layout)


def _adder(arguments: argparse.Namespace) -> AddPrecisions | None:
    if arguments.precision == ["fp32"]:
        return None
    layout, force = _layout(arguments), arguments.accept_error
    if layout is not SLOTS:
        hub_layout = importlib.import_module("florence_onnx_export.quantization.hub_layout")
        return partial(hub_layout.add_precisions, layout=layout, force=force)
    quantizing = importlib.import_module("florence_onnx_export.quantization.quantize")
    own, fast = arguments.pictures, arguments.fast
    return partial(quantizing.add_precisions, accept_error=force, pictures=own, fast=fast)


def _check(arguments: argparse.Namespace) -> Checkpoint:
    """Checks the arguments before the import of torch; returns the checkpoint."""
    layout = _layout(arguments)
    check_precisions(arguments.precision, layout)
    if arguments.split_decoder and layout is SLOTS:
        raise ExportError(f"--split-decoder is of --layout {BROWSER}, which was not asked for")
    check_rounding(arguments, arguments.precision)
    given = given_rounding(arguments)
    if given and layout is not SLOTS:
        raise ExportError(
            f"{given[0]} is not for --layout {BROWSER}, whose weights are rounded to the nearest"
        )
    out, source = arguments.out, arguments.checkpoint
    if os.path.lexists(out):
        files = [file for p in arguments.precision for file in layout.files((), p).values()]
        replaced_files(out, source, files, arguments.force)
    return requested_checkpoint(arguments)
