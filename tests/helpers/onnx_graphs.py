"""Small ONNX graphs, and running them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from florence_onnx.engine import contract
from tests.helpers.tiny import TINY

Array = npt.NDArray[np.float32]


def run(model: onnx.ModelProto, feeds: Mapping[str, npt.NDArray[Any]]) -> list[Array]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, feeds)


def make_model(
    nodes: list[onnx.NodeProto], weights: dict[str, Array], inputs: dict[str, tuple[int, ...]]
) -> onnx.ModelProto:
    """A graph of float32 inputs and one output ``y``."""
    graph = helper.make_graph(
        nodes,
        "test",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in inputs.items()
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def tiny_graph(name: str) -> onnx.ModelProto:
    """A float32 graph of the committed tiny model."""
    return onnx.load(TINY / contract.graph_file(name, "fp32"))


def weight_names(model: onnx.ModelProto) -> list[str]:
    """Names of a graph's constant tensors."""
    return [tensor.name for tensor in model.graph.initializer]
