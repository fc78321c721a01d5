"""Command ``florence-onnx pull``: fetches a model from the hub, for offline use."""

import argparse
import importlib
import shlex
from collections.abc import Collection
from dataclasses import replace
from functools import partial

from florence_onnx.cli.exporting import (
    add_rounding,
    check_rounding,
    given_rounding,
    require_quantizing,
    timed_progress,
)
from florence_onnx.cli.options import (
    DEFAULT,
    add_hub_options,
    default_model,
    precision_of,
    requested_access,
)
from florence_onnx.cli.status import exit_on_termination
from florence_onnx.engine import hub_contract
from florence_onnx.engine.layouts import graph_files, layout_of, precisions_of
from florence_onnx.engine.present import check_precision
from florence_onnx.errors import ModelNotFoundError
from florence_onnx.exporting import check_precisions
from florence_onnx.resolver import cached_folder, hub_model, is_demo, local_folder
from florence_onnx.terminal import say, show

NAME = "pull"
SUMMARY = "Fetch a model from the hub. From a checkpoint, make ONNX graphs."
EXAMPLES = """examples:
  florence-onnx pull florence-community/Florence-2-base-ft
  florence-onnx pull microsoft/Florence-2-large-ft --precision q8
  florence-onnx pull microsoft/Florence-2-large-ft --precision q8 --pictures ./photos

From a repository of ONNX graphs, the graphs of the precision are fetched. From a checkpoint, fp32
graphs are made; other precisions are made from the fp32 graphs, which needs the [quantize] extra.
A branch that has moved since the last pull is fetched again.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "model", nargs="?", default=default_model(), metavar="ID", help=f"hub id {DEFAULT}"
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        type=precision_of,
        metavar="P",
        help=f"precision to have ready: {', '.join(hub_contract.SUFFIXES)}, or one per graph, as "
        "in vision_encoder=fp16,*=q4 (default fp32)",
    )
    add_rounding(parser)
    add_hub_options(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    source, precision = arguments.model, arguments.precision
    if is_demo(source):
        raise ModelNotFoundError("the demo comes with this package, so nothing is fetched")
    if local_folder(source) is not None:
        raise ModelNotFoundError(f"{source!r} is a folder here, so nothing is fetched")
    access = requested_access(arguments)
    wanted = {precision} if isinstance(precision, str) else {*precision.values()}
    check_rounding(arguments, wanted)
    cached = cached_folder(source, access)
    present = precisions_of(graph_files(cached)) if cached else ()
    check = partial(_check_quantising, wanted.difference(present))
    with exit_on_termination():
        folder = hub_model(source, precision, replace(access, refresh=True), check)
        names = graph_files(folder)
        if not layout_of(names, precision).is_whole(names, precision):
            lacking = sorted(wanted.difference(precisions_of(names)))
            _check_quantising(lacking)
            quantizer = importlib.import_module("florence_onnx_export.quantization.quantize")
            own, fast = arguments.pictures, arguments.fast
            quantizer.quantize(folder, lacking, pictures=own, progress=timed_progress(), fast=fast)
        elif given := given_rounding(arguments):
            lower = ["--precision", ",".join(sorted(wanted - {"fp32"}))]
            command = ["florence-onnx", "quantize", str(folder), *lower, "--force", *given]
            again = f"; make them again with {shlex.join(command)}"
            say(
                f"note: {given[0]} is not used, because the graphs are there already"
                f"{again if 'fp32' in precisions_of(names) else ''}"
            )
        check_precision(folder, precision)
    show(str(folder))
    return 0


def _check_quantising(precisions: Collection[str]) -> None:
    """Refuses precisions that cannot be made of a checkpoint here, before anything is fetched."""
    check_precisions(sorted(precisions))
    if {*precisions} - {"fp32"}:
        require_quantizing()
