"""Graphs that compute in float32 and store the weights in float16 where this loses nothing."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from florence_onnx_export.graphs.files import load_graph, read_tensor

_LEAST = 1024
"""Number of values below which a weight stays in float32, because a Cast costs more."""


def store_half(graph: onnx.GraphProto) -> None:
    """Stores float32 weights in float16 where float16 is exact, each with a Cast behind."""
    for tensor in list(graph.initializer):
        weight = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or weight.size < _LEAST:
            continue
        half = weight.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), weight):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        cast = helper.make_node(
            "Cast", [tensor.name], [name], name=f"{name}.float", to=TensorProto.FLOAT
        )
        graph.node.insert(0, cast)


def load_float32(path: Path, weights: bool = True) -> onnx.ModelProto:
    """Reads a graph and undoes `store_half`: weights are float32 again, without Casts.

    Args:
        path: The graph's file.
        weights: Whether weights in a file beside the graph are read too. Otherwise
            `load_weights` reads these weights later.
    """
    model = load_graph(path) if weights else onnx.load(str(path), load_external_data=False)
    graph = model.graph
    halves = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT16}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.input[0] in halves]:
        tensor = halves[node.input[0]]
        weight = read_tensor(tensor, str(path.parent)).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(weight, node.output[0]))
        graph.node.remove(node)
    return model
