"""Fetching of the two decoders of a hub model whose merged decoder does not open."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from florence_onnx import hub
from florence_onnx.engine.hub_contract import MERGED_DECODER
from florence_onnx.engine.layouts import MERGED, SPLIT, graph_files, graph_of, layout_of
from florence_onnx.engine.precision import Precision
from florence_onnx.errors import FlorenceError, GraphContractError, ModelFileError
from florence_onnx.hub import Access

T = TypeVar("T")
P = TypeVar("P", bound=Precision)


def open_either(
    repository: str,
    folder: Path,
    precision: P,
    opened: Callable[[Path, P], T],
    access: Access,
) -> T:
    """Opens a hub model; with the pair of decoders where the merged decoder does not open.

    Args:
        repository: Hub id, ``"org/name"``.
        folder: The files of the repository in the cache.
        precision: The precision to open.
        opened: Opens a folder at a precision.
        access: Which state of the repository is wanted.

    Raises:
        ModelError: What ``opened`` raises.
    """
    try:
        return opened(folder, precision)
    except (ModelFileError, GraphContractError) as error:
        names = graph_files(folder)
        merged = MERGED.files(names, precision)[MERGED_DECODER]
        # Messages about a graph begin with its path.
        at_fault = str(error).startswith(str(folder / merged))
        if not at_fault or layout_of(names, precision) is not MERGED:
            raise
        if SPLIT.is_whole(names, precision) or not _fetch(repository, precision, access):
            raise
    return opened(folder, precision)


def _fetch(repository: str, precision: Precision, access: Access) -> bool:
    """Fetches the pair into the cache; returns False where this fails."""

    def select(names: Collection[str]) -> list[str]:
        needed = SPLIT.files(names, precision).values()
        if not all(file in names for file in needed):
            raise _NoPairError
        return [name for name in names if graph_of(name) in needed]

    try:
        hub.fetch(repository, access, select)
    except FlorenceError:
        return False  # The error of the merged decoder is the better message.
    return True


class _NoPairError(FlorenceError):
    """Signals a repository without the pair."""
