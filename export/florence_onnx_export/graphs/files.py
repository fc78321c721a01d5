"""Graph files on disk."""

from pathlib import Path

import onnx

from florence_onnx.engine.contract import DATA_SUFFIX

LARGE = 1 << 24
"""Bytes from which a graph's weights go into a file of their own, which ONNX Runtime maps into
memory: inside the graph it would read them, parse them and copy them before it can use them."""

_LEAST = 1 << 10
"""Bytes below which a weight stays in the graph all the same."""


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Writes a graph to ``path`` and, if it is large, its weights beside it.

    The weights of a large ``model`` are gone from it afterwards.
    """
    data = path.with_name(path.name + DATA_SUFFIX)
    data.unlink(missing_ok=True)  # onnx would write behind what is there
    if model.ByteSize() < LARGE:
        onnx.save_model(model, str(path))
        return
    onnx.save_model(
        model, str(path), save_as_external_data=True, location=data.name, size_threshold=_LEAST
    )
