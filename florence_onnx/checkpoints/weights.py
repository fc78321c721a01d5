"""Files of a checkpoint's weights: safetensors or pytorch_model.bin, whole or in shards."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from florence_onnx.checkpoints import safetensors_file, torch_file
from florence_onnx.checkpoints.contents import WEIGHT_FILES
from florence_onnx.checkpoints.finding import shards, weight_map
from florence_onnx.checkpoints.tensors import StoredTensor
from florence_onnx.errors import CheckpointError
from florence_onnx.files import refuse_lfs_pointer

_NUMBERED = re.compile(r"([a-z_]+-)[0-9]+(-of-[0-9]+\.[a-z]+)")
"""Name of one of several files of weights, such as ``model-00001-of-00002.safetensors``."""


def present_weights(folder: Path) -> list[str]:
    """Names of the files of weights in a folder. The first file is read."""
    return [name for name in WEIGHT_FILES if (folder / name).is_file()]


def stored_weights(place: Path, name: str | None = None) -> dict[str, StoredTensor]:
    """Finds the places of all tensors of a checkpoint, by stored names.

    Args:
        place: Folder of the checkpoint, or the file of all weights.
        name: One of `present_weights`, for a folder; the first by default.

    Raises:
        CheckpointError: There are no weights, or a file is missing, truncated or of another format,
            or an index does not fit its shards.
    """
    if place.is_file():
        return _read([place])
    found = name or _first(place)
    if not found.endswith(".json"):
        return _read([place / found])
    weights = _read(_shards(place / found))
    for weight, file in weight_map(place / found).items():
        if weight not in weights:
            raise CheckpointError(
                f"{place / found} puts the weight {weight[:200]} into {file}, which does not hold "
                "the weight; fetch or copy the checkpoint again"
            )
    return weights


def _read(paths: Iterable[Path]) -> dict[str, StoredTensor]:
    weights: dict[str, StoredTensor] = {}
    for path in paths:
        refuse_lfs_pointer(path, CheckpointError)
        reader = safetensors_file if path.suffix == ".safetensors" else torch_file
        weights |= reader.stored_tensors(path)
    return weights


def _first(folder: Path) -> str:
    found = next(iter(present_weights(folder)), None)
    if found is not None:
        return found
    broken = next((name for name in WEIGHT_FILES if os.path.lexists(folder / name)), None)
    if broken is not None:
        raise CheckpointError(f"{folder / broken} is a link to nothing, or no regular file")
    raise CheckpointError(f"{folder} holds no weights; looked for {', '.join(WEIGHT_FILES)}")


def _shards(index: Path) -> Iterator[Path]:
    """Finds the files that an index names. All numbered files of one save must be named."""
    names = shards(index)
    for name in names:
        path = index.with_name(name)
        if not path.is_file():
            raise CheckpointError(f"{path} does not exist, but {index.name} names it")
        yield path
    numbered = (_NUMBERED.fullmatch(name) for name in names)
    for start, end in {(match[1], match[2]) for match in numbered if match}:
        for path in sorted(index.parent.glob(f"{start}*{end}")):
            if _NUMBERED.fullmatch(path.name) and path.name not in names:
                raise CheckpointError(
                    f"{index} names no weight of {path.name}, which lies beside it; fetch or copy "
                    "the checkpoint again"
                )
