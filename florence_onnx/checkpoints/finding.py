"""Places of a checkpoint: a folder, or a repository of the hub, looked into before it is read."""

from collections.abc import Callable, Collection
from fnmatch import fnmatchcase
from pathlib import Path, PureWindowsPath

from florence_onnx import hub
from florence_onnx.checkpoints.contents import (
    ADAPTER_CONFIG,
    ADAPTER_FILES,
    WEIGHT_FILES,
    Contents,
)
from florence_onnx.errors import CheckpointError, FlorenceError
from florence_onnx.files import read_json
from florence_onnx.resolver import local_folder

CHECKPOINT_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
)
"""Files that are fetched from the hub besides weights."""

_VOCABULARY = ("vocab.json", "merges.txt")
"""Files that are fetched where there is no tokenizer.json."""

_SHARDS = {
    "model.safetensors.index.json": "model-*-of-*.safetensors",
    "pytorch_model.bin.index.json": "pytorch_model-*-of-*.bin",
}

_LONGEST_NAME = 255
"""Length in bytes; asking for a file of a longer name is an error on most systems."""


def find_checkpoint(
    source: str | Path,
    access: hub.Access = hub.ANYHOW,
    accept: Callable[[Path, int], object] = lambda folder, coming: None,
) -> Path:
    """The folder of a checkpoint, fetched from the hub if need be; no weight is read.

    Args:
        source: A folder or a hub id.
        access: Which state of a hub repository is wanted.
        accept: Called before weights are fetched, as `hub.fetch` does.

    Raises:
        CheckpointError: There is no checkpoint but something else: a model folder, an adapter,
            the output folder of a training.
        ModelNotFoundError: There is no such folder, or the hub repository cannot be had.
    """
    folder = local_folder(source)
    if folder is not None:
        _refuse(Contents.of_folder(folder))
        return folder
    repository = str(source)
    folder = hub.cached(repository, access)
    lacking = _lacking(folder) if folder else []
    if folder is not None and not lacking:
        return folder

    def select(names: Collection[str]) -> list[str]:
        return _select(Contents(repository, names))

    return hub.fetch(repository, access, select, lacking, accept)


def find_adapter(source: str | Path, access: hub.Access, fetch: bool) -> Path | None:
    """The folder of an adapter, None where there is something else.

    Args:
        source: A folder or a hub id.
        access: Which state of a hub repository is wanted.
        fetch: Whether it is fetched from the hub if need be.

    Raises:
        ModelNotFoundError: The hub repository cannot be had.
    """
    folder = local_folder(source)
    if folder is not None:
        return folder if Contents.of_folder(folder).is_adapter else None
    repository = str(source)
    folder = hub.cached(repository, access, ADAPTER_CONFIG)
    if folder is not None and any((folder / name).is_file() for name in ADAPTER_FILES):
        return folder if Contents.of_folder(folder).is_adapter else None

    def select(names: Collection[str]) -> list[str]:
        if not Contents(repository, names).is_adapter:
            raise _NoAdapterError
        return [ADAPTER_CONFIG, *[name for name in ADAPTER_FILES if name in names][:1]]

    try:
        return hub.fetch(repository, access, select) if fetch else None
    except _NoAdapterError:
        return None


class _NoAdapterError(FlorenceError):
    """A repository is no adapter."""


def _refuse(contents: Contents) -> None:
    reason = contents.why_no_checkpoint()
    if reason is not None:
        raise CheckpointError(reason)


def _select(contents: Contents) -> list[str]:
    """The files of a checkpoint, with its weights in one format: safetensors where they exist."""
    _refuse(contents)
    weights = next(name for name in WEIGHT_FILES if name in contents.names)
    vocabulary = () if "tokenizer.json" in contents.names else _VOCABULARY
    patterns = (*CHECKPOINT_FILES, *vocabulary, weights, _SHARDS.get(weights, weights))
    return [
        name
        for name in contents.names
        if "/" not in name and any(fnmatchcase(name, pattern) for pattern in patterns)
    ]


def _lacking(folder: Path) -> list[str]:
    """Files of weights that a folder lacks."""
    weights = next((name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if weights is None:
        return ["weights"]
    if weights not in _SHARDS:
        return []
    return [name for name in shards(folder / weights) if not (folder / name).is_file()]


def shards(index: Path) -> list[str]:
    """The names of the files that an index spreads the weights over, in order.

    Raises:
        CheckpointError: The file is no index, or lists a name that is not of a file beside it.
    """
    weight_map = read_json(index, CheckpointError).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        isinstance(name, str) for name in weight_map.values()
    ):
        raise CheckpointError(f"{index} has no weight_map of weight names to file names")
    names = sorted(set(weight_map.values()))
    for name in names:
        # Windows rules know every separator and drive there is.
        if PureWindowsPath(name).name != name or name in ("", ".."):
            raise CheckpointError(f"{index} names {name!r:.80}, which is outside the folder")
        if len(name.encode()) > _LONGEST_NAME or not name.isprintable():
            raise CheckpointError(f"{index} names {name!r:.80}, which no file is called")
    return names
