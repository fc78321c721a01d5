"""What graphs declare and return, held against the contract: a stranger's or a damaged one lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from florence_onnx.engine import contract
from florence_onnx.engine.contract import CACHE, FLOAT, INPUTS, OUTPUTS, Tensor
from florence_onnx.engine.providers import first_line
from florence_onnx.errors import FlorenceError, GraphContractError, GraphRunError

if TYPE_CHECKING:
    import onnxruntime as ort

_EXPORT = "Export the checkpoint with florence-onnx export"

Declared = Mapping[str, Any]
"""Inputs or outputs of a session by name, as ONNX Runtime describes them."""


def inputs_of(session: ort.InferenceSession) -> Declared:
    """What a graph declares of its inputs."""
    return {value.name: value for value in session.get_inputs()}


def outputs_of(session: ort.InferenceSession) -> Declared:
    """What a graph declares of its outputs."""
    return {value.name: value for value in session.get_outputs()}


def check_tensors(path: Path, graph: str, session: ort.InferenceSession) -> None:
    """Checks what a graph declares of the tensors of the contract, besides the cache.

    Raises:
        GraphContractError: A tensor is missing or of another kind, or there is an input more.
    """
    for kind, expected, found in (
        ("input", INPUTS[graph], inputs_of(session)),
        ("output", OUTPUTS[graph], outputs_of(session)),
    ):
        _check_names(path, kind, list(expected), found)
        for name, tensor in expected.items():
            _check_tensor(path, kind, found[name], tensor)
    others = inputs_of(session).keys() - INPUTS[graph].keys()
    unknown = sorted(name for name in others if not name.startswith("past_key_values."))
    if unknown:
        raise GraphContractError(f"{path} wants more inputs: {', '.join(unknown)}. {_EXPORT}")


def check_caches(
    paths: Mapping[str, Path], encoder: ort.InferenceSession, decoder: ort.InferenceSession
) -> int:
    """Checks that the tensors of the cache are those of one model.

    Args:
        paths: The files of the graphs by name.
        encoder: Gives the keys and values of the cross-attention.
        decoder: Takes them, and takes and gives its own.

    Returns:
        The number of decoder layers.

    Raises:
        GraphContractError: A tensor is missing or of another kind, or there is an input more.
    """
    taken = inputs_of(decoder)
    past = [name for name in taken if name.startswith("past_key_values.")]
    layers = len(past) // 4
    heads_and_dim = None
    for graph, kind, prefix, side, found in (
        (contract.DECODER, "input", "past_key_values", "decoder", taken),
        (contract.DECODER, "input", "past_key_values", "encoder", taken),
        (contract.DECODER, "output", "present", "decoder", outputs_of(decoder)),
        (contract.ENCODER, "output", "present", "encoder", outputs_of(encoder)),
    ):
        # A decoder without any cache lacks at least the first layer's.
        names = list(contract.cache_names(prefix, side, max(layers, 1)))
        _check_names(paths[graph], kind, names, found)
        for name in names:
            _check_tensor(paths[graph], kind, found[name], CACHE)
            sizes = [_size(paths[graph], found[name], axis) for axis in (1, 3)]
            if sizes != (heads_and_dim := heads_and_dim or sizes):
                raise GraphContractError(
                    f"{paths[graph]} declares {name} with {sizes[0]} heads of {sizes[1]}, where "
                    f"the first layer has {heads_and_dim[0]} of {heads_and_dim[1]}. {_EXPORT}"
                )
    if len(past) != 4 * layers:
        raise GraphContractError(f"{paths[contract.DECODER]} wants more of the cache. {_EXPORT}")
    return layers


def check_widths(sessions: Mapping[str, ort.InferenceSession]) -> None:
    """Checks that the graphs are of one model: they hand each other tensors of its hidden size."""
    widths = {
        f"{value.name} of {graph}": (value.shape or [None])[-1]
        for graph, session in sessions.items()
        for value in (*session.get_inputs(), *session.get_outputs())
        if value.name in ("image_features", "inputs_embeds", "last_hidden_state")
    }
    for place, width in widths.items():
        if not isinstance(width, int):
            raise GraphContractError(f"the width of {place} is {width}, not a number. {_EXPORT}")
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise GraphContractError(f"the graphs are of different models; hidden sizes: {listed}")


def declared_sizes(path: Path, decoder: ort.InferenceSession) -> dict[str, int]:
    """Sizes that a decoder declares, by the names that configurations have for them.

    Raises:
        GraphContractError: One is no number.
    """
    given, returned = inputs_of(decoder), outputs_of(decoder)
    cache = given["past_key_values.0.decoder.key"]
    return {
        "hidden_size": _size(path, given["inputs_embeds"], 2),
        "decoder_heads": _size(path, cache, 1),
        "head_dim": _size(path, cache, 3),
        "vocabulary": _size(path, returned["logits"], 2),
    }


@contextmanager
def running(file: str) -> Iterator[None]:
    """Names the graph that the code inside runs when ONNX Runtime fails.

    Raises:
        GraphRunError: It did.
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
        output: What the graph returned.
        shape: The sizes of its axes; None for any from 1.

    Returns:
        The output.

    Raises:
        GraphRunError: It is of another type or shape, or not finite.
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
    """Checks the type and the shape of an output where it lies; see `check_output`."""
    _check_returned(file, name, value.data_type(), value.shape(), kind, shape)


def impossible_numbers(file: str, name: str) -> GraphRunError:
    """What to raise for an output with NaN, infinity or a probability above 1."""
    return GraphRunError(
        f"{file} returned NaN, infinite or impossible numbers as {name}; its weights are damaged, "
        "or too large for its precision. Use another precision, or export the checkpoint again"
    )


def _check_names(path: Path, kind: str, expected: Sequence[str], found: Declared) -> None:
    missing = [name for name in expected if name not in found]
    if missing:
        raise GraphContractError(
            f"{path} has no {kind} {', '.join(missing)}; it has {', '.join(found)}. {_EXPORT}"
        )


def _check_tensor(path: Path, kind: str, found: Any, expected: Tensor) -> None:
    fits = found.type == expected.type and len(found.shape) == len(expected.axes)
    for size, axis in zip(found.shape, expected.axes, strict=False):
        fits = fits and not (isinstance(size, int) and isinstance(axis, int) and size != axis)
    if not fits:
        raise GraphContractError(
            f"{path} declares the {kind} {found.name} as {found.type} {_listed(found.shape)}, "
            f"where {expected.type} {_listed(expected.axes)} is needed. {_EXPORT}"
        )


def _size(path: Path, value: Any, axis: int) -> int:
    size = value.shape[axis]
    if isinstance(size, int) and size > 0:
        return size
    raise GraphContractError(
        f"{path} declares {value.name} as {_listed(value.shape)}; axis {axis} must be a number. "
        f"{_EXPORT}"
    )


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
        f"{_EXPORT}"
    )


def _listed(shape: Sequence[object]) -> str:
    return f"[{', '.join(map(str, shape))}]"
