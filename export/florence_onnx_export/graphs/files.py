"""Files of graphs."""

from pathlib import Path

import onnx

from florence_onnx.engine.contract import DATA_SUFFIX

LARGE = 1 << 24
"""Bytes of a graph from which the weights go into a file beside the graph. ONNX Runtime maps that
file into memory; weights inside the graph's file would be read, parsed and copied first."""

_LEAST = 1 << 10
"""Bytes below which a weight stays in the graph's file."""


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Writes a graph to ``path``, and the weights of a large graph to a file beside ``path``.

    A large ``model`` has no weights afterwards.
    """
    data = path.with_name(path.name + DATA_SUFFIX)
    data.unlink(missing_ok=True)  # onnx would append to an existing file
    if model.ByteSize() < LARGE:
        onnx.save_model(model, str(path))
        return
    onnx.save_model(
        model, str(path), save_as_external_data=True, location=data.name, size_threshold=_LEAST
    )
