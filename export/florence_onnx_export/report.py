"""The report of a model folder: what was exported, and how far it is from its source."""

import json
from pathlib import Path
from typing import Any

from florence_onnx.errors import ModelFileError

REPORT = "export_report.json"
"""What was exported, from what, how far each precision is from its source, in how many seconds."""


def read_report(folder: Path) -> dict[str, Any]:
    """The folder's report, empty when there is none.

    Raises:
        ModelFileError: It is not a JSON object.
    """
    path = folder / REPORT
    if not path.exists():
        return {}
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelFileError(f"{path} cannot be read as JSON: {error}; remove it") from error
    if not isinstance(report, dict):
        raise ModelFileError(f"{path} holds {type(report).__name__}, not a JSON object; remove it")
    return report


def append_precision(folder: Path, precision: str, entry: dict[str, Any]) -> None:
    """Writes a precision's entry into the folder's report, which is made if it is not there."""
    report = read_report(folder)
    report["precisions"] = {**report.get("precisions", {}), precision: entry}
    partial = folder / f".{REPORT}.partial"
    partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / REPORT)
