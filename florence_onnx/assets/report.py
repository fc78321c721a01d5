"""The report of a model folder: what was exported to which files, and how far from its source."""

import json
from pathlib import Path
from typing import Any

from florence_onnx.errors import ModelFileError
from florence_onnx.files import read_json, write_whole

REPORT = "export_report.json"
"""Reports of exports: source and files, the error of each precision, the seconds it took."""


def read_report(folder: Path) -> dict[str, Any]:
    """The folder's report, empty when there is none.

    Raises:
        ModelFileError: The report, or its entry of a precision, is not a JSON object.
    """
    path = folder / REPORT
    report = read_json(path) if path.exists() else {}
    if not isinstance(report.get("precisions", {}), dict):
        raise ModelFileError(f"{path}: precisions is not a JSON object; remove the file")
    return report


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Writes a report."""
    write_whole(path, json.dumps(report, indent=2) + "\n")
