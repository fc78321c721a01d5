"""Inputs of matmuls whose largest channels are made smaller, so that one scale serves them all.

After SmoothQuant (Xiao et al. 2022, https://arxiv.org/abs/2211.10438), but the activations alone
decide, so that matmuls with one input share what is done to it, and no channel is made larger.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from florence_onnx_export.quantization.matmuls import matmul_weights, weight_of

Vector = npt.NDArray[np.float32]

STRENGTH = 0.75
"""0 leaves large channels as they are, 1 cuts them down to the usual peak."""
USUAL = 0.75
"""Quantile of the channels' peaks that counts as usual. A smaller channel stays as it is: it may
have hardly shown on a few drawn pictures, and be large on others."""


def peaks_graph(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """A graph that tells the largest magnitude of each channel that matmuls read.

    Args:
        model: A float32 graph.

    Returns:
        The graph, with an output float32 [in] for every matmul, and the name of each one's
        weight; a weight that several matmuls share occurs once for each.
    """
    shapes = matmul_weights(model.graph)
    measuring = onnx.ModelProto()
    measuring.CopyFrom(model)
    graph = measuring.graph
    del graph.output[:]
    names: list[str] = []
    for node in model.graph.node:
        name = weight_of(node, shapes)
        if name:
            graph.node.extend(_peak(graph, node.input[0], shapes[name][0], len(names)))
            graph.output.append(helper.make_empty_tensor_value_info(f"peaks.{len(names)}"))
            names.append(name)
    return measuring, names


def _peak(graph: onnx.GraphProto, x: str, channels: int, number: int) -> list[onnx.NodeProto]:
    """Makes nodes for the largest magnitudes of ``x`` as ``peaks.NUMBER``."""
    constants = {
        "shape": np.array([-1, channels]),
        "axes": np.array([0]),
        # The maximum of no rows would be minus infinity.
        "least": np.zeros((1, channels), np.float32),
    }
    at = {key: f"peaks.{number}.{key}" for key in (*constants, "rows", "sizes", "all")}
    graph.initializer.extend(numpy_helper.from_array(v, at[k]) for k, v in constants.items())
    return [
        helper.make_node("Reshape", [x, at["shape"]], [at["rows"]]),
        helper.make_node("Abs", [at["rows"]], [at["sizes"]]),
        helper.make_node("Concat", [at["sizes"], at["least"]], [at["all"]], axis=0),
        helper.make_node("ReduceMax", [at["all"], at["axes"]], [f"peaks.{number}"], keepdims=0),
    ]


def smooth_inputs(model: onnx.ModelProto, factors: Mapping[str, Vector]) -> None:
    """Divides what matmuls read, and multiplies their weights by the same, channel by channel.

    Args:
        model: A float32 graph, whose results stay what they are but for rounding.
        factors: Weight name -> `smoothing_factors`, for the matmuls to be changed.
    """
    graph = model.graph
    shapes = matmul_weights(graph)
    for tensor in graph.initializer:
        if tensor.name in factors:
            weight = numpy_helper.to_array(tensor) * factors[tensor.name][:, None]
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    smoothed: dict[tuple[str, bytes], str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        name = weight_of(node, shapes)
        if name in factors:
            key = node.input[0], factors[name].tobytes()
            if key not in smoothed:
                smoothed[key] = f"{node.output[0]}_smooth"
                inverse = f"{node.output[0]}_inverse"
                graph.initializer.append(numpy_helper.from_array(1 / factors[name], inverse))
                nodes.append(helper.make_node("Mul", [node.input[0], inverse], [smoothed[key]]))
            node.input[0] = smoothed[key]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def smoothing_factors(peaks: Vector) -> Vector:
    """Divisor of each channel, at least 1.

    Args:
        peaks: What `peaks_graph` told of a matmul.
    """
    usual = np.quantile(peaks, USUAL)
    if not usual > 0:
        return np.ones_like(peaks)
    return np.asarray(np.maximum(peaks / usual, 1) ** STRENGTH, np.float32)
