"""Channel attention in 8 bits: the two matmuls over all tokens of a picture.

Channel attention multiplies tokens x [B,N,C] with themselves, x^T x, and with a matrix [B,C,C] that
follows from these sums and from the weights. Neither matmul has a constant factor, so both factors
are quantised in every run.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from florence_onnx_export.quantization.matmuls import MICROSOFT, add_domain

_CONSTANTS = {
    "double": np.float32(2),
    "one": np.int32(1),
    "two": np.int32(2),
    "centre": np.int32(64),
    "rows": np.array([-2]),
    "steps": np.float32(1 / 127),
    "least": np.float32(1e-30),
}
"""Processors without 8-bit dot products add pairs of a u8 times an s8 in 16 bits. These sums fit
where the two s8 are no more than 128 together. So x as the right factor has 7 bits, and the scales
of the matrix are such that two rows, one after the other, are at most 127 before they are rounded.
"""


@dataclass(frozen=True)
class ChannelAttention:
    """Matmuls of one channel attention in a graph."""

    value: str
    """Name of the weight of the values, by which the attention is known."""
    channels: int
    """C."""
    tokens: str
    """Name of x, [B,N,C]."""
    squares: onnx.NodeProto
    """MatMul that makes x^T x, [B,C,C]."""
    output: onnx.NodeProto
    """MatMul of x and a matrix [B,C,C]."""

    @property
    def pairs(self) -> str:
        """Name of a shape, [B,C/2,2,C]."""
        return f"channels.pairs.{self.channels}"


def channel_attentions(graph: onnx.GraphProto) -> Iterator[ChannelAttention]:
    """Finds the channel attentions of a float32 graph, where C is even."""
    sizes = {tensor.name: tensor.dims[-1] for tensor in graph.initializer if tensor.dims}
    matmuls = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}
    turned = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Transpose"}
    squares = {
        node.input[1]: node
        for node in matmuls.values()
        if turned.get(node.input[0]) == node.input[1]
    }
    for node in matmuls.values():
        tokens, matrix = node.input
        value = matmuls[matrix].input[0] if matrix in matmuls else ""
        if tokens in squares and sizes.get(value, 1) % 2 == 0:
            yield ChannelAttention(value, sizes[value], tokens, squares[tokens], node)


def quantize_channels(model: onnx.ModelProto, values: Collection[str]) -> None:
    """Computes the matmuls over all tokens in 8 bits.

    Args:
        model: The graph.
        values: Names of `ChannelAttention.value`, for the attentions to change.
    """
    graph = model.graph
    found = [a for a in channel_attentions(graph) if a.value in values]
    if not found:
        return
    replaced = {a.squares.output[0]: _squares(a) for a in found}
    replaced |= {a.output.output[0]: _output(a) for a in found}
    nodes = [new for node in graph.node for new in replaced.get(node.output[0], [node])]
    del graph.node[:]
    graph.node.extend(nodes)
    constants = {f"channels.{name}": np.asarray(value) for name, value in _CONSTANTS.items()}
    constants |= {a.pairs: np.array([0, -1, 2, a.channels]) for a in found}
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    add_domain(model, MICROSOFT)


def _squares(attention: ChannelAttention) -> list[onnx.NodeProto]:
    """Makes the nodes of x^T x. The first factor has one scale, the second twice this scale."""
    x, (y,) = attention.tokens, attention.squares.output
    q, scale, zero = (f"{x}.{part}" for part in ("uint8", "scale", "zero"))
    return [
        helper.make_node("DynamicQuantizeLinear", [x], [q, scale, zero]),
        helper.make_node("Transpose", [q], [f"{q}.turned"], perm=[0, 2, 1]),
        helper.make_node("Mul", [scale, "channels.double"], [f"{x}.scale7"]),
        helper.make_node("Cast", [zero], [f"{x}.zero32"], to=TensorProto.INT32),
        helper.make_node("Add", [f"{x}.zero32", "channels.one"], [f"{x}.more"]),
        helper.make_node("Div", [f"{x}.more", "channels.two"], [f"{x}.half"]),
        helper.make_node("Sub", [f"{x}.half", "channels.centre"], [f"{x}.signed"]),
        helper.make_node("Cast", [f"{x}.signed"], [f"{x}.zero7"], to=TensorProto.INT8),
        helper.make_node("QuantizeLinear", [x, f"{x}.scale7", f"{x}.zero7"], [f"{x}.int7"]),
        helper.make_node(
            "MatMulIntegerToFloat",
            [f"{q}.turned", f"{x}.int7", scale, f"{x}.scale7", zero, f"{x}.zero7"],
            [y],
            name=f"{attention.squares.name}_quantized",
            domain=MICROSOFT,
        ),
    ]


def _output(attention: ChannelAttention) -> list[onnx.NodeProto]:
    """Makes the nodes of x times the matrix, which has a scale per column of each picture."""
    x, matrix = attention.output.input
    q, scale, zero = (f"{x}.{part}" for part in ("uint8", "scale", "zero"))
    return [
        helper.make_node("Abs", [matrix], [f"{matrix}.sizes"]),
        helper.make_node("Reshape", [f"{matrix}.sizes", attention.pairs], [f"{matrix}.pairs"]),
        helper.make_node(
            "ReduceSum", [f"{matrix}.pairs", "channels.rows"], [f"{matrix}.sums"], keepdims=0
        ),
        helper.make_node("ReduceMax", [f"{matrix}.sums", "channels.rows"], [f"{matrix}.peaks"]),
        helper.make_node("Mul", [f"{matrix}.peaks", "channels.steps"], [f"{matrix}.any_scale"]),
        helper.make_node("Max", [f"{matrix}.any_scale", "channels.least"], [f"{matrix}.scale"]),
        helper.make_node("Div", [matrix, f"{matrix}.scale"], [f"{matrix}.steps"]),
        helper.make_node("Round", [f"{matrix}.steps"], [f"{matrix}.whole"]),
        helper.make_node("Cast", [f"{matrix}.whole"], [f"{matrix}.int8"], to=TensorProto.INT8),
        helper.make_node(
            "MatMulIntegerToFloat",
            [q, f"{matrix}.int8", scale, f"{matrix}.scale", zero],
            [attention.output.output[0]],
            name=f"{attention.output.name}_quantized",
            domain=MICROSOFT,
        ),
    ]
