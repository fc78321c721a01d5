"""Command ``florence-onnx remove``: takes a model out of the cache."""

import argparse

from florence_onnx.cli.options import add_cache_dir
from florence_onnx.hub import Access
from florence_onnx.model_cache import fetched_bytes, remove
from florence_onnx.terminal import say, show, size_text

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
    access = Access(cache_dir=arguments.cache_dir)
    freed = remove(arguments.model, access)
    show(f"removed {arguments.model}: {size_text(freed)}")
    left = fetched_bytes(arguments.model, access)
    if left:
        say(
            f"note: {size_text(left)} that were fetched for it stay in {access.cache}, which other "
            f"programs use too; hf cache rm model/{arguments.model} removes them"
        )
    return 0
