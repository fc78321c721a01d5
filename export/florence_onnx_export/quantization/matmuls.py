"""Matmuls with constant weights in a graph, and their replacement by other operators."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from florence_onnx_export.graphs.files import read_tensor

MICROSOFT = "com.microsoft"
"""Domain of ONNX Runtime's own operators."""

Matrix = npt.NDArray[np.float32]
Tensors = dict[str, npt.NDArray[Any]]


class Method(Protocol):
    """Method to compute a matmul."""

    def __call__(
        self, x: str, name: str, weight: Matrix, bias: str, y: str, factor: Matrix | None = None
    ) -> tuple[onnx.NodeProto, Tensors]:
        """Makes a node for ``y = x @ weight + bias`` and the tensors that the node needs.

        Args:
            x: Name of the left factor, [..., in].
            name: Name of the weight. The names of the new tensors start with this name.
            weight: float32 [in, out].
            bias: Name of the bias [out], or "" for none.
            y: Name of the result, [..., out].
            factor: `gptq.inverse_factor` of the Hessian of ``x``, for `gptq.round_weight`.
        """


def matmul_weights(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Name -> shape [in, out] of the weights of a graph's matmuls, in graph order."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    names = (weight_of(node, shapes) for node in graph.node)
    return {name: shapes[name] for name in names if name}


def replace_matmuls(
    model: onnx.ModelProto, methods: Mapping[str, Method], folder: str = ""
) -> None:
    """Replaces the matmuls of the weights in ``methods`` by other operators.

    The new operator adds the bias. Any other term of the sum becomes an addition after the
    operator. An attention operator with its own projection becomes three matmuls and an attention
    operator, which is faster than one matmul whose result is cut into three.

    Args:
        model: The graph.
        methods: Weight name -> method.
        folder: Folder of the files with those weights that are not in the graph. One weight is read
            at a time.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {name: tuple(tensor.dims) for name, tensor in tensors.items()}
    nodes: list[onnx.NodeProto] = []
    replacements: Tensors = {}
    for node in graph.node:
        name = weight_of(node, shapes)
        if name not in methods:
            nodes.append(node)
            continue
        weight = read_tensor(tensors[name], folder)
        if node.op_type == "Attention":
            bias_values = read_tensor(tensors[node.input[2]], folder)
            replaced, added = _attention(node, methods[name], weight, bias_values)
        else:
            bias, y, after = _surroundings(node, graph, shapes)
            matmul, added = methods[name](node.input[0], name, weight, bias, y)
            replaced = [matmul, *after]
        nodes += replaced
        replacements |= added
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in replacements.items())
    drop_unused(graph)
    add_domain(model, MICROSOFT)


def add_domain(model: onnx.ModelProto, domain: str) -> None:
    """Adds a domain of operators to a model."""
    if domain not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(domain, 1))


def drop_unused(graph: onnx.GraphProto) -> None:
    """Removes constant tensors that no node reads."""
    used = {name for node in graph.node for name in _reads(node)}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names that a node and its branches read."""
    branches = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return set(node.input).union(*(_reads(inner) for branch in branches for inner in branch.node))


def weight_of(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Name of a matmul's weight; empty for any other node."""
    if node.op_type not in ("Gemm", "MatMul", "Attention") or len(node.input) > 3:
        return ""
    name = node.input[1]
    plain = all(
        helper.get_attribute_value(attribute) == (1 if attribute.name in ("alpha", "beta") else 0)
        for attribute in node.attribute
        if attribute.name != "num_heads"
    )
    return name if plain and len(shapes.get(name, ())) == 2 else ""


def _surroundings(
    node: onnx.NodeProto, graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[str, str, list[onnx.NodeProto]]:
    """Finds the bias of a matmul, the name of the result, and the nodes to put after."""
    (result,) = node.output
    added = node.input[2] if len(node.input) == 3 else ""
    if not added or len(shapes.get(added, ())) == 1:
        return added, result, []
    readers = [reader for reader in graph.node if result in reader.input]
    if len(readers) == 1 and readers[0].op_type == "Add":
        (other,) = (name for name in readers[0].input if name != result)
        if len(shapes.get(other, ())) == 1:
            readers[0].input[:] = [result, added]
            return other, result, []
    y = f"{result}_product"
    return "", y, [helper.make_node("Add", [y, added], [result], name=f"{node.name}_add")]


def _attention(
    node: onnx.NodeProto, method: Method, weight: Matrix, bias: npt.NDArray[np.float32]
) -> tuple[list[onnx.NodeProto], Tensors]:
    """Splits an attention operator into matmuls for queries, keys and values, and attention."""
    x, name, bias_name = node.input
    (result,) = node.output
    (heads,) = (attribute.i for attribute in node.attribute)
    nodes: list[onnx.NodeProto] = []
    tensors: Tensors = {}
    parts = [f"{result}_{part}" for part in ("query", "key", "value")]
    for i, y in enumerate(parts):
        columns = slice(i * len(weight), (i + 1) * len(weight))
        matmul, added = method(x, f"{name}.{i}", weight[:, columns], f"{bias_name}.{i}", y)
        nodes.append(matmul)
        tensors |= {**added, f"{bias_name}.{i}": bias[columns]}
    nodes.append(
        helper.make_node(
            "MultiHeadAttention",
            parts,
            node.output,
            name=f"{node.name}_heads",
            domain=MICROSOFT,
            num_heads=heads,
        )
    )
    return nodes, tensors
