"""Quantised matmuls and weights.

Factors that lie on the grids of the quantised types must give exact results.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from florence_onnx.engine import contract
from florence_onnx_export.quantization.blockwise import quantize_blocks
from florence_onnx_export.quantization.embedding import quantize_table
from florence_onnx_export.quantization.fidelity import relative_error
from florence_onnx_export.quantization.matmuls import matmul_weights, replace_matmuls
from florence_onnx_export.quantization.methods import METHODS, SMOOTH
from florence_onnx_export.quantization.stored import storable_weights, store_weights
from tests.helpers.onnx_graphs import make_model, run, tiny_graph, weight_names


def whole_numbers(
    method: str, rows: int, inputs: int, outputs: int
) -> tuple[np.ndarray, np.ndarray]:
    """x and a weight whose every scale is a power of two, whichever block or column it is for."""
    rng = np.random.default_rng(0)
    low, high = (0, 255) if method == "dynamic8" else (-127, 127)
    x = rng.integers(low, high, (rows, inputs), endpoint=True)
    x[:, ::32] = high
    x[:, 1::32] = low
    limit = 8 if method == "blocks4" else 127 if method == "dynamic8" else 128
    weight = rng.integers(-limit, limit, (inputs, outputs))
    weight[::32] = -limit
    return x.astype(np.float32), (weight / 64).astype(np.float32)


@pytest.fixture(params=sorted(METHODS.keys() - {SMOOTH}))
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("form", ["bias", "residual", "residual, then bias", "matmul"])
def test_matmuls_of_whole_numbers_are_exact(method: str, form: str) -> None:
    x, weight = whole_numbers(method, 5, 96, 40)
    rng = np.random.default_rng(1)
    bias = rng.standard_normal(40, dtype=np.float32)
    residual = rng.standard_normal((5, 40), dtype=np.float32)
    nodes = {
        "bias": [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        "residual": [helper.make_node("Gemm", ["x", "w", "r"], ["y"])],
        "residual, then bias": [
            helper.make_node("Gemm", ["x", "w", "r"], ["z"]),
            helper.make_node("Add", ["z", "b"], ["y"]),
        ],
        "matmul": [helper.make_node("MatMul", ["x", "w"], ["y"])],
    }[form]
    model = make_model(nodes, {"w": weight, "b": bias}, {"x": x.shape, "r": residual.shape})
    feeds = {"x": x, "r": residual}
    (want,) = run(model, feeds)
    replace_matmuls(model, {"w": METHODS[method]})
    assert "w" not in {tensor.name for tensor in model.graph.initializer}
    assert len(model.graph.node) == (2 if "residual" in form else 1)
    np.testing.assert_allclose(run(model, feeds)[0], want, rtol=1e-5, atol=1e-4)


def test_an_attention_operator_becomes_a_matmul_and_the_attention(method: str) -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 9, 64), dtype=np.float32)
    weights = {
        "w": rng.standard_normal((64, 192), dtype=np.float32) / np.float32(8),
        "b": rng.standard_normal(192, dtype=np.float32),
    }
    node = helper.make_node("Attention", ["x", "w", "b"], ["y"], domain="com.microsoft")
    node.attribute.append(helper.make_attribute("num_heads", 4))
    model = make_model([node], weights, {"x": x.shape})
    (want,) = run(model, {"x": x})
    replace_matmuls(model, {"w": METHODS[method]})
    # Twice what the same method misses of a plain matmul: softmax and values each see errors.
    bound = {"dynamic8": 0.03, "blocks8": 0.02, "blocks4": 0.2}[method]
    assert 0 < relative_error(run(model, {"x": x})[0], want) < bound


def test_matmuls_with_one_weight_share_what_it_becomes(method: str) -> None:
    x, weight = whole_numbers(method, 5, 96, 96)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["x", "w"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    model = make_model(nodes, {"w": weight}, {"x": x.shape})
    replace_matmuls(model, {"w": METHODS[method]})
    assert len(weight_names(model)) == len(set(weight_names(model))) == 2
    np.testing.assert_allclose(run(model, {"x": x})[0], 2 * x @ weight, rtol=1e-5, atol=1e-4)


def test_a_matmul_is_missed_by_no_more_than_rounding(method: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((64, 256), dtype=np.float32)
    weight = rng.standard_normal((256, 80), dtype=np.float32)
    model = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}, {"x": x.shape}
    )
    replace_matmuls(model, {"w": METHODS[method]})
    # A step of s rounds with a deviation of s/sqrt(12); the largest of 256 or 16384 normal values
    # is about 3 or 4.2 deviations, and the largest of 32 about 2.
    per_column, per_call = 3 / 127 / 12**0.5, 2 * 4.2 / 255 / 12**0.5
    in_blocks = {8: 2.1 / 127 / 12**0.5, 4: 2.1 / 8 / 12**0.5}
    expected = {
        "dynamic8": np.hypot(per_column, per_call),
        "blocks8": np.hypot(in_blocks[8], in_blocks[8]),
        "blocks4": np.hypot(in_blocks[4], in_blocks[8]),
    }[method]
    error = relative_error(run(model, {"x": x})[0], x @ weight)
    assert 0.8 * expected < error < 1.3 * expected


def test_only_matmuls_with_a_constant_matrix_are_found() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "x"], ["a"]),
        helper.make_node("MatMul", ["w", "a"], ["b"]),
        helper.make_node("Gemm", ["b", "t"], ["c"], transB=1),
        helper.make_node("Gemm", ["c", "s"], ["d"], alpha=0.5),
        helper.make_node("MatMul", ["d", "p"], ["e"]),
        helper.make_node("Gemm", ["e", "v", "bias"], ["y"], alpha=1.0, beta=1.0, transB=0),
    ]
    matrices = dict.fromkeys("wtsv", np.eye(4, dtype=np.float32))
    stack = {"p": np.ones((1, 4, 4), np.float32), "bias": np.ones(4, np.float32)}
    model = make_model(nodes, {**matrices, **stack}, {"x": (4, 4)})
    assert matmul_weights(model.graph) == {"v": (4, 4)}


@pytest.mark.parametrize(("bits", "gaussian"), [(8, 0.006), (4, 0.083)])
def test_blocks(bits: int, gaussian: float) -> None:
    rng = np.random.default_rng(4)
    weight = rng.standard_normal((70, 1500), dtype=np.float32)
    weight[:32, 0] = 0
    weight[:32, 1] = [*[1] * 31, 100]
    values, scales = quantize_blocks(weight, bits)
    assert values.shape == (1500, 3, 32) and scales.shape == (1500, 3)
    assert values.max() < 2**bits
    back = ((values.astype(np.float32) - 2 ** (bits - 1)) * scales[..., None]).reshape(1500, 96).T
    assert not back[70:].any() and not back[:32, 0].any()
    assert relative_error(back[:70, 2:], weight[:, 2:]) < gaussian
    # Round to nearest with the scale of the largest magnitude, as it is usually done.
    limit = 2 ** (bits - 1) - 1
    blocks = weight[:64, 2:].reshape(2, 32, -1)
    plain = np.abs(blocks).max(1, keepdims=True) / limit
    usual = relative_error(np.rint(blocks / plain) * plain, blocks)
    assert relative_error(back[:64, 2:].reshape(blocks.shape), blocks) < usual * (1 + 1e-6)


def test_the_embedding_looks_up_bytes() -> None:
    model = tiny_graph(contract.EMBED_TOKENS)
    table = numpy_helper.to_array(model.graph.initializer[0])
    quantize_table(model)
    assert sum(len(tensor.raw_data) for tensor in model.graph.initializer) < table.nbytes / 3.5
    assert [node.op_type for node in model.graph.node] == ["Gather", "Gather", "Cast", "Mul"]
    ids = np.arange(len(table)).reshape(2, -1)
    (embeds,) = run(model, {"input_ids": ids})
    half_a_step = np.abs(table).max(axis=1, keepdims=True) / 127 / 2
    assert (np.abs(embeds.reshape(table.shape) - table) <= half_a_step * 1.0001).all()
    assert relative_error(embeds.reshape(table.shape), table) > 1e-4


@pytest.mark.parametrize(("bits", "largest"), [(8, 0.01), (16, 1e-4)])
def test_stored_weights_stay_integers_in_the_session(
    tmp_path: Path, bits: int, largest: float
) -> None:
    model = tiny_graph(contract.VISION_ENCODER)
    # The tiny model's own are below the size that is worth it.
    names = [name for name in weight_names(model) if name.endswith(("mixer.key", "mixer.query"))]
    feeds = {"pixel_values": np.random.default_rng(5).standard_normal((1, 3, 64, 64), np.float32)}
    (want,) = run(model, feeds)
    store_weights(model, names, bits=bits)
    assert not set(names) & set(weight_names(model))
    assert 0 < relative_error(run(model, feeds)[0], want) < largest
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    loaded = onnx.load(tmp_path / "optimised.onnx").graph
    kept = {node.input[0] for node in loaded.node if node.op_type == "DequantizeLinear"}
    assert kept == {f"{name}.int{bits}" for name in names} != set()


def test_weights_worth_storing_are_large_and_not_of_matmuls() -> None:
    nodes = [
        helper.make_node("MatMul", ["large", "x"], ["a"]),
        helper.make_node("MatMul", ["small", "a"], ["b"]),
        helper.make_node("MatMul", ["b", "weight"], ["c"]),
        helper.make_node("Add", ["c", "added"], ["y"]),
    ]
    square = dict.fromkeys(("large", "weight", "added"), np.ones((512, 512), np.float32))
    weights = {**square, "small": np.ones((1, 512), np.float32)}
    model = make_model(nodes, weights, {"x": (512, 512)})
    assert storable_weights(model.graph) == ["large"]
