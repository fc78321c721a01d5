"""``florence-onnx export``: a PyTorch checkpoint to a model folder."""

import argparse
import importlib
from pathlib import Path

from florence_onnx.checkpoints.checkpoint import read_checkpoint
from florence_onnx.cli.exporting import (
    add_accept_error,
    check_packages,
    comma_list,
    exit_on_termination,
    print_precisions,
    timed_progress,
)
from florence_onnx.engine import contract
from florence_onnx.errors import OutputExistsError, PrecisionError
from florence_onnx.terminal import show

NAME = "export"
SUMMARY = "Export a Florence-2 checkpoint to ONNX (needs the [export] extra)."
EXAMPLES = """examples:
  florence-onnx export microsoft/Florence-2-base base-onnx
  florence-onnx export ./my-fine-tune my-onnx --force
  florence-onnx export ./my-fine-tune my-onnx --precision fp32,q8

CHECKPOINT is in Microsoft's or transformers' format, .bin or safetensors. OUT appears whole or
not at all; OUT/export_report.json says how far each output is from PyTorch, and how far every
other precision is from fp32.
"""

_NEEDED = ("torch", "transformers", "onnx", "onnxscript", "safetensors", "onnxruntime", "PIL")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="folder or hub id")
    parser.add_argument("out", metavar="OUT", type=Path, help="model folder to write")
    parser.add_argument(
        "--precision",
        default="fp32",
        type=comma_list,
        metavar="P,P",
        help=f"precisions to write, of {', '.join(contract.PRECISIONS)} (default fp32)",
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    add_accept_error(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    check_packages(_NEEDED, "exporting")
    _check(arguments)
    with exit_on_termination():
        exporter = importlib.import_module("florence_onnx_export.exporter")
        report = exporter.export(
            arguments.checkpoint,
            arguments.out,
            precisions=arguments.precision,
            force=arguments.force,
            accept_error=arguments.accept_error,
            progress=timed_progress(),
        )
    worst = max(check["max_rel_diff"] for check in report["graphs_against_pytorch"])
    size = sum(report["bytes"].values()) / 1e6
    show(f"{arguments.out}: {size:.0f} MB, at most {worst:.1e} from PyTorch (relative)")
    print_precisions(report["precisions"])
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raises what the exporter would raise after a download or the import of torch."""
    unknown = [name for name in arguments.precision if name not in contract.PRECISIONS]
    if unknown:
        raise PrecisionError(
            f"unknown precision {unknown[0]!r}; choose from {', '.join(contract.PRECISIONS)}"
        )
    if arguments.out.exists() and not arguments.force:
        raise OutputExistsError(f"{arguments.out} exists; choose another folder or pass --force")
    read_checkpoint(arguments.checkpoint)
