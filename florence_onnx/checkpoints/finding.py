"""Search for the files of a checkpoint: in a folder, or in a repository of the hub."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PureWindowsPath

from florence_onnx import hub
from florence_onnx.checkpoints.contents import (
    ADAPTER_CONFIG,
    ADAPTER_FILES,
    WEIGHT_FILES,
    Contents,
)
from florence_onnx.checkpoints.left_weights import record_left
from florence_onnx.errors import CheckpointError, FlorenceError, ModelNotFoundError
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
    ADAPTER_CONFIG,  # Shows that an adapter lies beside the weights.
)
"""Files that are fetched from the hub beside the weights."""

_VOCABULARY = ("vocab.json", "merges.txt")
"""Files that are fetched where there is no tokenizer.json."""

_BARE = ".safetensors"

_SHARDS = {
    "model.safetensors.index.json": "model-*-of-*.safetensors",
    "pytorch_model.bin.index.json": "pytorch_model-*-of-*.bin",
}

_LONGEST_NAME = 255
"""Bytes of a file name. Most systems raise an error for a longer name."""


@dataclass(frozen=True)
class AssetSource:
    """Model whose config.json, tokenizer and preprocessing replace missing ones."""

    source: str
    """Folder or hub id, as the caller wrote it."""
    folder: Path
    """Folder of the model's files."""


def find_assets(source: str | Path, access: hub.Access) -> AssetSource:
    """Finds the files of a model beside the weights, and fetches them from the hub if necessary.

    Args:
        source: Folder or hub id of a checkpoint or a model folder.
        access: Which state of a hub repository is wanted.

    Raises:
        CheckpointError: There is no tokenizer.
        ModelNotFoundError: There is no such folder, or the hub repository cannot be had.
    """
    missing = CheckpointError(f"{source} has no tokenizer that could be taken")

    def select(names: Collection[str]) -> list[str]:
        if not _is_tokenizer(names):
            raise missing
        return _beside(names)

    folder = local_folder(source) or hub.cached(str(source), access)
    if folder is None or not has_tokenizer(folder):
        if local_folder(source) is not None:
            raise missing
        folder = hub.fetch(str(source), access, select)
    return AssetSource(str(source), folder)


def has_tokenizer(folder: Path) -> bool:
    """Tells whether a folder holds a tokenizer, in one file or in two."""
    # A link to nothing is no file that was left out.
    return _is_tokenizer({path.name for path in folder.iterdir()})


def find_bare_weights(source: str | Path, access: hub.Access) -> Path | None:
    """Finds a safetensors file that the caller names, and fetches the file if necessary.

    Args:
        source: Path, or hub id with the file, ``"org/name:folder/file.safetensors"``.
        access: Which state of a hub repository is wanted.

    Returns:
        The file; None where ``source`` names a folder or a hub id.

    Raises:
        ModelNotFoundError: There is no such file, or the hub repository cannot be had.
    """
    path = Path(source)
    if path.suffix != _BARE or path.is_dir():
        return None
    if path.is_file():
        return path
    if local_folder(source) is not None or ":" not in str(source):
        return None
    repository, inside = hub.split_source(str(source))
    above, _, name = inside.rpartition("/")
    place = f"{repository}:{above}" if above else repository
    folder = hub.cached(place, access, name)
    if folder is not None:
        return folder / name

    def select(names: Collection[str]) -> list[str]:
        if name not in names:
            raise ModelNotFoundError(f"hub model {repository!r} has no file {inside!r}")
        return [*_beside(names), name]

    return hub.fetch(place, access, select) / name


def find_checkpoint(
    source: str | Path,
    access: hub.Access = hub.ANYHOW,
    accept: Callable[[Path, int], object] = lambda folder, coming: None,
    is_completed: bool = False,
) -> Path:
    """Finds the folder of a checkpoint, and fetches the files from the hub if necessary.

    Args:
        source: A folder or a hub id, ``"org/name"`` or ``"org/name:folder"``.
        access: Which state of a hub repository is wanted.
        accept: Called before weights are fetched, as `hub.fetch` does.
        is_completed: Whether files beside the weights may be missing.

    Raises:
        CheckpointError: The source is no checkpoint but, for example, a model folder, an adapter
            or the output folder of a training.
        ModelNotFoundError: There is no such folder, or the hub repository cannot be had.
    """
    folder = local_folder(source)
    if folder is not None:
        _refuse(Contents.of_folder(folder), is_completed)
        return folder
    repository = str(source)
    folder = hub.cached(repository, access)
    for name in WEIGHT_FILES if is_completed else ():
        folder = folder or hub.cached(repository, access, name)
    lacking = _lacking(folder) if folder else []
    if folder is not None and not lacking:
        return folder

    hint, left = "", []

    def select(names: Collection[str]) -> list[str]:
        nonlocal hint, left
        contents = Contents(repository, names)
        selected = _select(contents, is_completed)
        left = contents.other_weights(selected)
        hint = contents.hint()
        return selected

    try:
        folder = hub.fetch(repository, access, select, lacking, accept)
    except CheckpointError as error:  # config.json may be that of another model.
        raise CheckpointError(f"{error}{hint}") from error
    if left:
        record_left(repository, folder, left)
    return _complete(repository, folder, access)


def _complete(repository: str, folder: Path, access: hub.Access) -> Path:
    """Fetches the shards whose names only the index tells."""
    lacking = _lacking(folder)
    if not lacking:
        return folder

    def select(names: Collection[str]) -> list[str]:
        absent = [name for name in lacking if name not in names]
        if absent:
            raise CheckpointError(
                f"{repository} has no file {absent[0]}, but the index of its weights names the file"
            )
        return lacking

    commit = hub.commit_of(repository, folder)  # The branch may move meanwhile.
    return hub.fetch(repository, replace(access, revision=commit), select, lacking)


def find_adapter(
    source: str | Path, access: hub.Access, fetch: bool, beside_weights: bool = False
) -> Path | None:
    """Finds the folder of an adapter.

    Args:
        source: A folder or a hub id.
        access: Which state of a hub repository is wanted.
        fetch: Whether the files are fetched from the hub if necessary.
        beside_weights: Whether the adapter may lie beside the weights of a whole checkpoint.

    Returns:
        The folder; None where the source is no adapter.

    Raises:
        ModelNotFoundError: The hub repository cannot be had.
    """

    def is_adapter(contents: Contents) -> bool:
        return contents.is_adapter or (beside_weights and contents.has_adapter)

    folder = local_folder(source)
    if folder is not None:
        return folder if is_adapter(Contents.of_folder(folder)) else None
    repository = str(source)
    folder = hub.cached(repository, access, ADAPTER_CONFIG)
    if folder is not None and any((folder / name).is_file() for name in ADAPTER_FILES):
        return folder if is_adapter(Contents.of_folder(folder)) else None

    def select(names: Collection[str]) -> list[str]:
        if not is_adapter(Contents(repository, names)):
            raise _NoAdapterError
        return [ADAPTER_CONFIG, *[name for name in ADAPTER_FILES if name in names][:1]]

    try:
        return hub.fetch(repository, access, select) if fetch else None
    except _NoAdapterError:
        return None


class _NoAdapterError(FlorenceError):
    """Signals that a repository holds no adapter."""


def _refuse(contents: Contents, is_completed: bool) -> None:
    reason = contents.why_no_checkpoint(is_completed)
    if reason is not None:
        raise CheckpointError(reason)


def _select(contents: Contents, is_completed: bool) -> list[str]:
    """Files of a checkpoint, the weights in one format only: safetensors if there are any."""
    _refuse(contents, is_completed)
    weights = next(name for name in WEIGHT_FILES if name in contents.names)
    patterns = (weights, _SHARDS.get(weights, weights))
    return [
        *_beside(contents.names),
        *(
            name
            for name in contents.names
            if "/" not in name and any(fnmatchcase(name, pattern) for pattern in patterns)
        ),
    ]


def _is_tokenizer(names: Collection[str]) -> bool:
    return "tokenizer.json" in names or set(_VOCABULARY) <= set(names)


def _beside(names: Collection[str]) -> list[str]:
    """Names of the files that are fetched beside the weights."""
    vocabulary = () if "tokenizer.json" in names else _VOCABULARY
    return [name for name in (*CHECKPOINT_FILES, *vocabulary) if name in names]


def _lacking(folder: Path) -> list[str]:
    """Files of weights that a folder lacks."""
    weights = next((name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if weights is None:
        return ["weights"]
    if weights not in _SHARDS:
        return []
    return [name for name in shards(folder / weights) if not (folder / name).is_file()]


def shards(index: Path) -> list[str]:
    """Names of the files that an index lists, sorted.

    Raises:
        CheckpointError: The file is no index, or lists a file that cannot be beside the index.
    """
    names = sorted(set(weight_map(index).values()))
    for name in names:
        # The rules of Windows know every separator and drive letter.
        if PureWindowsPath(name).name != name or name in ("", ".."):
            raise CheckpointError(f"{index} names {name!r:.80}, which is outside the folder")
        if len(name.encode()) > _LONGEST_NAME or not name.isprintable():
            raise CheckpointError(f"{index} names {name!r:.80}, which no file is called")
    return names


def weight_map(index: Path) -> dict[str, str]:
    """Reads from an index the file of each weight.

    Raises:
        CheckpointError: The file is no index.
    """
    files = read_json(index, CheckpointError).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise CheckpointError(f"{index} has no weight_map of weight names to file names")
    return files
