"""Inputs of matmuls brought nearer to one range."""

import numpy as np
import onnx
import pytest
from onnx import helper

from florence_onnx_export.quantization.fidelity import relative_error
from florence_onnx_export.quantization.matmuls import replace_matmuls
from florence_onnx_export.quantization.methods import METHODS, SMOOTH
from florence_onnx_export.quantization.smoothquant import (
    STRENGTH,
    USUAL,
    peaks_graph,
    smooth_inputs,
    smoothing_factors,
)
from tests.helpers.onnx_graphs import make_model, run

RNG = np.random.default_rng(0)


def two_matmuls() -> onnx.ModelProto:
    """y = x @ v + x @ w, with one input for both."""
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"]),
        helper.make_node("Gemm", ["x", "w", "b"], ["c"]),
        helper.make_node("Add", ["a", "c"], ["y"]),
    ]
    weights = {name: RNG.standard_normal((8, 5), np.float32) for name in "vw"}
    return make_model(nodes, {**weights, "b": np.ones(5, np.float32)}, {"x": (-1, 8)})


def test_peaks_are_the_largest_magnitudes_of_each_channel() -> None:
    model, names = peaks_graph(two_matmuls())
    x = RNG.standard_normal((7, 8), np.float32)
    assert names == ["v", "w"]
    for peaks in run(model, {"x": x}):
        np.testing.assert_array_equal(peaks, np.abs(x).max(axis=0))


def test_peaks_of_no_rows_are_zero() -> None:
    model, _ = peaks_graph(two_matmuls())
    for peaks in run(model, {"x": np.empty((0, 8), np.float32)}):
        np.testing.assert_array_equal(peaks, np.zeros(8))


def test_smoothing_changes_nothing_but_the_largest_channels() -> None:
    model = two_matmuls()
    x = RNG.standard_normal((7, 8), np.float32) * np.logspace(0, 1.5, 8, dtype=np.float32)
    (want,) = run(model, {"x": x})
    peaks = np.abs(x).max(axis=0)
    factors = smoothing_factors(peaks)
    smooth_inputs(model, {"v": factors, "w": factors})
    assert [node.op_type for node in model.graph.node] == ["Mul", "MatMul", "Gemm", "Add"]
    np.testing.assert_allclose(run(model, {"x": x})[0], want, rtol=1e-5, atol=1e-5)
    model.graph.output[0].name = model.graph.node[0].output[0]
    (smooth,) = run(model, {"x": x})
    usual = np.quantile(peaks, USUAL)
    beyond = peaks > usual
    assert beyond.sum() == 2
    np.testing.assert_array_equal(smooth[:, ~beyond], x[:, ~beyond])
    wanted = usual**STRENGTH * peaks[beyond] ** (1 - STRENGTH)
    np.testing.assert_allclose(np.abs(smooth[:, beyond]).max(axis=0), wanted, rtol=1e-5)


def test_matmuls_that_are_not_named_keep_their_input() -> None:
    model = two_matmuls()
    smooth_inputs(model, {"w": np.ones(8, np.float32)})
    assert model.graph.node[0].input[0] == "x"
    assert model.graph.node[2].input[0] == model.graph.node[1].output[0] != "x"


@pytest.mark.parametrize(
    "peaks", [[1] * 7 + [0.001], [1] * 7 + [0], [0] * 7 + [1], [0] * 8], ids=str
)
def test_channels_that_hardly_showed_are_left_as_they_are(peaks: list[float]) -> None:
    model = two_matmuls()
    smooth_inputs(model, {"v": smoothing_factors(np.array(peaks, np.float32))})
    model.graph.output[0].name = model.graph.node[0].output[0]
    x = RNG.standard_normal((7, 8), np.float32)
    np.testing.assert_array_equal(run(model, {"x": x})[0], x)


def test_a_channel_far_beyond_the_others_costs_them_less() -> None:
    x = RNG.standard_normal((64, 256), np.float32)
    x[:, 3] *= 40
    model = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"w": RNG.standard_normal((256, 80), np.float32)},
        {"x": x.shape},
    )
    (want,) = run(model, {"x": x})
    errors = []
    for factors in ({}, {"w": smoothing_factors(np.abs(x).max(axis=0))}):
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        smooth_inputs(changed, factors)
        replace_matmuls(changed, {"w": METHODS[SMOOTH]})
        errors.append(relative_error(run(changed, {"x": x})[0], want))
    assert errors[1] < errors[0] / 3
