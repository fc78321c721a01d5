"""What the options that suit a processor do to graphs."""

import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from florence_onnx.engine.options import default_options
from florence_onnx_export.quantization.int8 import dynamic_matmul
from florence_onnx_export.quantization.running import lean_options
from tests.helpers.onnx_graphs import make_model


def optimized(model: onnx.ModelProto, options: ort.SessionOptions, path: Path) -> onnx.ModelProto:
    """A graph as ONNX Runtime runs it."""
    options.optimized_model_filepath = str(path)
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


def shipped() -> ort.SessionOptions:
    return default_options("vision_encoder", "q8", 1)


def exporting() -> ort.SessionOptions:
    return lean_options(packed=True)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="a fault of x86 alone")
@pytest.mark.parametrize("options", [shipped, exporting])
@pytest.mark.parametrize("dot_products", [True, False])
def test_weights_are_unsigned_where_signed_ones_would_saturate(
    options: Callable[[], ort.SessionOptions],
    dot_products: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two activations of 255 times weights of 127 do not fit in 16 bits."""
    monkeypatch.setattr("florence_onnx.engine.options.has_int8_dot_products", lambda: dot_products)
    weight, bias = np.full((64, 8), 0.5, np.float32), np.ones(8, np.float32)
    node, added = dynamic_matmul("x", "w", weight, "bias", "y")
    model = make_model([node], {**added, "bias": bias}, {"x": (1, 64)})
    found = optimized(model, options(), tmp_path / "model.onnx")
    (kind,) = {tensor.data_type for tensor in found.graph.initializer if len(tensor.dims) == 2}
    assert kind == (onnx.TensorProto.INT8 if dot_products else onnx.TensorProto.UINT8)
    session = ort.InferenceSession(str(tmp_path / "model.onnx"))
    (y,) = session.run(None, {"x": np.ones((1, 64), np.float32)})
    np.testing.assert_allclose(y, 64 * 0.5 + 1, rtol=1e-5)  # All are multiples of their scales.


def test_no_scale_is_fused_into_a_matmul_that_would_leave_it_out(tmp_path: Path) -> None:
    make = onnx.helper.make_node
    nodes = [make("MatMul", ["x", "w"], ["z"]), make("Mul", ["z", "scale"], ["y"])]
    weights = {"w": np.ones((8, 8), np.float32), "scale": np.array([0.25], np.float32)}
    model = make_model(nodes, weights, {"x": (2, 8)})

    def alphas(fast_math: bool) -> list[float]:
        options = default_options("encoder_model", "fp32", 1, fast_math)
        found = optimized(model, options, tmp_path / f"{fast_math}.onnx")
        attributes = (attribute for node in found.graph.node for attribute in node.attribute)
        return [attribute.f for attribute in attributes if attribute.name == "alpha"]

    assert alphas(fast_math=False) == [0.25], "what is prevented happens otherwise"
    assert alphas(fast_math=True) == []
