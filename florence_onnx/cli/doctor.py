"""Command ``florence-onnx doctor``: says what is odd about a checkpoint before it is exported."""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from florence_onnx.checkpoints import key_maps
from florence_onnx.checkpoints.checkpoint import Checkpoint
from florence_onnx.checkpoints.finding import find_adapter
from florence_onnx.checkpoints.findings import stored_type
from florence_onnx.cli.exporting import add_checkpoint, requested_checkpoint
from florence_onnx.cli.options import add_hub_options, requested_access
from florence_onnx.errors import FlorenceError, ModelNotFoundError
from florence_onnx.examining import Examination, examine
from florence_onnx.skeletons.filling import find_skeleton
from florence_onnx.terminal import one_line, show

NAME = "doctor"
SUMMARY = "Look at a checkpoint: what is odd about it, and whether it can be exported."
EXAMPLES = """examples:
  florence-onnx doctor ./my-fine-tune
  florence-onnx doctor org/name:folder --companions microsoft/Florence-2-base --json

Each finding is one line. "note" tells what an export puts right, leaves out or does not follow.
"refused" tells why the checkpoint cannot be exported, and what to do. An export prints the same
findings, and OUT/export_report.json lists the notes as repairs. The exit status is 1 if the
checkpoint cannot be exported.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_checkpoint(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_hub_options(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    checkpoint, found = _look(arguments)
    content = _content(arguments.checkpoint, checkpoint, found)
    if arguments.json:
        show(json.dumps(content, indent=2))
    else:
        _print(content)
    return 0 if content["exportable"] else 1


def _look(arguments: argparse.Namespace) -> tuple[Checkpoint | None, Examination]:
    try:
        checkpoint = requested_checkpoint(arguments)
    except FlorenceError as error:
        # A missing folder is no checkpoint; an adapter without its base model is a checkpoint.
        access = requested_access(arguments)
        if isinstance(error, ModelNotFoundError) and not find_adapter(
            arguments.checkpoint, access, fetch=False
        ):
            raise
        return None, Examination((), (error,))
    with tempfile.TemporaryDirectory() as folder:
        return checkpoint, examine(checkpoint, Path(folder))


def _content(source: str, checkpoint: Checkpoint | None, found: Examination) -> dict[str, Any]:
    findings = [{"refused": False, "text": one_line(note)} for note in found.notes]
    findings += [{"refused": True, "text": one_line(error)} for error in found.refusals]
    content: dict[str, Any] = {"checkpoint": source, "exportable": not found.refusals}
    if checkpoint is not None:
        skeleton = find_skeleton(checkpoint.config)
        weights = checkpoint.weights
        content |= {
            "format": checkpoint.format,
            "geometry": None if skeleton is None else skeleton.name,
            "parameters": checkpoint.parameters,
            "dtype": stored_type(weights),
            "tied_head": weights[key_maps.HEAD] == weights[key_maps.EMBEDDING],
        }
    return {**content, "findings": findings}


def _print(content: dict[str, Any]) -> None:
    if "format" in content:
        names = {"original": "Microsoft's format", "native": "transformers' format"}
        geometry = content["geometry"]
        made = f"{geometry}, exported without torch" if geometry else "its own, traced with torch"
        show(
            f"{content['checkpoint']}: {names[content['format']]}, {content['dtype']}, "
            f"{content['parameters'] / 1e6:.1f} million parameters; geometry: {made}"
        )
    for finding in content["findings"]:
        show(f"{'refused' if finding['refused'] else 'note'}: {finding['text']}")
    show("it can be exported" if content["exportable"] else "it cannot be exported")
