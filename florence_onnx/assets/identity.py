"""Digest of the files of a model, as an identity of the model."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

from florence_onnx.assets.ownership import file_digest
from florence_onnx.assets.report import read_report
from florence_onnx.engine import contract


def model_digest(folder: Path, graphs: Collection[str]) -> str:
    """Computes the SHA-256 of the digests of all files on which answers depend.

    The digests of graphs, which are large, are taken from the manifest of the folder where the
    manifest lists the graphs.

    Args:
        folder: The model folder.
        graphs: The graphs that are used, as relative paths with slashes.

    Raises:
        ModelFileError: The manifest is not a JSON object.
    """
    listed = _listed(folder)
    used = {name: file_digest(folder / name) for name in contract.ASSETS}
    for name in sorted({*graphs, *(graph + contract.DATA_SUFFIX for graph in graphs)}):
        if (folder / name).is_file():
            used[name] = listed.get(name) or file_digest(folder / name)
    return hashlib.sha256(json.dumps(used).encode()).hexdigest()


def _listed(folder: Path) -> dict[str, str]:
    report = read_report(folder)
    entries = [report, *report.get("precisions", {}).values()]
    lists = [entry.get("files") for entry in entries if isinstance(entry, dict)]
    return {
        name: value for files in lists if isinstance(files, dict) for name, value in files.items()
    }
