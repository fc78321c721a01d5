"""Sizes of a model, from the declarations of its graphs or from the results of a run.

A graph of the hub may have a name for an axis where others have a number: quantisers lose shapes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from florence_onnx.engine.checks import EXPORT, inputs_of, number_of, outputs_of, running
from florence_onnx.engine.contract import BOOL, FIXED, FLOAT, FLOAT16, INT64, Signature
from florence_onnx.errors import GraphContractError

if TYPE_CHECKING:
    import onnxruntime as ort

_DTYPES: Mapping[str, Any] = {
    **{FLOAT: np.float32, FLOAT16: np.float16},
    **{INT64: np.int64, BOOL: np.bool_},
}


MODEL_SIZES = FIXED.keys() - {"candidates"}
"""Sizes that must be known of a model, by the names in configurations."""


def declared_sizes(
    signatures: Mapping[str, Signature], sessions: "Mapping[str, ort.InferenceSession]"
) -> dict[str, int]:
    """Finds the sizes that graphs declare as numbers, by the names in configurations.

    Args:
        signatures: The tensors of each graph.
        sessions: The graphs, checked.
    """
    sizes: dict[str, int] = {}
    for graph, signature in signatures.items():
        found = {**inputs_of(sessions[graph]), **outputs_of(sessions[graph])}
        for tensors in signature.of(1):
            for name, tensor in tensors.items():
                for axis, size in enumerate(tensor.axes):
                    number = number_of(found[name].shape[axis]) if name in found else None
                    if size in MODEL_SIZES and number is not None:
                        sizes.setdefault(str(size), number)
    return sizes


def check_sizes(sizes: Mapping[str, int], path: Path) -> None:
    """Checks that the sizes of a model are known.

    Args:
        sizes: Sizes found so far.
        path: The decoder's file.

    Raises:
        GraphContractError: A size is not known.
    """
    unknown = sorted(MODEL_SIZES - sizes.keys())
    if unknown:
        raise GraphContractError(
            f"neither {path} nor the graphs beside it declare {' and '.join(unknown)} as a number. "
            f"{EXPORT}"
        )


def returned_sizes(
    signature: Signature, session: "ort.InferenceSession", file: str, known: Mapping[str, int]
) -> dict[str, int]:
    """Runs a graph on one token without a past; finds the sizes of a model from the results.

    Args:
        signature: The graph's tensors.
        session: The graph, checked.
        file: Path of the graph inside the model folder.
        known: Sizes that are known already, by the names of `contract.FIXED`. Any other size is 1
            here: keys and values of an empty past have no elements, whatever the heads.

    Raises:
        GraphRunError: The graph fails.
    """
    given = {}
    for name, value in inputs_of(session).items():
        declared = zip(signature.inputs[name].axes, value.shape, strict=True)
        given[name] = _filled([_size(axis, size, known) for axis, size in declared], value.type)
    names = list(signature.outputs)
    with running(file):
        outputs = session.run(names, given)
    found: dict[str, int] = {}
    for name, output in zip(names, outputs, strict=True):
        axes = signature.outputs[name].axes
        found |= {str(axis): size for axis, size in zip(axes, output.shape, strict=True)}
    return {name: size for name, size in found.items() if name in FIXED and size > 0}


def _size(axis: str | int, declared: object, known: Mapping[str, int]) -> int:
    if isinstance(declared, int):
        return declared
    return axis if isinstance(axis, int) else known.get(axis, 0 if axis == "past" else 1)


def _filled(shape: list[int], kind: str) -> npt.NDArray[Any]:
    """Makes an input of ones, a mask that hides nothing or ids; a switch is off."""
    make = np.zeros if kind == BOOL else np.ones
    return make(shape, dtype=_DTYPES[kind])
