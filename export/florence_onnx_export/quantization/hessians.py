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


class Hessians:
    """Hessians of a graph's matmuls, summed over runs of the graph.

    With the weight on the right of a matmul, the vectors x are the rows of the other factor; with
    the weight on the left, the columns of the other factor.

    The rows are kept while they are fewer than the rows of the Hessian. Two pictures have fewer
    rows than the widest Hessians, which together would take gigabytes.
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
        self._sums: list[Matrix | None] = []
        self._sizes: list[int] = []
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
                self._sums.append(None)
                self._sizes.append(size)
                self._tap(other, is_left, number)
            self._names.setdefault(weight, []).append(self._factors[other, is_left])

    def _tap(self, x: str, is_left: bool, number: int) -> None:
        """Adds an output for ``x``: all of ``x`` if the weight is on the left, else some rows."""
        graph, name = self.graph.graph, f"taps.{number}"
        if is_left:
            graph.node.append(helper.make_node("Identity", [x], [name]))
        else:
            size = self._sizes[number]
            shape = numpy_helper.from_array(np.array([-1, size]), f"{name}.shape")
            graph.initializer.append(shape)
            graph.node.extend(_some_rows(x, shape.name, name))
        graph.output.append(helper.make_empty_tensor_value_info(name))

    def add(self, seen: Sequence[npt.NDArray[np.float32]]) -> None:
        """Adds the further outputs of one run of `graph` to the Hessians."""
        for (_, is_left), number in self._factors.items():
            x = seen[number]
            rows = (x.swapaxes(-1, -2) if is_left else x).reshape(-1, self._sizes[number])
            self._pending[number].append(rows)
            if sum(map(len, self._pending[number])) >= self._sizes[number]:
                self._sums[number] = self._sum(number)
                self._pending[number].clear()

    def _sum(self, number: int) -> Matrix:
        pending, total = self._pending[number], self._sums[number]
        if not pending:
            return np.zeros((self._sizes[number],) * 2, np.float32) if total is None else total
        rows = pending[0] if len(pending) == 1 else np.concatenate(pending)
        product = rows.T @ rows
        return product if total is None else np.add(product, total, out=product)

    def inputs(self, weight: str) -> tuple[int, ...]:
        """Numbers of the inputs that a weight is multiplied with; equal for equal Hessians."""
        return tuple(self._names[weight])

    def sum(self, weight: str) -> Matrix:
        """Computes the Hessian [n,n] of a weight, a sum over all matmuls of the weight."""
        first, *others = self._names[weight]
        total = self._sum(first)
        for number in others:
            total = total + self._sum(number)
        return total


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
