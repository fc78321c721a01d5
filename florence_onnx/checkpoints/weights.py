"""Files of a checkpoint's weights: safetensors or pytorch_model.bin, whole or in shards."""

import os
from collections.abc import Iterator
from pathlib import Path

from florence_onnx.checkpoints import safetensors_file, torch_file
from florence_onnx.checkpoints.contents import WEIGHT_FILES
from florence_onnx.checkpoints.finding import shards
from florence_onnx.checkpoints.tensors import StoredTensor
from florence_onnx.errors import CheckpointError
from florence_onnx.files import refuse_lfs_pointer


def present_weights(folder: Path) -> list[str]:
    """Names of the files of weights in a folder. The first file is read."""
    return [name for name in WEIGHT_FILES if (folder / name).is_file()]


def stored_weights(place: Path, name: str | None = None) -> dict[str, StoredTensor]:
    """Finds the places of all tensors of a checkpoint, by stored names.

    Args:
        place: Folder of the checkpoint, or the file of all weights.
        name: One of `present_weights`, for a folder; the first by default.

    Raises:
        CheckpointError: There are no weights, or a file is missing, truncated or of another format.
    """
    weights: dict[str, StoredTensor] = {}
    for path in [place] if place.is_file() else _files(place, name):
        refuse_lfs_pointer(path, CheckpointError)
        reader = safetensors_file if path.suffix == ".safetensors" else torch_file
        weights |= reader.stored_tensors(path)
    return weights


def _files(folder: Path, name: str | None) -> Iterator[Path]:
    found = name or next(iter(present_weights(folder)), None)
    if found is None:
        broken = next((name for name in WEIGHT_FILES if os.path.lexists(folder / name)), None)
        if broken is not None:
            raise CheckpointError(f"{folder / broken} is a link to nothing, or no regular file")
        raise CheckpointError(f"{folder} holds no weights; looked for {', '.join(WEIGHT_FILES)}")
    if not found.endswith(".json"):
        yield folder / found
        return
    for name in shards(folder / found):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} does not exist, but {found} names it")
        yield folder / name
