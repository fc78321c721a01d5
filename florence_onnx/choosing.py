"""Choice of the precision to open: the precision that a caller names, or one that suits."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

from florence_onnx.decoder_pair import open_either
from florence_onnx.engine import hub_contract
from florence_onnx.engine.layouts import graph_files, layout_of
from florence_onnx.engine.precision import AUTO, Precision, suitable_precisions
from florence_onnx.engine.present import present_precisions
from florence_onnx.engine.providers import Providers, providers_by_graph, require_onnxruntime
from florence_onnx.errors import (
    GraphContractError,
    ModelError,
    ModelFileError,
    ModelWarning,
    PrecisionError,
)
from florence_onnx.hub import ANYHOW, Access
from florence_onnx.resolver import cached_folder, is_demo, local_folder, resolve

T = TypeVar("T")
P = TypeVar("P", bound=Precision)


def usual_precision(
    source: str | os.PathLike[str], providers: Providers | None, access: Access
) -> tuple[str, str | None]:
    """Finds the precision to open where none is asked for, and the precision that suits best.

    The precision that suits best is opened where it has been pulled from the hub. Any other model
    is opened at fp32.

    Args:
        source: A model folder, a hub id, or ``"demo"``.
        providers: What the graphs are to run on.
        access: Which state of a hub repository is wanted.

    Returns:
        The precision; and the first of `suitable_precisions`, None where the model is not the
        hub's.
    """
    if is_demo(source) or local_folder(source) is not None:
        return "fp32", None
    require_onnxruntime()
    best = suitable_precisions(providers_by_graph(providers))[0]
    folder = cached_folder(str(source), access)
    return (best if folder and best in present_precisions(folder) else "fp32"), best


def locate(
    source: str | os.PathLike[str],
    precision: P,
    providers: Providers | None,
    opened: Callable[[Path, P], T],
    access: Access = ANYHOW,
) -> T:
    """Opens a model's folder at the precision asked for, or at one that suits.

    Args:
        source: A model folder, a hub id, or ``"demo"``.
        precision: The precision asked for; ``"auto"`` for the first of `suitable_precisions` that
            the model has and that can be opened. Any other is passed on unchecked.
        providers: What the graphs are to run on.
        opened: Opens a folder at a precision.
        access: Which state of a hub repository is wanted.

    Raises:
        ModelNotFoundError: There is no such model.
        PrecisionError: The model has no precision that suits.
        ProviderError: A provider cannot be had.
        ModelError: What ``opened`` raises; of several precisions, the first.

    Warns:
        ModelWarning: ``"auto"`` has passed over a precision that cannot be opened.
    """
    if not isinstance(precision, str | Mapping):
        names = ", ".join((*hub_contract.SUFFIXES, AUTO))
        raise PrecisionError(
            f"precision is {precision!r}; it must be one of {names}, or a mapping from graphs to "
            "these"
        )

    def opened_from(folder: Path, precision: P) -> T:
        if is_demo(source) or local_folder(source) is not None:
            return opened(folder, precision)
        return open_either(str(source), folder, precision, opened, access)

    if precision != AUTO:
        return opened_from(resolve(source, precision=precision, access=access), precision)
    require_onnxruntime()
    suitable = suitable_precisions(providers_by_graph(providers))
    return _first_that_opens(source, suitable, opened_from, access)


def _first_that_opens(
    source: str | os.PathLike[str],
    suitable: Sequence[str],
    opened: Callable[[Path, P], T],
    access: Access,
) -> T:
    absent: list[ModelError] = []
    passed: dict[str, ModelError] = {}
    for name in suitable:
        try:
            folder = resolve(source, precision=name, access=access)
        except ModelError as error:  # The next may be in the cache, or the only one on the hub.
            absent.append(error)
            continue
        if not _has_some(folder, name):
            continue
        try:
            found = opened(folder, cast(P, name))
        except (ModelFileError, GraphContractError, PrecisionError) as error:
            passed[name] = error
            continue
        for other, why in passed.items():
            warnings.warn(f"taking {name} instead of {other}: {why}", ModelWarning, stacklevel=4)
        return found
    for failure in (*passed.values(), *absent):
        raise failure
    present = present_precisions(folder)
    raise PrecisionError(
        f"{folder} has no precision that suits these providers and this processor "
        f"({', '.join(suitable)}); present: {', '.join(present) or 'none complete'}"
    )


def _has_some(folder: Path, precision: str) -> bool:
    """Tells whether there are graphs of a precision, all four or fewer."""
    names = graph_files(folder)
    files = layout_of(names, precision).files(names, precision)
    return any(file in names for file in files.values())
