"""Command ``florence-onnx verify``: compares the files of a model folder with their digests."""

import argparse

from florence_onnx.assets.ownership import changed_files, known_names
from florence_onnx.cli.options import path
from florence_onnx.errors import ModelNotFoundError
from florence_onnx.terminal import show

NAME = "verify"
SUMMARY = "Compare the files of a model folder with its manifest, export_report.json."
EXAMPLES = """examples:
  florence-onnx verify MODEL

The command names files that have changed, are missing or are extra. The exit status is 2 if a file
has changed or is missing, or if an extra file has the name of a graph or of another file that is
opened.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("folder", metavar="FOLDER", type=path, help="model folder")


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    if not arguments.folder.is_dir():
        raise ModelNotFoundError(f"{arguments.folder} is not an existing folder")
    changed, count = changed_files(arguments.folder)
    for name, state in changed.items():
        show(f"{name}: {state}")
    opened = known_names()
    if any(state != "extra" or name in opened for name, state in changed.items()):
        return 2
    show(f"{count} files are as they were written")
    return 0
