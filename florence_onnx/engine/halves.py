"""Runs of graphs with inputs and outputs in float16 or float32, fed and read as float32."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from florence_onnx.engine.checks import running
from florence_onnx.engine.contract import FLOAT16

if TYPE_CHECKING:
    import onnxruntime as ort

Array = npt.NDArray[Any]


def run(
    session: "ort.InferenceSession", file: str, given: Mapping[str, Array], wanted: Sequence[str]
) -> list[Array]:
    """Runs a graph; returns the outputs on the host.

    Args:
        session: The graph.
        file: The path of the graph inside the model folder.
        given: The inputs; floats are float32.
        wanted: The names of the outputs.

    Returns:
        The outputs, in the order of ``wanted``; floats are float32.

    Raises:
        GraphRunError: The graph fails.
    """
    kinds = {value.name: value.type for value in session.get_inputs()}
    fed = {name: as_declared(value, kinds[name]) for name, value in given.items()}
    with running(file):
        found = session.run(list(wanted), fed)
    return [as_float32(value) for value in found]


def as_declared(value: Array, kind: str) -> Array:
    """Converts an array for an input of this element type, by ONNX Runtime's name."""
    if kind != FLOAT16:
        return value
    with np.errstate(over="ignore"):  # Infinite values are found in the results of the graph.
        return value.astype(np.float16)


def as_float32(value: Array) -> Array:
    """Converts a float16 output to float32."""
    return value.astype(np.float32) if value.dtype == np.float16 else value
