"""Weights that are stored in 8 or 16 bits and converted to float32 in every run."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from florence_onnx_export.graphs.files import read_tensor
from florence_onnx_export.quantization.gptq import round_weight
from florence_onnx_export.quantization.matmuls import (
    MICROSOFT,
    Matrix,
    Tensors,
    add_domain,
    drop_unused,
    matmul_weights,
)

_LEAST = 2**17
"""Number of values below which a weight stays in float32, because the conversion costs more."""


def storable_weights(graph: onnx.GraphProto) -> list[str]:
    """Names of weights whose matmuls have few rows, and so are fast in float32.

    These weights belong to channel attention, which multiplies the weights with sums over a
    picture. A sixth of the vision encoder's bytes are such weights.
    """
    read = {name for node in graph.node if node.op_type == "MatMul" for name in node.input}
    others = read - set(matmul_weights(graph))
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    return [name for name, size in sizes.items() if name in others and size >= _LEAST]


def store_weights(
    model: onnx.ModelProto,
    names: Collection[str],
    factor: Callable[[str], Matrix | None] = lambda name: None,
    folder: str = "",
    bits: int = 8,
) -> None:
    """Stores weights as signed integers.

    Each index of the longest axis has a scale. Where this axis is the last, each row has a scale.
    ONNX Runtime keeps DequantizeLinear when it loads the graph, so weights stay small in memory.

    Args:
        model: The graph.
        names: Names of the weights.
        factor: Makes the argument ``factor`` of `gptq.round_weight` for the name of a weight.
        folder: Folder of the files with those weights that are not in the graph.
        bits: 8 or 16.
    """
    limit = 2 ** (bits - 1) - 1
    graph = model.graph
    on_the_left = {node.input[0] for node in graph.node if node.op_type == "MatMul"}
    for tensor in [tensor for tensor in graph.initializer if tensor.name in names]:
        name = tensor.name
        weight = read_tensor(tensor, folder)
        axes = _scaled_axes(weight.shape)
        others = tuple(i for i in range(weight.ndim) if i not in axes)
        scale = np.abs(weight).max(axis=others, keepdims=True) / limit
        scale[scale == 0] = 1
        summed = -1 if name in on_the_left else -2
        values = _round(weight, scale, summed, limit, factor(name)).astype(f"int{bits}")
        nodes, constants = _dequantize(name, values, scale, axes)
        graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
        graph.initializer.remove(tensor)
        for node in reversed(nodes):
            graph.node.insert(0, node)
    drop_unused(graph)
    add_domain(model, MICROSOFT)


def _scaled_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """Axes whose indices have scales of their own: the longest axis, or all others if it is last.

    DequantizeLinear takes seven times as long where the scale differs from value to value.
    """
    longest = int(np.argmax(shape))
    last = len(shape) - 1
    return tuple(range(last)) if longest == last else (longest,)


def _dequantize(
    name: str, values: npt.NDArray[Any], scale: Matrix, axes: tuple[int, ...]
) -> tuple[list[onnx.NodeProto], Tensors]:
    """Makes the nodes that convert a stored weight to float32, and the tensors that they read.

    Args:
        name: Name of the weight.
        values: The weight as int8 or int16.
        scale: float32 of as many axes, of length 1 but for ``axes``.
        axes: Result of `_scaled_axes`.
    """
    stored, scales = f"{name}.{values.dtype}", f"{name}.scale"
    rows = len(axes) > 1
    y = f"{name}.rows" if rows else name
    node = helper.make_node(
        "DequantizeLinear",
        [stored, scales],
        [y],
        name=f"{name}.float",
        domain="" if values.dtype == np.int8 else MICROSOFT,  # ONNX has 16 bits from opset 21.
        axis=axes[0],
    )
    tensors: Tensors = {stored: values, scales: scale.reshape(-1)}
    if not rows:
        return [node], tensors
    shape = f"{name}.shape"
    tensors |= {stored: values.reshape(-1, values.shape[-1]), shape: np.array(values.shape)}
    return [node, helper.make_node("Reshape", [y, shape], [name], name=f"{name}.whole")], tensors


def _round(weight: Matrix, scale: Matrix, summed: int, limit: int, factor: Matrix | None) -> Matrix:
    """Rounds a weight of any number of axes. Matmuls sum over the axis ``summed``."""
    first = np.moveaxis(weight, summed, 0)
    steps = np.moveaxis(np.broadcast_to(scale, weight.shape), summed, 0)
    rows = (len(first), -1)
    values = round_weight(first.reshape(rows), steps.reshape(rows), (-limit, limit), factor)
    return np.moveaxis(values.reshape(first.shape), 0, summed)
