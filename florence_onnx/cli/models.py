"""Command ``florence-onnx list``: the models in the cache."""

import argparse
import json
from typing import Any

from florence_onnx.cli.options import add_cache_dir
from florence_onnx.hub import Access
from florence_onnx.model_cache import cache_folder, cached_models
from florence_onnx.terminal import show, size_text

NAME = "list"
SUMMARY = "List the models in the cache, with their sizes and precisions."
EXAMPLES = """examples:
  florence-onnx list --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_cache_dir(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    access = Access(cache_dir=arguments.cache_dir)
    rows: list[dict[str, Any]] = [
        {
            "model": model.repository,
            "commit": model.commit,
            "precisions": model.precisions,
            "bytes": model.size,
            "folder": str(model.folder),
            "opens": model.opens,
        }
        for model in cached_models(access)
    ]
    if arguments.json:
        show(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        note = "" if row["opens"] else "  (of another version of florence-onnx)"
        show(
            f"{row['model']}  {row['commit'][:8]}  {size_text(row['bytes'])}  "
            f"{', '.join(row['precisions'])}{note}"
        )
    if not rows:
        show(f"no models in {cache_folder(access)}")
    return 0
