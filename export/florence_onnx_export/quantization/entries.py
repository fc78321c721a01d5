"""Entries of precisions in the report of a model folder."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from florence_onnx.assets.ownership import digests
from florence_onnx_export.quantization.bounds import Bounds
from florence_onnx_export.quantization.fidelity import Fidelity


def make_entry(
    folder: Path,
    parts: Sequence[Path],
    start: float,
    fidelity: Fidelity,
    bounds: Bounds,
    more: dict[str, Any],
) -> dict[str, Any]:
    """Makes the entry of a new precision.

    Args:
        folder: Model folder.
        parts: Files of the precision's graphs in ``folder``.
        start: Value of `time.perf_counter` at the start of the work.
        fidelity: Measured errors.
        bounds: Largest errors that are allowed.
        more: Further fields about the methods.
    """
    return {
        "fidelity": fidelity.to_dict(),
        "bounds": asdict(bounds),
        **more,
        "bytes": {path.name: path.stat().st_size for path in parts},
        "seconds": round(time.perf_counter() - start, 2),
        "versions": {
            "florence-onnx": metadata.version("florence-onnx"),
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "files": digests(folder, parts),
    }
