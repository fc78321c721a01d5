"""``florence-onnx verify``: whether the files of a model folder are those that were written."""

import argparse

from florence_onnx.assets.ownership import changed_files
from florence_onnx.cli.options import path
from florence_onnx.errors import ModelNotFoundError
from florence_onnx.terminal import show

NAME = "verify"
SUMMARY = "Compare the files of a model folder with the digests in its export_report.json."
EXAMPLES = """examples:
  florence-onnx verify MODEL
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
    if not changed:
        show(f"{count} files are as they were written")
    return 2 if changed else 0
