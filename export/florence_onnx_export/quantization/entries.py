"""What the report of a model folder says of one precision."""

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
    """The entry of a precision that has just been made.

    Args:
        folder: The model folder.
        parts: Files of the precision's graphs in ``folder``.
        start: Seconds of `time.perf_counter` when the work began.
        fidelity: The errors that were measured.
        bounds: The errors that are allowed.
        more: How the graphs were made.
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
