"""``florence-onnx list``: the models in the cache."""

import argparse
import json
from typing import Any

from florence_onnx.model_cache import cache_folder, cached_models
from florence_onnx.terminal import show

NAME = "list"
SUMMARY = "List the models in the cache, with their sizes and precisions."
EXAMPLES = """examples:
  florence-onnx list --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    rows: list[dict[str, Any]] = [
        {
            "model": model.repository,
            "commit": model.commit,
            "precisions": model.precisions,
            "bytes": model.size,
            "folder": str(model.folder),
        }
        for model in cached_models()
    ]
    if arguments.json:
        show(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        show(
            f"{row['model']}  {row['commit'][:8]}  {row['bytes'] / 1e6:.0f} MB  "
            f"{', '.join(row['precisions'])}"
        )
    if not rows:
        show(f"no models in {cache_folder()}")
    return 0
