"""Files of graphs."""

from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from florence_onnx.engine.contract import DATA_SUFFIX

LARGE = 1 << 24
"""Bytes of a graph from which the weights go into a file beside the graph. ONNX Runtime maps that
file into memory; weights inside the graph's file would be read, parsed and copied first."""

_LEAST = 1 << 10
"""Bytes below which a weight stays in the graph's file."""


def load_graph(path: Path) -> onnx.ModelProto:
    """Reads a graph, and the weights in a file beside the graph."""
    model = onnx.load(str(path), load_external_data=False)
    load_weights(model, str(path.parent))
    return model


def load_weights(model: onnx.ModelProto, folder: str) -> None:
    """Moves weights from files in ``folder`` into the graph.

    The onnx package refuses a file that is a link or has hard links, such as every file of a copy
    made by ``cp -al``. ONNX Runtime reads these files, so they are read here too. Opening the graph
    in the runtime has checked where the files are, and their sizes.
    """
    for tensor in model.graph.initializer:
        _fill(tensor, folder)


def read_tensor(tensor: TensorProto, folder: str) -> npt.NDArray[Any]:
    """Reads a constant tensor of a graph, and leaves the tensor in its file in ``folder``."""
    copy = TensorProto()
    copy.CopyFrom(tensor)
    _fill(copy, folder)
    return numpy_helper.to_array(copy)


def _fill(tensor: TensorProto, folder: str) -> None:
    if tensor.data_location != TensorProto.EXTERNAL:
        return
    place = {entry.key: entry.value for entry in tensor.external_data}
    with Path(folder, place["location"]).open("rb") as file:
        file.seek(int(place.get("offset", 0)))
        tensor.raw_data = file.read(int(place.get("length", -1)))
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


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
