"""Hessians of the matmuls of a graph: second moments of the inputs of the constant weights.

GPTQ minimises the squared error of a matmul's result. The Hessian of this error is the sum of
x x^T over the vectors x that a weight is multiplied with.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from florence_onnx_export.quantization.matmuls import Matrix

_MATMULS = ("Attention", "Gemm", "MatMul")

_ROWS = 768
"""Rows of an input that count in one run, about this many and evenly spread. A picture has 36,864
tokens in the vision encoder's first stage; Hessians of all rows would take longer than the graph.
"""

_PENDING = 512
"""Rows that are gathered for one matmul, where a run gives only a few rows."""


class Hessians:
    """Hessians of a graph's matmuls, summed over runs of the graph.

    With the weight on the right of a matmul, the vectors x are the rows of the other factor; with
    the weight on the left, the columns of the other factor.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        """Copies a float32 graph and adds outputs to the copy.

        Args:
            model: The graph, which is not changed.
        """
        self.graph = onnx.ModelProto()
        """Graph to run. The outputs after those of the given graph are the argument of `add`."""
        self.graph.CopyFrom(model)
        self._factors: dict[tuple[str, bool], int] = {}
        self._names: dict[str, list[int]] = {}
        self._pending: list[list[Matrix]] = []
        self._sums: list[Matrix] = []
        last = np.iinfo(np.int64).max
        constants = {"first": 0, "last": last, "rows": _ROWS, "less": _ROWS - 1, "one": 1}
        self.graph.graph.initializer.extend(
            numpy_helper.from_array(np.array([value]), f"taps.{name}")
            for name, value in constants.items()
        )
        for weight, other, is_left, size in _constant_factors(model.graph):
            if (other, is_left) not in self._factors:
                self._factors[other, is_left] = number = len(self._sums)
                self._pending.append([])
                self._sums.append(np.zeros((size, size), np.float32))
                self._tap(other, is_left, number)
            self._names.setdefault(weight, []).append(self._factors[other, is_left])

    def _tap(self, x: str, is_left: bool, number: int) -> None:
        """Adds an output for ``x``: all of ``x`` if the weight is on the left, else some rows."""
        graph, name = self.graph.graph, f"taps.{number}"
        if is_left:
            graph.node.append(helper.make_node("Identity", [x], [name]))
        else:
            size = len(self._sums[number])
            shape = numpy_helper.from_array(np.array([-1, size]), f"{name}.shape")
            graph.initializer.append(shape)
            graph.node.extend(_some_rows(x, shape.name, name))
        graph.output.append(helper.make_empty_tensor_value_info(name))

    def add(self, seen: Sequence[npt.NDArray[np.float32]]) -> None:
        """Adds the further outputs of one run of `graph` to the Hessians."""
        for (_, is_left), number in self._factors.items():
            x = seen[number]
            rows = (x.swapaxes(-1, -2) if is_left else x).reshape(-1, len(self._sums[number]))
            self._pending[number].append(rows)
            if sum(map(len, self._pending[number])) >= _PENDING:
                self._take(number)

    def _take(self, number: int) -> None:
        pending = self._pending[number]
        if pending:
            rows = pending[0] if len(pending) == 1 else np.concatenate(pending)
            self._sums[number] += rows.T @ rows
            pending.clear()

    def pop_sums(self) -> Iterator[tuple[list[str], Matrix]]:
        """Yields the Hessians with the weights of each. A Hessian is dropped after its last use.

        Yields:
            Names of weights, and the Hessian [n,n] of these weights: a sum over all matmuls of a
            weight where a weight has several.
        """
        groups: dict[tuple[int, ...], list[str]] = {}
        for weight, numbers in self._names.items():
            groups.setdefault(tuple(numbers), []).append(weight)
        left = [number for numbers in groups for number in numbers]
        for summed, weights in groups.items():
            for number in summed:
                self._take(number)
            total = self._sums[summed[0]]
            for number in summed[1:]:
                total = total + self._sums[number]
            for number in summed:
                left.remove(number)
                if number not in left:
                    self._sums[number] = np.empty((0, 0), np.float32)
            yield weights, total


def _constant_factors(graph: onnx.GraphProto) -> Iterator[tuple[str, str, bool, int]]:
    """Yields weight, other factor, whether the weight is on the left, and the length of x."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type not in _MATMULS:
            continue
        left, right = node.input[:2]
        if len(shapes.get(right, ())) >= 2 and left not in shapes:
            yield right, left, False, shapes[right][-2]
        elif len(shapes.get(left, ())) >= 2 and right not in shapes:
            yield left, right, True, shapes[left][-1]


def _some_rows(x: str, shape: str, result: str) -> list[onnx.NodeProto]:
    """Makes nodes that take every k-th row of ``x`` [...,n], at most `_ROWS` rows."""
    rows, count, more, step = (f"{result}.{key}" for key in ("x", "count", "more", "step"))
    return [
        helper.make_node("Reshape", [x, shape], [rows]),
        helper.make_node("Shape", [rows], [count], start=0, end=1),
        helper.make_node("Add", [count, "taps.less"], [more]),
        helper.make_node("Div", [more, "taps.rows"], [f"{step}.or_none"]),
        # Without any row the quotient is 0, which is no step.
        helper.make_node("Max", [f"{step}.or_none", "taps.one"], [step]),
        helper.make_node("Slice", [rows, "taps.first", "taps.last", "taps.first", step], [result]),
    ]
