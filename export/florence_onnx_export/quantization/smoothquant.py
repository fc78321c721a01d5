"""SmoothQuant: large input channels of matmuls become smaller, so that one scale suits all.

The method is that of Xiao et al. 2022, https://arxiv.org/abs/2211.10438, with two differences. The
factors depend on the activations alone, so that matmuls with a common input share one smoothing. No
channel becomes larger.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from florence_onnx_export.graphs.files import read_tensor
from florence_onnx_export.quantization.matmuls import matmul_weights, weight_of

Vector = npt.NDArray[np.float32]

STRENGTH = 0.75
"""Exponent: 0 leaves large channels as they are, 1 reduces large channels to the usual peak."""
USUAL = 0.75
"""Quantile of the channels' peaks that counts as usual. A channel with a smaller peak is not
changed, because a channel that is small on a few drawn pictures may be large on other pictures."""


def peaks_graph(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """Makes a graph that returns the largest magnitude of each input channel of every matmul.

    Args:
        model: A float32 graph.

    Returns:
        The graph, with an output float32 [in] for every matmul, and the name of each matmul's
        weight. A weight that several matmuls share occurs several times.
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
    """Makes nodes that compute the largest magnitudes of ``x`` as ``peaks.NUMBER``."""
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


def smooth_inputs(model: onnx.ModelProto, factors: Mapping[str, Vector], folder: str = "") -> None:
    """Divides inputs of matmuls by factors per channel, and multiplies the weights by the factors.

    Args:
        model: A float32 graph. The results change by rounding only.
        factors: Weight name -> `smoothing_factors`, for the matmuls to change.
        folder: Folder of the files with those weights that are not in the graph.
    """
    graph = model.graph
    shapes = matmul_weights(graph)
    for tensor in graph.initializer:
        if tensor.name in factors:
            weight = read_tensor(tensor, folder) * factors[tensor.name][:, None]
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
    """Computes the divisor of each channel, at least 1.

    Args:
        peaks: Largest magnitudes of a matmul's input channels, from `peaks_graph`.
    """
    usual = np.quantile(peaks, USUAL)
    if not usual > 0:
        return np.ones_like(peaks)
    return np.asarray(np.maximum(peaks / usual, 1) ** STRENGTH, np.float32)
