"""Comparison of exported graphs with the PyTorch modules that were traced."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch

from florence_onnx.errors import ValidationError
from florence_onnx_export.graphs.float64 import in_float64, widened
from florence_onnx_export.graphs.specs import Axes, GraphSpec, Sizes

Array = npt.NDArray[Any]

TOLERANCE = {"fp32": 1e-4}
"""Precision -> allowed difference, relative to the largest value of the output."""
_ROUNDINGS = 8
"""Factor: the difference may also be this many times PyTorch's own rounding error in float32. For a
checkpoint that amplifies rounding, this is more than `TOLERANCE`."""
_LOOSEST = 0.05
"""Limit of the allowed difference: above, a wrong graph could pass for a right one."""


@dataclass(frozen=True)
class OutputCheck:
    """Difference of one output of one graph from PyTorch."""

    graph: str
    """Name of the graph."""
    output: str
    """Name of the output."""
    shape: tuple[int, ...]
    """Shape of the output at these sizes."""
    max_abs_diff: float
    """Largest absolute difference; of ids, the difference of the log-probabilities of the ids."""
    max_rel_diff: float
    """Largest absolute difference over the largest absolute value of the output."""
    pytorch_rel_diff: float
    """Relative difference of PyTorch in float32 from PyTorch in float64."""

    def allowed(self, precision: str) -> float:
        """Largest relative difference that is allowed."""
        rounding = self.pytorch_rel_diff if np.isfinite(self.pytorch_rel_diff) else 0.0
        return max(TOLERANCE[precision], min(_ROUNDINGS * rounding, _LOOSEST))

    def to_dict(self) -> dict[str, object]:
        """Returns the fields, ready for JSON."""
        return asdict(self)


def validate(spec: GraphSpec, path: Path, precision: str) -> list[OutputCheck]:
    """Compares names, axes, shapes and values of every output at the spec's sizes.

    Values are compared with the values of the module in float64. The allowed difference is
    `OutputCheck.allowed`.

    Raises:
        ValidationError: Names, axes or shapes differ, or a value differs beyond the tolerance.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    _check_signature(spec.name, "input", session.get_inputs(), spec.inputs)
    _check_signature(spec.name, "output", session.get_outputs(), spec.outputs)
    checks = [check for sizes in spec.sizes for check in _compare(spec, session, sizes)]
    worst = max(checks, key=lambda check: check.max_rel_diff / check.allowed(precision))
    allowed = worst.allowed(precision)
    if not worst.max_rel_diff <= allowed:
        raise ValidationError(
            f"{spec.name}: output {worst.output!r} at shape {worst.shape} differs from PyTorch by "
            f"{worst.max_rel_diff:.2g} of its largest value; {allowed:.2g} is allowed "
            f"for {precision}"
        )
    return checks


def _check_signature(
    graph: str, kind: str, found: list[ort.NodeArg], expected: dict[str, Axes]
) -> None:
    got = [(value.name, tuple(value.shape)) for value in found]
    want = list(expected.items())
    if got != want:
        wrong = next(pair for pair in zip_longest(got, want) if pair[0] != pair[1])
        raise ValidationError(f"{graph}: {kind} {wrong[0]} where the contract has {wrong[1]}")


def _compare(spec: GraphSpec, session: ort.InferenceSession, sizes: Sizes) -> list[OutputCheck]:
    example = spec.example(sizes)
    rounded = _module_outputs(spec, example)
    with in_float64(spec.module):
        exact = _module_outputs(spec, tuple(map(widened, example)))
    feeds = {name: tensor.numpy() for name, tensor in zip(spec.inputs, example, strict=True)}
    got = dict(zip(spec.outputs, session.run(list(spec.outputs), feeds), strict=True))
    for name in spec.outputs:
        _check_form(spec.name, name, got[name], rounded[name])
    if "topk_ids" in got:
        _replace_ids_by_log_probs((got, rounded, exact), exact["logits"])
    return [
        _difference(spec.name, name, got[name], rounded[name], exact[name]) for name in spec.outputs
    ]


def _module_outputs(spec: GraphSpec, example: tuple[torch.Tensor, ...]) -> dict[str, Array]:
    with torch.inference_mode():
        found = spec.module(*spec.arguments(example))
    tensors = (found,) if isinstance(found, torch.Tensor) else found
    return {name: t.numpy() for name, t in zip(spec.outputs, tensors, strict=True)}


def _replace_ids_by_log_probs(answers: Iterable[dict[str, Array]], logits: Array) -> None:
    """Replaces ids by PyTorch's log-probabilities of the ids: candidates in a tie may swap."""
    log_probs = torch.log_softmax(torch.from_numpy(logits[:, -1]), dim=-1).numpy()
    for tensors in answers:
        tensors["topk_ids"] = np.take_along_axis(log_probs, tensors["topk_ids"], axis=-1)


def _check_form(graph: str, name: str, got: Array, want: Array) -> None:
    if got.shape != want.shape or got.dtype != want.dtype:
        raise ValidationError(
            f"{graph}: output {name!r} is {got.dtype}{list(got.shape)} where PyTorch gives "
            f"{want.dtype}{list(want.shape)}"
        )


def _difference(graph: str, name: str, got: Array, rounded: Array, exact: Array) -> OutputCheck:
    largest = float(np.max(np.abs(exact), initial=0.0))
    difference, rounding = (
        float(np.max(np.abs(values - exact), initial=0.0))
        if np.isfinite(values).all() and np.isfinite(exact).all()
        else float("inf")
        for values in (got, rounded)
    )
    scale = largest if 0 < largest < float("inf") else 1.0
    shape = tuple(got.shape)
    return OutputCheck(graph, name, shape, difference, difference / scale, rounding / scale)
