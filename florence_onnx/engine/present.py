"""Precisions of which a model folder has all graphs, by the names of the files."""

from pathlib import Path

from florence_onnx.engine import hub_contract
from florence_onnx.engine.layouts import (
    MERGED,
    SLOTS,
    SPLIT,
    Layout,
    graph_files,
    layout_of,
    precisions_of,
)
from florence_onnx.engine.precision import Precision
from florence_onnx.engine.providers import OTHERS
from florence_onnx.errors import PrecisionError
from florence_onnx.terminal import say


def present_precisions(folder: Path) -> list[str]:
    """Finds the precisions for which the folder holds every graph."""
    return precisions_of(graph_files(folder))


def check_precision(folder: Path, precision: Precision) -> Layout:
    """Finds the layout of a folder in which a precision, or several, are complete.

    A folder without a complete precision passes, because a missing file is the better message.

    Raises:
        PrecisionError: A precision or a graph is unknown, or the folder has other precisions only.
    """
    names = graph_files(folder)
    layout = layout_of(names, precision)
    _check_names(layout, precision)
    if layout.is_whole(names, precision):
        if layout is SLOTS and any(one.is_whole(names, precision) for one in (MERGED, SPLIT)):
            say(f"note: {folder} has graphs in two layouts; florence-onnx's own are opened")
        return layout
    present = precisions_of(names)
    listed = ", ".join(present) or "none complete"
    if not layout.suits(precision):
        raise PrecisionError(f"no graphs of precision {precision!r} in {folder}; present: {listed}")
    if not present:
        return layout
    files = layout.files(names, precision)
    missing = [file for file in files.values() if file not in names]
    if len(missing) == len(files):
        raise PrecisionError(f"no graphs of precision {precision!r} in {folder}; present: {listed}")
    raise PrecisionError(
        f"{folder / missing[0]} is missing, without which precision {precision!r} cannot be "
        f"opened; present: {listed}"
    )


def _check_names(layout: Layout, precision: Precision) -> None:
    """Raises PrecisionError where a mapping names an unknown graph or precision."""
    if isinstance(precision, str):
        return
    known = dict.fromkeys((*layout.graphs, *layout.others, OTHERS))
    for name, value in precision.items():
        if name not in known:
            raise PrecisionError(
                f"precision names no graph of this model: {name!r}; use {', '.join(known)}"
            )
        if value not in hub_contract.SUFFIXES:
            raise PrecisionError(
                f"unknown precision {value!r} of {name}; choose one of "
                f"{', '.join(hub_contract.SUFFIXES)}"
            )
