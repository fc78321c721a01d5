"""Weights kept in 8 bits and made float32 again whenever they are used."""

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper

from florence_onnx_export.products import drop_unused, product_weights

_LEAST = 2**17
"""Values below which a weight is not worth an operator."""


def storable_weights(graph: onnx.GraphProto) -> list[str]:
    """Weights that are multiplied with something else than a graph's activations.

    Channel attention multiplies them with small sums over a picture; its products are fast as
    they are, but their weights are a sixth of the vision encoder.
    """
    read = {name for node in graph.node if node.op_type == "MatMul" for name in node.input}
    others = read - set(product_weights(graph))
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    return [name for name, size in sizes.items() if name in others and size >= _LEAST]


def store_weights(model: onnx.ModelProto, names: Collection[str]) -> None:
    """Stores weights as s8 with a scale per index of their longest axis.

    ONNX Runtime does not undo this when it loads the graph: DequantizeLinear stays.
    """
    graph = model.graph
    for tensor in [tensor for tensor in graph.initializer if tensor.name in names]:
        name = tensor.name
        weight = numpy_helper.to_array(tensor)
        axis = int(np.argmax(weight.shape))
        others = tuple(i for i in range(weight.ndim) if i != axis)
        scale = np.abs(weight).max(axis=others, keepdims=True) / 127
        scale[scale == 0] = 1
        graph.initializer.extend(
            [
                numpy_helper.from_array(np.rint(weight / scale).astype(np.int8), f"{name}.int8"),
                numpy_helper.from_array(scale.reshape(-1), f"{name}.scale"),
            ]
        )
        graph.initializer.remove(tensor)
        inputs = [f"{name}.int8", f"{name}.scale"]
        node = helper.make_node("DequantizeLinear", inputs, [name], name=f"{name}.float", axis=axis)
        graph.node.insert(0, node)
    drop_unused(graph)
