"""Records of weights that a repository of the hub has too, and that were not fetched.

Only the list of the repository's files tells of these weights. The list is not in the cache, so the
names are written beside the fetched files, in the folder that the hub library has for the
repository and deletes with it.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from florence_onnx.files import write_whole
from florence_onnx.hub import commit_of, split_source

_FOLDER = ".florence_onnx"


def record_left(source: str, folder: Path, names: Sequence[str]) -> None:
    """Writes the names of files that were not fetched.

    Args:
        source: Hub id.
        folder: Folder of the fetched files in the cache.
        names: Names of the files.
    """
    with suppress(OSError):  # A cache that holds all files already may be read-only.
        write_whole(_record(source, folder), json.dumps(list(names)))


def weights_left(source: str, folder: Path) -> list[str]:
    """Reads the names of files that were not fetched; empty without a record."""
    try:
        names = json.loads(_record(source, folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return names if isinstance(names, list) and all(isinstance(n, str) for n in names) else []


def _record(source: str, folder: Path) -> Path:
    home = next(parent for parent in folder.parents if parent.name == "snapshots").parent
    inside = split_source(source)[1].split("/")
    return home / _FOLDER / f"{'+'.join([commit_of(source, folder), *inside])}.json"
