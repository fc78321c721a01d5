"""Weights that are stored in 8 or 16 bits and converted to float32 in every run."""

from collections.abc import Callable, Collection, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from florence_onnx_export.graphs.files import read_tensor
from florence_onnx_export.quantization.gptq import round_weight
from florence_onnx_export.quantization.matmuls import (
    MICROSOFT,
    Matrix,
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
    """Stores weights as signed integers, with scales as `_scaled_axes` says.

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
        if len(axes) > 1:
            values = values.reshape(-1, weight.shape[-1])
        stored, flat, shape = f"{name}.int{bits}", f"{name}.flat", f"{name}.shape"
        constants = {
            stored: values,
            f"{name}.scale": scale.reshape(-1),
            shape: np.array(weight.shape),
        }
        graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
        graph.initializer.remove(tensor)
        dequantize = helper.make_node(
            "DequantizeLinear",
            [stored, f"{name}.scale"],
            [flat],
            name=f"{name}.float",
            domain="" if bits == 8 else MICROSOFT,  # ONNX has 16 bits from opset 21.
            axis=axes[0],
        )
        graph.node.insert(
            0, helper.make_node("Reshape", [flat, shape], [name], name=f"{name}.shaped")
        )
        graph.node.insert(0, dequantize)
    drop_unused(graph)
    add_domain(model, MICROSOFT)


def _scaled_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """Axes whose indices have scales of their own: the longest axis, or all others if it is last.

    DequantizeLinear takes seven times as long where the scale differs from value to value.
    """
    longest = int(np.argmax(shape))
    last = len(shape) - 1
    return tuple(range(last)) if longest == last else (longest,)


def _round(weight: Matrix, scale: Matrix, summed: int, limit: int, factor: Matrix | None) -> Matrix:
    """Rounds a weight of any number of axes. Matmuls sum over the axis ``summed``."""
    first = np.moveaxis(weight, summed, 0)
    steps = np.moveaxis(np.broadcast_to(scale, weight.shape), summed, 0)
    rows = (len(first), -1)
    values = round_weight(first.reshape(rows), steps.reshape(rows), (-limit, limit), factor)
    return np.moveaxis(values.reshape(first.shape), 0, summed)
