"""Command ``florence-onnx info``: the content of a model folder."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from florence_onnx.assets.reading import Assets
from florence_onnx.choosing import locate
from florence_onnx.cli.opening import chosen_precision
from florence_onnx.cli.options import (
    add_hub_options,
    add_model,
    add_model_options,
    requested_access,
    requested_providers,
)
from florence_onnx.engine.precision import Precision
from florence_onnx.engine.present import present_precisions
from florence_onnx.engine.sessions import Graphs, open_graphs
from florence_onnx.terminal import show

NAME = "info"
SUMMARY = "Show a model's graphs, sizes, geometry, generation policy and providers."
EXAMPLES = """examples:
  florence-onnx info MODEL
  florence-onnx info MODEL --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_model(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_model_options(parser)
    add_hub_options(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    providers = requested_providers(arguments)
    threads, fast_math = arguments.threads, arguments.fast_math

    def opened_from(folder: Path, precision: Precision) -> tuple[Path, Graphs]:
        return folder, open_graphs(folder, precision, providers, threads, fast_math=fast_math)

    folder, opened = locate(
        arguments.model,
        chosen_precision(arguments)[0],
        providers,
        opened_from,
        requested_access(arguments),
    )
    assets, precision = Assets.read(folder), opened.precision
    layout = opened.layout
    files = {name: layout.parts(folder, name, opened.precisions) for name in layout.graphs}
    content: dict[str, Any] = {
        "folder": str(folder),
        "precisions": present_precisions(folder),
        "precision": precision,
        "bytes": {name: sum(p.stat().st_size for p in parts) for name, parts in files.items()},
        "geometry": {
            **opened.geometry,
            "image_height": assets.preprocessor.size[0],
            "image_width": assets.preprocessor.size[1],
            "max_positions": assets.max_positions,
        },
        "generation": asdict(assets.policy),
        "notes": list(assets.notes),
        "providers": opened.providers(),
    }
    if arguments.json:
        show(json.dumps(content, indent=2))
    else:
        _print(content)
    return 0


def _print(content: dict[str, Any]) -> None:
    show(content["folder"])
    show(f"precisions: {', '.join(content['precisions'])}; shown: {content['precision']}")
    for name, size in content["bytes"].items():
        providers = ", ".join(content["providers"][name])
        show(f"  {name:24} {size / 1e6:8.1f} MB  {providers}")
    for section in ("geometry", "generation"):
        show(f"{section}:")
        for name, value in content[section].items():
            show(f"  {name:24} {value}")
    for note in content["notes"]:
        show(f"note: {note}")
