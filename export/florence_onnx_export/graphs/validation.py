"""Exported graphs against the PyTorch modules they were traced from."""

from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch

from florence_onnx.errors import ValidationError
from florence_onnx_export.graphs.specs import Axes, GraphSpec, Sizes

Array = npt.NDArray[Any]

TOLERANCE = {"fp32": 1e-4}
"""Largest difference allowed per precision, relative to the largest value of the output."""


@dataclass(frozen=True)
class OutputCheck:
    """How far one output of one graph is from PyTorch."""

    graph: str
    """Graph name."""
    output: str
    """Output name."""
    shape: tuple[int, ...]
    """Shape at this size."""
    max_abs_diff: float
    """Largest absolute difference; for ids, the share that differ beyond ties."""
    max_rel_diff: float
    """The same over the largest absolute value of the output."""

    def to_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return asdict(self)


def validate(spec: GraphSpec, path: Path, precision: str) -> list[OutputCheck]:
    """Compares names, axes, shapes and values of every output at the spec's sizes.

    Raises:
        ValidationError: Names, axes or shapes differ, or a value differs beyond the tolerance.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    _check_signature(spec.name, "input", session.get_inputs(), spec.inputs)
    _check_signature(spec.name, "output", session.get_outputs(), spec.outputs)
    checks = [check for sizes in spec.sizes for check in _compare(spec, session, sizes)]
    worst = max(checks, key=lambda check: check.max_rel_diff)
    if not worst.max_rel_diff <= TOLERANCE[precision]:
        raise ValidationError(
            f"{spec.name}: output {worst.output!r} at shape {worst.shape} differs from PyTorch by "
            f"{worst.max_rel_diff:.2g} of its largest value; {TOLERANCE[precision]:g} is allowed "
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
    with torch.inference_mode():
        expected = spec.module(*spec.arguments(example))
    tensors = (expected,) if isinstance(expected, torch.Tensor) else expected
    wanted = {name: t.numpy() for name, t in zip(spec.outputs, tensors, strict=True)}
    feeds = {name: tensor.numpy() for name, tensor in zip(spec.inputs, example, strict=True)}
    got = dict(zip(spec.outputs, session.run(list(spec.outputs), feeds), strict=True))
    if "topk_ids" in got:
        _replace_ids_by_log_probs(got, wanted)
    return [_difference(spec.name, name, got[name], wanted[name]) for name in spec.outputs]


def _replace_ids_by_log_probs(got: dict[str, Array], wanted: dict[str, Array]) -> None:
    """Candidates may swap where they tie, so ids are judged by PyTorch's probability of each."""
    logits = torch.from_numpy(wanted["logits"][:, -1])
    log_probs = torch.log_softmax(logits, dim=-1).numpy()
    for tensors in (got, wanted):
        tensors["topk_ids"] = np.take_along_axis(log_probs, tensors["topk_ids"], axis=-1)


def _difference(graph: str, name: str, got: Array, want: Array) -> OutputCheck:
    if got.shape != want.shape or got.dtype != want.dtype:
        raise ValidationError(
            f"{graph}: output {name!r} is {got.dtype}{list(got.shape)} where PyTorch gives "
            f"{want.dtype}{list(want.shape)}"
        )
    difference = float(np.max(np.abs(got - want), initial=0.0))
    largest = float(np.max(np.abs(want), initial=0.0))
    relative = difference / largest if largest else difference
    if not (np.isfinite(got).all() and np.isfinite(want).all()):
        relative = float("inf")
    return OutputCheck(graph, name, tuple(got.shape), difference, relative)
