"""What the constant weights of a graph's products are multiplied with: the second moments of it."""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from florence_onnx_export.quantization.matmuls import MICROSOFT, add_domain

_PRODUCTS = ("Attention", "Gemm", "MatMul")


def moments_graph(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, list[str]]]:
    """A graph that tells the second moments of what weights are multiplied with.

    The moment of vectors x is the sum of x x^T. The vectors are what a product takes sums over:
    the rows of the other factor if the weight is on the right, its columns if it is on the left.

    Args:
        model: A float32 graph.

    Returns:
        The graph, with a float32 output [n,n] per factor, and weight name -> its outputs, several
        for a weight of several products.
    """
    measuring = onnx.ModelProto()
    measuring.CopyFrom(model)
    graph = measuring.graph
    del graph.output[:]
    add_domain(measuring, MICROSOFT)
    graph.initializer.append(numpy_helper.from_array(np.array([0]), "moments.axes"))
    outputs: dict[tuple[str, bool], str] = {}
    names: dict[str, list[str]] = {}
    for weight, other, is_left, size in _constant_factors(model.graph):
        if (other, is_left) not in outputs:
            outputs[other, is_left] = name = f"moments.{len(outputs)}"
            graph.node.extend(_moment(graph, other, is_left, size, name))
            graph.output.append(helper.make_empty_tensor_value_info(name))
        names.setdefault(weight, []).append(outputs[other, is_left])
    return measuring, names


def _constant_factors(graph: onnx.GraphProto) -> Iterator[tuple[str, str, bool, int]]:
    """Weight, the other factor, whether the weight is on the left, and the length of the sums."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type not in _PRODUCTS:
            continue
        left, right = node.input[:2]
        if len(shapes.get(right, ())) >= 2 and left not in shapes:
            yield right, left, False, shapes[right][-2]
        elif len(shapes.get(left, ())) >= 2 and right not in shapes:
            yield left, right, True, shapes[left][-1]


def _moment(
    graph: onnx.GraphProto, x: str, is_left: bool, size: int, result: str
) -> list[onnx.NodeProto]:
    """Nodes for the moment of the rows, or the columns if the weight is on the left, of ``x``."""
    shape, rows, square, squares = (f"{result}.{key}" for key in ("shape", "x", "one", "all"))
    dims = [-1, size, size] if is_left else [-1, size]
    graph.initializer.append(numpy_helper.from_array(np.array(dims), shape))
    if not is_left:
        # One product over all rows, however many dimensions they are arranged in.
        multiply = helper.make_node("FusedMatMul", [rows, rows], [result], transA=1)
        multiply.domain = MICROSOFT
        return [helper.make_node("Reshape", [x, shape], [rows]), multiply]
    multiply = helper.make_node("FusedMatMul", [x, x], [square], transB=1)
    multiply.domain = MICROSOFT
    return [
        multiply,
        helper.make_node("Reshape", [square, shape], [squares]),
        helper.make_node("ReduceSum", [squares, "moments.axes"], [result], keepdims=0),
    ]
