"""The hand-written gather graph against numpy."""

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from florence_onnx.engine.gather import gather_graph

Tensors = list[npt.NDArray[np.float32]]


def gathered(indices: list[int], tensors: Tensors, axis: int) -> Tensors:
    graph = gather_graph(len(tensors), tensors[0].ndim, axis)
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    feeds = {f"data_{i}": tensor for i, tensor in enumerate(tensors)}
    names = [f"out_{i}" for i in range(len(tensors))]
    found: Tensors = session.run(names, {"indices": np.array(indices, np.int64), **feeds})
    return found


@pytest.mark.parametrize(("rank", "axis"), [(1, 0), (2, 0), (2, 1), (4, 0), (4, 2), (4, 3)])
@pytest.mark.parametrize("count", [1, 3, 48])
def test_it_takes_what_numpy_takes(count: int, rank: int, axis: int) -> None:
    """48 tensors are those of the large model's cache."""
    random = np.random.default_rng(count * 10 + rank)
    shape = [int(size) for size in random.integers(1, 4, rank)]
    shape[axis] = 5
    tensors: Tensors = [random.standard_normal(shape, np.float32) for _ in range(count)]
    for indices in ([0, 1, 2, 3, 4], [4, 0, 0, 2, 2, 2], [3], []):
        found = gathered(indices, tensors, axis)
        for ours, tensor in zip(found, tensors, strict=True):
            assert ours.dtype == np.float32
            np.testing.assert_array_equal(ours, np.take(tensor, np.array(indices, int), axis))


def test_a_tensor_without_elements() -> None:
    (empty,) = gathered([1, 1, 0], [np.zeros((2, 3, 0, 4), np.float32)], 0)
    assert empty.shape == (3, 3, 0, 4)


def test_names_types_and_dynamic_axes() -> None:
    session = ort.InferenceSession(gather_graph(2, 3), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["indices", "data_0", "data_1"]
    assert [value.name for value in session.get_outputs()] == ["out_0", "out_1"]
    assert {value.type for value in session.get_outputs()} == {"tensor(float)"}
    for rows in (1, 7):
        data = np.arange(6 * rows * rows, dtype=np.float32).reshape(rows, 2 * rows, 3)
        feeds = {"indices": np.array([rows - 1]), "data_0": data, "data_1": -data}
        out, negative = session.run(None, feeds)
        np.testing.assert_array_equal(out, data[-1:])
        np.testing.assert_array_equal(negative, -data[-1:])


def test_an_index_that_does_not_exist_is_refused() -> None:
    with pytest.raises(Exception, match=r"out of"):
        gathered([2], [np.zeros((2, 2), np.float32)], 0)
