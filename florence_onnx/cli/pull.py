"""``florence-onnx pull``: fetch a model of the hub, so that it opens at once and offline."""

import argparse
import importlib

from florence_onnx.cli.exporting import check_packages, timed_progress
from florence_onnx.engine import contract
from florence_onnx.engine.sessions import present_precisions
from florence_onnx.errors import ModelNotFoundError
from florence_onnx.resolver import local_folder, resolve
from florence_onnx.terminal import show

NAME = "pull"
SUMMARY = "Fetch a model of the hub; make ONNX graphs of a checkpoint, and other precisions."
EXAMPLES = """examples:
  florence-onnx pull florence-community/Florence-2-base-ft
  florence-onnx pull microsoft/Florence-2-large-ft --precision q8

Precisions other than fp32 are made from the fp32 graphs, which needs the [quantize] extra.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("model", metavar="ID", help="hub id, org/name")
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit (default: main)")
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=list(contract.PRECISIONS),
        metavar="P",
        help=f"precision to have ready: {', '.join(contract.PRECISIONS)} (default fp32)",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    if arguments.precision != "fp32":
        check_packages(("onnx", "onnxruntime", "PIL"), "quantising", "quantize")
    if local_folder(arguments.model) is not None:
        raise ModelNotFoundError(f"{arguments.model!r} is a folder here, so nothing is fetched")
    folder = resolve(arguments.model, revision=arguments.revision)
    if arguments.precision not in present_precisions(folder):
        quantizer = importlib.import_module("florence_onnx_export.quantization.quantize")
        quantizer.quantize(folder, [arguments.precision], progress=timed_progress())
    show(str(folder))
    return 0
