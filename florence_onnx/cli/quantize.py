"""Command ``florence-onnx quantize``: graphs of lower precision for a model folder."""

import argparse
import importlib
import shlex

from florence_onnx.checkpoints.contents import Contents
from florence_onnx.cli.exporting import (
    add_accept_error,
    add_rounding,
    check_rounding,
    comma_list,
    print_precisions,
    require_quantizing,
    timed_progress,
)
from florence_onnx.cli.status import exit_on_termination
from florence_onnx.errors import ModelNotFoundError
from florence_onnx.resolver import DEMO, is_demo, local_folder, refuse

NAME = "quantize"
SUMMARY = "Add 8-bit, 4-bit or float16 graphs to a model folder (needs the [quantize] extra)."
EXAMPLES = """examples:
  florence-onnx quantize MODEL --precision q8
  florence-onnx quantize MODEL --precision q8,q4,fp16 --force
  florence-onnx quantize MODEL --precision q8 --fast
  florence-onnx quantize MODEL --precision q8 --pictures ./photos

q8    8-bit weights and activations; the fastest on a CPU
q4    the same with 4-bit weights in the decoder; smaller
fp16  for GPUs; slow on a CPU

Matrix multiplications that add too much error keep more bits. The files of a precision appear
together or not at all, and MODEL/export_report.json says how far every precision is from fp32.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="model folder with fp32 graphs")
    parser.add_argument(
        "--precision",
        required=True,
        type=comma_list,
        metavar="P,P",
        help="precisions to add, of q8, q4, fp16",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace graphs that are there already"
    )
    add_accept_error(parser)
    add_rounding(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    require_quantizing()
    folder = DEMO if is_demo(arguments.model) else local_folder(arguments.model)
    if folder is None:
        name, precisions = shlex.quote(arguments.model), arguments.precision
        raise ModelNotFoundError(
            f"{arguments.model!r} is not a folder; quantising adds files to a model folder. For a "
            f"checkpoint of the hub, florence-onnx pull {name} --precision {precisions[0]} makes "
            "the graphs in the cache. Graphs of the hub are copied first: "
            f'cp -rL "$(florence-onnx pull {name})" MODEL && '
            f"florence-onnx quantize MODEL --precision {','.join(precisions)}"
        )
    refuse(Contents.of_folder(folder).why_no_model())
    check_rounding(arguments, arguments.precision)
    with exit_on_termination():
        quantizer = importlib.import_module("florence_onnx_export.quantization.quantize")
        entries = quantizer.quantize(
            folder,
            arguments.precision,
            force=arguments.force,
            accept_error=arguments.accept_error,
            pictures=arguments.pictures,
            progress=timed_progress(),
            fast=arguments.fast,
        )
    print_precisions(entries)
    return 0
