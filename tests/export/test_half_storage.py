"""Weights stored in float16, and float32 again."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from florence_onnx.engine import contract
from florence_onnx.errors import GraphContractError
from florence_onnx_export.graphs.half_storage import load_float32, store_half
from florence_onnx_export.quantization.embedding import quantize_table
from tests.helpers.onnx_graphs import tiny_graph


@pytest.mark.parametrize("graph", contract.GRAPHS)
def test_what_was_stored_in_half_is_loaded_in_full(tmp_path: Path, graph: str) -> None:
    model = tiny_graph(graph)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= 1024:
            exact = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(exact, tensor.name))
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = list(model.graph.node)
    store_half(model.graph)
    assert any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)
    onnx.save_model(model, tmp_path / "half.onnx")
    loaded = load_float32(tmp_path / "half.onnx").graph
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in loaded.initializer}
    assert list(loaded.node) == nodes
    assert after.keys() == before.keys()
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values, strict=True)


def test_a_foreign_embedding_is_named() -> None:
    model = tiny_graph(contract.EMBED_TOKENS)
    model.graph.node.append(onnx.helper.make_node("Identity", ["inputs_embeds"], ["again"]))
    with pytest.raises(GraphContractError, match="the token embedding is not a single lookup"):
        quantize_table(model)
