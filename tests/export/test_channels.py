"""Channel attention with its matmuls over all tokens in 8 bits."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from florence_onnx.engine import contract
from florence_onnx_export.quantization.channels import channel_attentions, quantize_channels
from florence_onnx_export.quantization.fidelity import relative_error
from tests.helpers.onnx_graphs import make_model, run, tiny_graph


def attention(channels: int, value: np.ndarray) -> onnx.ModelProto:
    """``y`` = x value (x^T x)."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], name="turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["t", "x"], ["squares"], name="squares"),
        helper.make_node("MatMul", ["value", "squares"], ["matrix"], name="matrix"),
        helper.make_node("MatMul", ["x", "matrix"], ["y"], name="output"),
    ]
    return make_model(nodes, {"value": value}, {"x": (2, 40, channels)})


def tokens(channels: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    # Not centred, so that the zero point is neither an end nor the middle of the range.
    return (rng.standard_normal((2, 40, channels)) + 0.7).astype(np.float32)


def with_output(model: onnx.ModelProto, name: str, kind: int = TensorProto.FLOAT) -> None:
    model.graph.output.append(helper.make_tensor_value_info(name, kind, None))


def test_both_matmuls_over_all_tokens_are_missed_by_rounding() -> None:
    rng = np.random.default_rng(1)
    value = np.eye(24, dtype=np.float32) + rng.standard_normal((24, 24)).astype(np.float32) / 100
    model = attention(24, value)
    with_output(model, "squares")
    x = tokens(24)
    want = run(model, {"x": x})
    quantize_channels(model, ["value"])
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 2 and kinds.count("MatMul") == 1
    errors = [relative_error(g, w) for g, w in zip(run(model, {"x": x}), want, strict=True)]
    # A step of s rounds with a deviation of s/sqrt(12). The values reach from about -3 to 4.5 and
    # have a root mean square of 1.2; steps of 8 bits are a 255th of the range, of 7 bits twice
    # that. Sums over 40 tokens or 24 channels miss no more than one of their products.
    step = 7.5 / 255 / 12**0.5 / 1.2
    assert 0 < errors[1] < np.hypot(step, 2 * step)
    assert 0 < errors[0] < 2 * np.hypot(step, 2 * step)


def test_each_picture_of_a_batch_has_scales_of_its_own_for_its_matrix() -> None:
    model = attention(24, np.eye(24, dtype=np.float32))
    x = tokens(24)
    x[1] *= 1000
    (want,) = run(model, {"x": x})
    quantize_channels(model, ["value"])
    # Tokens share a scale, so only the large picture can be right; one scale for both matrices
    # would not harm that picture, but would be a million times too coarse for the other matrix.
    with_output(model, "matrix.scale")
    got, scales = run(model, {"x": x})
    assert relative_error(got[1], want[1]) < 0.03
    assert scales.shape == (2, 1, 24)


def test_sums_of_pairs_fit_16_bits() -> None:
    """Which is how processors without 8-bit dot products add them: 2 x 255 x 64 < 2**15."""
    model = attention(24, np.eye(24, dtype=np.float32))
    quantize_channels(model, ["value"])
    for name in ("x.int7", "matrix.int8"):
        with_output(model, name, TensorProto.INT8)
    rng = np.random.default_rng(2)
    for shift in (-5, -0.3, 0, 0.3, 5):
        x = rng.uniform(-1, 1, (2, 40, 24)).astype(np.float32) + np.float32(shift)
        tokens7, matrix8 = (f.astype(int) for f in run(model, {"x": x})[1:])
        assert 32 < np.abs(tokens7).max() <= 64
        pairs = np.abs(matrix8).reshape(2, 12, 2, 24).sum(axis=2)
        assert 64 < pairs.max() <= 128


def test_tokens_of_zeros_give_zeros() -> None:
    model = attention(24, np.eye(24, dtype=np.float32))
    quantize_channels(model, ["value"])
    (got,) = run(model, {"x": np.zeros((2, 40, 24), np.float32)})
    assert not got.any()


def test_every_channel_attention_of_the_vision_encoder_is_found() -> None:
    model = tiny_graph(contract.VISION_ENCODER)
    values = [found.value for found in channel_attentions(model.graph)]
    weights = {tensor.name for tensor in model.graph.initializer}
    assert set(values) == {name for name in weights if name.endswith(".mixer.value")} != set()
    assert len(values) == len(set(values))
    feeds = {"pixel_values": np.random.default_rng(3).standard_normal((2, 3, 64, 64), np.float32)}
    (want,) = run(model, feeds)
    one, every = tiny_graph(contract.VISION_ENCODER), tiny_graph(contract.VISION_ENCODER)
    quantize_channels(one, values[:1])
    quantize_channels(every, values)
    errors = [relative_error(run(changed, feeds)[0], want) for changed in (one, every)]
    assert 0 < errors[0] < errors[1] < 0.02


def test_other_matmuls_of_activations_are_left() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], name="turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["t", "z"], ["squares"], name="squares"),
        helper.make_node("MatMul", ["value", "squares"], ["matrix"], name="matrix"),
        helper.make_node("MatMul", ["x", "matrix"], ["y"], name="output"),
    ]
    weights = {"value": np.eye(8, dtype=np.float32)}
    model = make_model(nodes, weights, {"x": (1, 5, 8), "z": (1, 5, 8)})
    assert not list(channel_attentions(model.graph))
