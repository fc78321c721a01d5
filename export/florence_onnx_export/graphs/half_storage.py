"""Graphs that compute in float32 and store weights in float16: half the size, the same values."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_LEAST = 1024
"""Values below which a weight is not worth an operator."""


def store_half(graph: onnx.GraphProto) -> None:
    """Stores the float32 weights that float16 holds exactly as such, with a Cast behind each."""
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
    """A graph as it was before `store_half`: with float32 weights and without their Casts.

    Args:
        path: The graph's file.
        weights: Whether those in a file of their own are read too; otherwise
            `onnx.external_data_helper.load_external_data_for_model` reads them later.
    """
    model = onnx.load(str(path), load_external_data=weights)
    graph = model.graph
    halves = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT16}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.input[0] in halves]:
        tensor = halves[node.input[0]]
        weight = numpy_helper.to_array(tensor, str(path.parent)).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(weight, node.output[0]))
        graph.node.remove(node)
    return model
