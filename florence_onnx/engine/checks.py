"""Checks of the declarations and results of graphs. Damaged or foreign graphs may be wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from florence_onnx.engine.contract import FLOAT, SIGNATURES, Signature, Tensor
from florence_onnx.engine.providers import first_line
from florence_onnx.errors import FlorenceError, GraphContractError, GraphRunError

if TYPE_CHECKING:
    import onnxruntime as ort

EXPORT = "Export the checkpoint with florence-onnx export"
"""Advice for the user about a wrong graph, for messages."""

_PAST = "past_key_values."
_PER_LAYER = 4
"""Tensors of the past in a decoder layer: keys and values of the decoder, and of the encoder."""

_CACHE_AXES = ("decoder_heads", "head_dim")

_WIDE = {
    name
    for signature in SIGNATURES.values()
    for tensors in signature
    for name, tensor in tensors.items()
    if tensor.axes[-1] == "hidden_size"
}
"""Tensors that the graphs hand each other, in every layout."""

Declared = Mapping[str, Any]
"""Inputs or outputs of a session, by name, as ONNX Runtime describes them."""


def inputs_of(session: ort.InferenceSession) -> Declared:
    """Inputs that a graph declares, by name."""
    return {value.name: value for value in session.get_inputs()}


def outputs_of(session: ort.InferenceSession) -> Declared:
    """Outputs that a graph declares, by name."""
    return {value.name: value for value in session.get_outputs()}


def decoder_layers(sessions: Iterable[ort.InferenceSession]) -> int:
    """Counts the decoder layers, by the keys and values that a graph takes for each layer."""
    taken = (sum(name.startswith(_PAST) for name in inputs_of(session)) for session in sessions)
    return max(taken) // _PER_LAYER


def check_graph(
    path: Path, signature: Signature, layers: int, session: ort.InferenceSession
) -> None:
    """Checks the tensors that a graph declares.

    Args:
        path: The graph's file.
        signature: The tensors that the graph must have.
        layers: Number of decoder layers. A decoder without a cache lacks the cache of layer 0.
        session: The graph.

    Raises:
        GraphContractError: A tensor is missing or of another kind, or there is one more input.
    """
    tensors = signature.of(max(layers, 1))
    given = inputs_of(session)
    for kind, expected, found in (
        ("input", tensors.inputs, given),
        ("output", tensors.outputs, outputs_of(session)),
    ):
        missing = [n for n, tensor in expected.items() if n not in found and not tensor.is_optional]
        if missing:
            raise GraphContractError(
                f"{path} has no {kind} {', '.join(missing)}; it has {', '.join(found)}. {EXPORT}"
            )
        for name, tensor in expected.items():
            if name in found:
                _check_tensor(path, kind, found[name], tensor)
    unknown = [name for name in given if name not in tensors.inputs]
    others = [name for name in unknown if not name.startswith(_PAST)]
    if unknown:
        wanted = f"inputs: {', '.join(others)}" if others else "of the cache"
        raise GraphContractError(f"{path} wants more {wanted}. {EXPORT}")


def check_dynamic(path: Path, signature: Signature, session: ort.InferenceSession) -> None:
    """Checks that a graph takes any number of requests and any length.

    Args:
        path: The graph's file.
        signature: The tensors of the graph.
        session: The graph, checked.

    Raises:
        GraphContractError: The graph takes fewer requests or shorter inputs.
    """
    tensors = signature.of(1).inputs
    given = {name: value for name, value in inputs_of(session).items() if name in tensors}
    for name, value in given.items():
        for axis, size in zip(tensors[name].axes, value.shape, strict=True):
            if isinstance(size, int) and axis in ("batch", "sequence", "past"):
                raise GraphContractError(
                    f"{path} takes {name} as {_listed(value.shape)} only, where the axis "
                    f"{axis} must be dynamic. {EXPORT}"
                )


def check_caches(
    paths: Mapping[str, Path],
    signatures: Mapping[str, Signature],
    sessions: Mapping[str, ort.InferenceSession],
    *,
    named: bool,
) -> None:
    """Checks that all tensors of the cache have the same number and size of heads.

    Args:
        paths: The files of the graphs.
        signatures: The tensors of the graphs, of every layer.
        sessions: The graphs, checked one by one.
        named: Whether a graph may name an axis where another has a number.

    Raises:
        GraphContractError: The heads differ, or the sizes of tensors are no numbers.
    """
    first: list[int | None] = [None, None]
    for graph, signature in signatures.items():
        found = {**inputs_of(sessions[graph]), **outputs_of(sessions[graph])}
        for name, tensor in (*signature.inputs.items(), *signature.outputs.items()):
            if "head_dim" not in tensor.axes:
                continue
            axes = map(tensor.axes.index, _CACHE_AXES)
            sizes = [number_of(found[name].shape[axis]) for axis in axes]
            if None in sizes and not named:
                raise GraphContractError(
                    f"{paths[graph]} declares {name} as {_listed(found[name].shape)}; axis "
                    f"{tensor.axes.index(_CACHE_AXES[sizes.index(None)])} must be a number. "
                    f"{EXPORT}"
                )
            both = list(zip(first, sizes, strict=True))
            first = [one or other for one, other in both]
            if any(one and other and one != other for one, other in both):
                raise GraphContractError(
                    f"{paths[graph]} declares {name} with {sizes[0]} heads of {sizes[1]}, where "
                    f"the first layer has {first[0]} of {first[1]}. {EXPORT}"
                )


def check_widths(sessions: Mapping[str, ort.InferenceSession], *, named: bool = False) -> None:
    """Checks that the graphs are of one model, and hand each other tensors of one hidden size.

    Args:
        sessions: The graphs.
        named: Whether a graph may name an axis where another has a number.

    Raises:
        GraphContractError: The graphs are of several models, or a size is no number.
    """
    widths = {
        f"{value.name} of {graph}": (value.shape or [None])[-1]
        for graph, session in sessions.items()
        for value in (*session.get_inputs(), *session.get_outputs())
        if value.name in _WIDE
    }
    known = {place: width for place, width in widths.items() if isinstance(width, int)}
    for place in () if named else [place for place in widths if place not in known]:
        raise GraphContractError(f"the width of {place} is {widths[place]}, not a number. {EXPORT}")
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{name} {width}" for name, width in known.items())
        raise GraphContractError(f"the graphs are of different models; hidden sizes: {listed}")


@contextmanager
def running(file: str) -> Iterator[None]:
    """Names the graph that the code inside runs when ONNX Runtime fails.

    Raises:
        GraphRunError: ONNX Runtime has failed.
    """
    try:
        yield
    except FlorenceError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no common base.
        raise GraphRunError(f"{file} failed while it ran: {first_line(error)}") from error


def check_output(
    file: str, name: str, output: object, shape: Sequence[int | None]
) -> npt.NDArray[np.float32]:
    """Checks a float32 output that has come to the host.

    Args:
        file: The graph's file.
        name: The output.
        output: The value that the graph returned.
        shape: The sizes of the axes; None for any from 1.

    Returns:
        The output.

    Raises:
        GraphRunError: The output is of another type or shape, or not finite.
    """
    array = np.asarray(output)
    kind = FLOAT if array.dtype == np.float32 else str(array.dtype)
    _check_returned(file, name, kind, array.shape, FLOAT, shape)
    if not np.isfinite(array).all():
        raise impossible_numbers(file, name)
    return array


def check_value(
    file: str, name: str, value: ort.OrtValue, kind: str, shape: Sequence[int | None]
) -> None:
    """Checks the type and the shape of an output on any device; see `check_output`."""
    _check_returned(file, name, value.data_type(), value.shape(), kind, shape)


def impossible_numbers(file: str, name: str) -> GraphRunError:
    """Makes the error for an output with NaN, infinity or a probability above 1."""
    return GraphRunError(
        f"{file} returned NaN, infinite or impossible numbers as {name}; its weights are damaged, "
        "or too large for its precision. Use another precision, or export the checkpoint again"
    )


def _check_tensor(path: Path, kind: str, found: Any, expected: Tensor) -> None:
    fits = found.type in expected.type.split(" or ") and len(found.shape) == len(expected.axes)
    for size, axis in zip(found.shape, expected.axes, strict=False):
        fits = fits and not (isinstance(size, int) and isinstance(axis, int) and size != axis)
    if not fits:
        raise GraphContractError(
            f"{path} declares the {kind} {found.name} as {found.type} {_listed(found.shape)}, "
            f"where {expected.type} {_listed(expected.axes)} is needed. {EXPORT}"
        )


def number_of(size: object) -> int | None:
    """Reads the size of an axis; None for a name or an impossible number."""
    return size if isinstance(size, int) and size > 0 else None


def _check_returned(
    file: str,
    name: str,
    kind: str,
    shape: Sequence[int],
    expected_kind: str,
    expected_shape: Sequence[int | None],
) -> None:
    fits = kind == expected_kind and len(shape) == len(expected_shape) and 0 not in shape
    if fits and all(want in (None, size) for size, want in zip(shape, expected_shape, strict=True)):
        return
    raise GraphRunError(
        f"{file} returned {name} as {kind} {_listed(shape)}, where {expected_kind} "
        f"{_listed(['any' if size is None else size for size in expected_shape])} is needed. "
        f"{EXPORT}"
    )


def _listed(shape: Sequence[object]) -> str:
    return f"[{', '.join(map(str, shape))}]"
