"""Command ``florence-onnx verify``: compares files with digests, or answers with transformers'."""

import argparse
import importlib
import json

from florence_onnx.assets.ownership import changed_files, known_names
from florence_onnx.checkpoints.checkpoint import check_values
from florence_onnx.cli.exporting import add_completion, read_named, timed_progress
from florence_onnx.cli.options import add_hub_options, path, precision_of
from florence_onnx.errors import InputError, ModelNotFoundError
from florence_onnx.images.pixels import to_rgb
from florence_onnx.model import Florence2
from florence_onnx.packages import require_packages
from florence_onnx.terminal import show

NAME = "verify"
SUMMARY = "Compare a model folder's files with its manifest, or its answers with transformers'."
EXAMPLES = """examples:
  florence-onnx verify MODEL
  florence-onnx verify MODEL --against microsoft/Florence-2-base --image photo.jpg other.jpg

The command names files that have changed since export_report.json was written, are missing or are
extra. The exit status is 2 if a file has changed or is missing, or if an extra file has the name of
a graph or of another file that is opened.

With --against, every task is asked about every picture, greedy and with the model's beams, and the
answers are compared with those of transformers, token for token. The output is a table in Markdown
for a model card. The comparison needs torch: pip install 'florence-onnx[export]'. Both sides get
the same pixel values, and the generation settings of the folder. The exit status is 1 if an answer
differs.
"""

_NEEDED = ("torch", "transformers", "onnxruntime", "PIL")

_USUAL = "fp32"
"""Precision of the graphs that are compared."""

_OF_AGAINST = (
    *("image", "precision", "json", "base", "companions"),
    *("revision", "cache_dir", "local_files_only"),
)
"""Options without a meaning where no checkpoint is named."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("folder", metavar="FOLDER", type=path, help="model folder")
    parser.add_argument(
        "--against", metavar="CHECKPOINT", help="checkpoint that the folder was made of"
    )
    parser.add_argument(
        "--image",
        nargs="+",
        type=path,
        default=[],
        metavar="PHOTO",
        help="with --against: pictures to ask about",
    )
    parser.add_argument(
        "--precision",
        type=precision_of,
        metavar="P",
        help=f"with --against: graphs to compare, also one precision per graph (default {_USUAL})",
    )
    parser.add_argument(
        "--json", action="store_true", help="with --against: print JSON instead of Markdown"
    )
    add_completion(parser)
    add_hub_options(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    if not arguments.folder.is_dir():
        raise ModelNotFoundError(f"{arguments.folder} is not an existing folder")
    if arguments.against is not None:
        return _compare_answers(arguments)
    given = [name for name in _OF_AGAINST if getattr(arguments, name)]
    if given:
        option = given[0].replace("_", "-")
        raise InputError(f"--{option} goes with --against, which names the checkpoint")
    changed, count = changed_files(arguments.folder)
    for name, state in changed.items():
        show(f"{name}: {state}")
    opened = known_names()
    if any(state != "extra" or name in opened for name, state in changed.items()):
        return 2
    show(f"{count} files are as they were written")
    return 0


def _compare_answers(arguments: argparse.Namespace) -> int:
    if not arguments.image:
        raise InputError("--against needs pictures to ask about; name some with --image")
    require_packages(_NEEDED, "comparing answers with transformers'", "export")
    model = Florence2.load(arguments.folder, precision=arguments.precision or _USUAL)
    checkpoint = read_named(arguments.against, arguments)
    verification = importlib.import_module("florence_onnx_export.verification")
    agreement = importlib.import_module("florence_onnx_export.agreement")
    verification.check_geometry(arguments.folder, checkpoint)
    check_values(checkpoint)
    for image in arguments.image:
        to_rgb(image)  # Otherwise the answers about the pictures before a bad one would be lost.
    found = verification.compare(model, checkpoint, arguments.image, timed_progress())
    about = {
        "folder": str(arguments.folder),
        "precision": model.precision,
        "checkpoint": arguments.against,
        "pictures": [str(image) for image in arguments.image],
        "versions": verification.versions(),
    }
    compared = agreement.content(found, about)
    show(json.dumps(compared, indent=2) if arguments.json else agreement.markdown(compared))
    return 1 if compared["differences"] else 0
