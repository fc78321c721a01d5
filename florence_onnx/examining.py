"""Examination of a checkpoint before an export."""

from dataclasses import dataclass
from pathlib import Path

from florence_onnx.assets.generation_files import unlimited
from florence_onnx.assets.writing import write_assets
from florence_onnx.checkpoints.checkpoint import Checkpoint, check_values
from florence_onnx.checkpoints.findings import unread_weights
from florence_onnx.errors import FlorenceError
from florence_onnx.files import read_json


@dataclass(frozen=True)
class Examination:
    """Findings about a checkpoint, a sentence each."""

    notes: tuple[str, ...]
    """Sentences on everything that an export corrects, leaves out or does not follow."""
    refusals: tuple[FlorenceError, ...]
    """Sentences on everything that prevents an export, and what to do."""


def examine(checkpoint: Checkpoint, out: Path) -> Examination:
    """Reads every weight of a checkpoint once, and writes the files that go beside the graphs.

    Args:
        checkpoint: The checkpoint.
        out: An existing folder.
    """
    notes, refusals = list(checkpoint.notes), []
    folder, raw_config = checkpoint.folder, checkpoint.raw_config
    if checkpoint.adapter is None and checkpoint.file is None:
        notes += unread_weights(folder, raw_config, checkpoint.weights)
    try:
        check_values(checkpoint)
    except FlorenceError as error:
        refusals.append(error)
    try:
        notes += write_assets(folder, checkpoint.config, raw_config, out, checkpoint.assets)
        settings = read_json(out / "generation_config.json")
        notes += unlimited(settings, checkpoint.config.text.max_position_embeddings)
    except FlorenceError as error:
        refusals.append(error)
    return Examination(tuple(notes), tuple(refusals))
