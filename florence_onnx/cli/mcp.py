"""Command ``florence-onnx mcp``: tools for assistants, over the standard streams."""

import argparse
from pathlib import Path

from florence_onnx.cli.opening import open_model
from florence_onnx.cli.options import (
    DEFAULT,
    add_hub_options,
    add_model_options,
    default_model,
    path,
)
from florence_onnx.errors import InputError
from florence_onnx.packages import require_packages
from florence_onnx.serving.mcp import make_server

NAME = "mcp"
SUMMARY = "Give assistants tools that look at pictures, over the Model Context Protocol."
EXAMPLES = """examples:
  florence-onnx mcp --model demo
  florence-onnx mcp --folder ~/Pictures

An assistant starts this command and talks to it over its standard streams.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "--model", default=default_model(), help=f"model folder, hub id, or demo {DEFAULT}"
    )
    parser.add_argument(
        "--folder",
        type=path,
        metavar="DIR",
        help="let pictures of this folder be named by their paths (default: no path is opened)",
    )
    add_model_options(parser)
    add_hub_options(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    require_packages(("mcp", "PIL"), "mcp", "mcp")
    folder: Path | None = arguments.folder
    if folder is not None:
        if not folder.is_dir():
            raise InputError(f"--folder is {str(folder)!r}, which is no folder")
        folder = folder.resolve()
    make_server(open_model(arguments), folder).run("stdio")
    return 0
