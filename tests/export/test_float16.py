"""Graphs in float16."""

import onnx
import pytest
from onnx import TensorProto

from florence_onnx.engine import contract
from florence_onnx_export.quantization.float16 import to_half
from tests.helpers.onnx_graphs import tiny_graph


@pytest.mark.parametrize("graph", contract.GRAPHS)
def test_float16_graphs_take_and_give_float32(graph: str) -> None:
    model = tiny_graph(graph)
    to_half(model)
    before = tiny_graph(graph).graph
    assert list(model.graph.input) == list(before.input)
    assert list(model.graph.output) == list(before.output)
    floats = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert not floats
    onnx.checker.check_model(model)


def test_the_cache_is_written_in_float32() -> None:
    model = tiny_graph(contract.DECODER)
    to_half(model)
    inputs = {value.name for value in model.graph.input}
    writes = [node for node in model.graph.node if node.op_type == "ScatterND"]
    assert writes
    for node in writes:
        assert node.input[0] in inputs and node.output[0].startswith("present")


def test_sums_over_a_picture_stay_in_float32() -> None:
    model = tiny_graph(contract.VISION_ENCODER)
    to_half(model)
    makers = {output: node for node in model.graph.node for output in node.output}
    grams = 0
    for softmax in (node for node in model.graph.node if node.op_type == "Softmax"):
        queue, casts = [softmax.input[0]], set()
        while queue:
            node = makers.get(queue.pop())
            if node is None or node.op_type == "Shape":
                continue
            grams += is_gram(node, makers)
            if node.op_type == "Cast":
                casts.add(node.attribute[0].i)
            else:
                queue += node.input
        assert casts == {TensorProto.FLOAT}
    assert grams == 4, "one for every channel attention"


def is_gram(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> bool:
    """Whether a node multiplies a tensor with its own transpose."""
    if node.op_type != "MatMul":
        return False
    left, right = (makers.get(name) for name in node.input)
    return left is not None and left.op_type == "Transpose" and makers[left.input[0]] == right


def test_logits_are_made_in_float32() -> None:
    model = tiny_graph(contract.DECODER)
    to_half(model)
    makers = {output: node for node in model.graph.node for output in node.output}
    (scores,) = (node for node in model.graph.node if node.op_type == "LogSoftmax")
    head = makers[scores.input[0]]
    assert head.op_type == "MatMul"
    for name in head.input:
        cast = makers[name]
        assert (cast.op_type, cast.attribute[0].i) == ("Cast", TensorProto.FLOAT)
    returned = makers["logits"]
    assert returned.input[0] == head.output[0], "logits are returned as they are made"
