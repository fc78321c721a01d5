"""``florence-onnx remove``: take a model out of the cache."""

import argparse

from florence_onnx.cli.options import add_cache_dir
from florence_onnx.hub import Access
from florence_onnx.model_cache import remove
from florence_onnx.terminal import show, size_text

NAME = "remove"
SUMMARY = "Remove a model from the cache. A checkpoint in the hub's own cache stays."
EXAMPLES = """examples:
  florence-onnx remove florence-community/Florence-2-base-ft
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("model", metavar="ID", help="hub id, as florence-onnx list shows it")
    add_cache_dir(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    freed = remove(arguments.model, Access(cache_dir=arguments.cache_dir))
    show(f"removed {arguments.model}: {size_text(freed)}")
    return 0
