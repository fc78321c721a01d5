"""A look at a checkpoint before anything is made of it."""

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
    """What was found in a checkpoint, a sentence each."""

    notes: tuple[str, ...]
    """What was put right, left out or not followed."""
    refusals: tuple[FlorenceError, ...]
    """What stands in the way of an export, and what to do."""


def examine(checkpoint: Checkpoint, out: Path) -> Examination:
    """Reads every weight of a checkpoint once, and writes the files beside its graphs.

    Args:
        checkpoint: What was read.
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
