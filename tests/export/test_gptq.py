"""Weights rounded so that the errors of a matmul's terms cancel."""

from functools import partial

import numpy as np
import onnx
import pytest
from onnx import helper

from florence_onnx_export.quantization import hessians
from florence_onnx_export.quantization.fidelity import relative_error
from florence_onnx_export.quantization.gptq import inverse_factor, round_weight
from florence_onnx_export.quantization.hessians import Hessians
from florence_onnx_export.quantization.matmuls import replace_matmuls
from florence_onnx_export.quantization.methods import METHODS, SMOOTH
from florence_onnx_export.quantization.stored import store_weights
from tests.helpers.onnx_graphs import make_model, run

RNG = np.random.default_rng(0)
LIMITS = (-127, 127)


def correlated(rows: int, inputs: int) -> np.ndarray:
    """Rows [rows,inputs] around a mean, of which a tenth as many numbers decide nearly all."""
    basis = np.random.default_rng(1).standard_normal((inputs // 10, inputs))
    x = RNG.standard_normal((rows, len(basis))) @ basis + 3 * basis[0]
    return np.asarray(x + 0.1 * RNG.standard_normal((rows, inputs)), np.float32)


def gaussian(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


def step(weight: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(weight).max(axis=0, keepdims=True) / 127)


# Rounding


def test_the_factor_is_that_of_the_inverse_of_the_damped_hessian() -> None:
    x = correlated(40, 60)
    hessian = x.T @ x
    factor = inverse_factor(hessian).astype(np.float64)
    damped = hessian + 0.1 * np.trace(hessian) / 60 * np.eye(60)
    np.testing.assert_array_equal(factor, np.triu(factor))
    np.testing.assert_allclose(factor.T @ factor @ damped, np.eye(60), atol=1e-3)


# More rows than are corrected at once, and fewer.
@pytest.mark.parametrize("inputs", [300, 128, 50])
def test_errors_cancel_for_inputs_like_those_seen(inputs: int) -> None:
    weight = gaussian(inputs, 64)
    seen, other = correlated(500, inputs), correlated(500, inputs)
    nearest = round_weight(weight, step(weight), LIMITS) * step(weight)
    factor = inverse_factor(seen.T @ seen)
    rounded = round_weight(weight, step(weight), LIMITS, factor)
    assert np.abs(rounded).max() <= 127
    np.testing.assert_array_equal(rounded, np.rint(rounded))
    rounded = rounded * step(weight)
    usual = relative_error(other @ nearest, other @ weight)
    assert relative_error(other @ rounded, other @ weight) < 0.4 * usual
    # What is unlike anything seen is missed by little more than when rounding to the nearest.
    white = gaussian(500, inputs)
    usual = relative_error(white @ nearest, white @ weight)
    assert usual < relative_error(white @ rounded, white @ weight) < 1.3 * usual


@pytest.mark.parametrize("hessian", [np.eye(70), np.zeros((70, 70)), np.full((70, 70), np.inf)])
def test_without_correlations_every_value_goes_to_its_nearest(hessian: np.ndarray) -> None:
    weight = gaussian(70, 9)
    rounded = round_weight(weight, step(weight), LIMITS, inverse_factor(hessian))
    np.testing.assert_array_equal(rounded, np.rint(weight / step(weight)))


def test_corrections_are_those_of_rounding_one_row_after_the_other() -> None:
    weight, x = gaussian(150, 5), correlated(400, 150)
    hessian = (x.T @ x).astype(np.float64)
    hessian += 0.1 * np.trace(hessian) / 150 * np.eye(150)
    left, want = weight.astype(np.float64), np.empty((150, 5))
    for i in range(150):
        # The paper's equations 2 and 3: the inverse is that over the rows still to be rounded.
        inverse = np.linalg.inv(hessian[i:, i:])
        want[i] = np.clip(np.rint(left[i] / step(weight)[0]), *LIMITS)
        error = (left[i] - want[i] * step(weight)[0]) / inverse[0, 0]
        left[i:] -= np.outer(inverse[:, 0], error)
    factor = inverse_factor((x.T @ x).astype(np.float32))
    rounded = round_weight(weight, step(weight), LIMITS, factor)
    # float32 may fall to the other side of a half, after which that column goes its own way.
    assert (rounded == want).mean() > 0.95


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {SMOOTH}))
def test_every_method_rounds_for_its_inputs(method: str) -> None:
    x, seen, weight = correlated(64, 200), correlated(900, 200), gaussian(200, 48)
    weight[:32, 0] = 0  # a block without a scale
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    errors = []
    for factor in (None, inverse_factor(seen.T @ seen)):
        model = make_model([node], {"w": weight}, {"x": x.shape})

        replace_matmuls(model, {"w": partial(METHODS[method], factor=factor)})
        values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        errors.append(relative_error(_read_back(method, values), weight))
        errors.append(relative_error(run(model, {"x": x})[0], x @ weight))
    weights_nearest, nearest, weights_rounded, rounded = errors
    assert weights_nearest < weights_rounded < 1.3 * weights_nearest
    assert rounded < nearest


def _read_back(method: str, values: dict[str, np.ndarray]) -> np.ndarray:
    scale = values["w.scale"]
    if method == "dynamic8":
        return np.asarray(values["w.int8"] * scale)
    packed = next(value for name, value in values.items() if "int" in name)
    if method == "blocks4":
        packed = np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1, 32)
    half = 8 if method == "blocks4" else 128
    blocks = (packed.astype(np.float32) - half) * scale[..., None]
    return np.asarray(blocks.reshape(len(packed), -1)[:, :200].T)


# Hessians


def test_hessians_are_of_what_sums_are_taken_over() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "right"], ["a"]),
        helper.make_node("MatMul", ["left", "x"], ["b"]),
        helper.make_node("Gemm", ["m", "square", "bias"], ["c"]),
        helper.make_node("MatMul", ["x", "x"], ["y"]),
    ]
    weights = {"right": gaussian(2, 4, 6), "left": gaussian(7, 4), "square": gaussian(4, 4)}
    weights["bias"] = gaussian(4)
    model = make_model(nodes, weights, {"x": (3, 2, 4, 4), "m": (5, 4)})
    x, m = gaussian(3, 2, 4, 4), gaussian(5, 4)
    rows, columns = x.reshape(-1, 4), x.swapaxes(2, 3).reshape(-1, 4)
    got = sums(model, "right left square", {"x": x, "m": m}, {"x": 2 * x, "m": 2 * m})
    for name, want in (("right", rows), ("left", columns), ("square", m)):
        # Hessians are squares: those of both runs are five times those of the first.
        np.testing.assert_allclose(got[name], 5 * want.T @ want, rtol=1e-4, atol=1e-4)


def sums(model: onnx.ModelProto, names: str, *runs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Name of each weight -> its hessian."""
    hessians = Hessians(model)
    own = len(model.graph.output)
    for feeds in runs:
        hessians.add(run(hessians.graph, feeds)[own:])
    return {name: hessians.sum(name) for name in names.split()}


def test_matmuls_with_one_input_share_a_hessian_and_one_weight_has_all_of_its() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"]),
        helper.make_node("MatMul", ["x", "u"], ["b"]),
        helper.make_node("MatMul", ["x", "w"], ["c"]),
        helper.make_node("MatMul", ["c", "w"], ["y"]),
    ]
    weights = {name: gaussian(4, 4) for name in "uvw"}
    x = gaussian(5, 4)
    model = make_model(nodes, weights, {"x": (5, 4)})
    got = sums(model, "u v w", {"x": x})
    c = x @ weights["w"]
    inputs = Hessians(model).inputs
    assert inputs("v") == inputs("u") != inputs("w")
    np.testing.assert_array_equal(got["v"], got["u"])
    np.testing.assert_allclose(got["v"], x.T @ x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got["w"], x.T @ x + c.T @ c, rtol=1e-4, atol=1e-4)


def test_hessians_of_no_rows_are_zero() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = make_model([node], {"w": gaussian(4, 6)}, {"x": (-1, 4)})
    hessian = sums(model, "w", {"x": np.empty((0, 4), np.float32)})["w"]
    np.testing.assert_array_equal(hessian, np.zeros((4, 4)))


@pytest.mark.parametrize(("rows", "step"), [(10, 1), (11, 2), (20, 2), (21, 3)])
def test_of_many_rows_some_count_evenly_spread(
    monkeypatch: pytest.MonkeyPatch, rows: int, step: int
) -> None:
    monkeypatch.setattr(hessians, "_ROWS", 10)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    x = gaussian(rows, 4)
    model = make_model([node], {"w": gaussian(4, 6)}, {"x": (rows, 4)})
    hessian = sums(model, "w", {"x": x})["w"]
    np.testing.assert_allclose(hessian, x[::step].T @ x[::step], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [1, 4, 7, 20])
def test_rows_of_several_runs_are_summed_whether_kept_or_not(size: int) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    x = gaussian(5, 3, size)
    model = make_model([node], {"w": gaussian(size, 6)}, {"x": (3, size)})
    hessian = sums(model, "w", *({"x": part} for part in x))["w"]
    rows = x.reshape(-1, size)
    np.testing.assert_allclose(hessian, rows.T @ rows, rtol=1e-4, atol=1e-4)


# Stored weights


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("longest", [0, 1, 2])
def test_stored_weights_are_rounded_along_what_is_summed(side: str, longest: int) -> None:
    shape = [40, 40, 40]
    shape[longest] = 90
    weight = gaussian(*shape)
    summed = shape[-1 if side == "left" else -2]
    x, seen = correlated(30, summed), correlated(600, summed)
    names, fed = (["w", "x"], x.T) if side == "left" else (["x", "w"], x)
    node = helper.make_node("MatMul", names, ["y"])
    errors = []
    for factor in (None, inverse_factor(seen.T @ seen)):
        model = make_model([node], {"w": weight}, {"x": fed.shape})
        (want,) = run(model, {"x": fed})
        store_weights(model, ["w"], {"w": factor}.__getitem__)
        errors.append(relative_error(run(model, {"x": fed})[0], want))
    assert errors[1] < 0.6 * errors[0]
