"""Token embedding in 8 bits. Only the rows of the tokens in a run become float32."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from florence_onnx.errors import GraphContractError
from florence_onnx_export.quantization.matmuls import drop_unused


def quantize_table(model: onnx.ModelProto) -> None:
    """Stores the table of an embedding graph as s8 with a scale for every row.

    Raises:
        GraphContractError: The graph is no lookup of rows in one table.
    """
    graph = model.graph
    if [node.op_type for node in graph.node] != ["Gather"] or len(graph.initializer) != 1:
        raise GraphContractError(
            "the token embedding is not a single lookup; export the checkpoint again"
        )
    (lookup,), (tensor,) = graph.node, graph.initializer
    table = numpy_helper.to_array(tensor)
    scale = np.abs(table).max(axis=1, keepdims=True) / 127
    scale[scale == 0] = 1
    values, scales = f"{tensor.name}.int8", f"{tensor.name}.scale"
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.rint(table / scale).astype(np.int8), values),
            numpy_helper.from_array(scale, scales),
        ]
    )
    ids, embeds = lookup.input[1], lookup.output[0]
    nodes = [
        helper.make_node("Gather", [values, ids], ["rows"], name="rows"),
        helper.make_node("Gather", [scales, ids], ["row_scales"], name="row_scales"),
        helper.make_node(
            "Cast", ["rows"], ["integers"], name="integers", to=onnx.TensorProto.FLOAT
        ),
        helper.make_node("Mul", ["integers", "row_scales"], [embeds], name="embeds"),
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused(graph)
