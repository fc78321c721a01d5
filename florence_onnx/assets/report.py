"""Report of a model folder: source, files, and differences from the source."""

import json
from pathlib import Path
from typing import Any

from florence_onnx.errors import ModelFileError
from florence_onnx.files import read_json, write_whole

REPORT = "export_report.json"
"""Name of the report of an export: source, files, errors of precisions, seconds."""


def read_report(folder: Path) -> dict[str, Any]:
    """Reads the report of a folder; empty where there is no report.

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
