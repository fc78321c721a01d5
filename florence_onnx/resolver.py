"""Search for a model: a folder, a repository of the hub, or the shipped demo."""

import os
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

from florence_onnx import hub
from florence_onnx.checkpoints.contents import Contents
from florence_onnx.engine import contract, hub_contract
from florence_onnx.engine.layouts import graph_files, graph_of, layout_of, precisions_of
from florence_onnx.engine.precision import Precision
from florence_onnx.errors import (
    FlorenceError,
    ModelFileError,
    ModelNotFoundError,
    PrecisionError,
)
from florence_onnx.hub import ANYHOW, Access
from florence_onnx.staging import finish_replacement
from florence_onnx.terminal import say

DEMO = Path(__file__).parent / "demo"

_NAME = r"[\w-][\w.-]*"
_HUB_ID = re.compile(rf"{_NAME}/{_NAME}(?::{_NAME}(?:/{_NAME})*)?")
"""Name of a repository, ``org/name``, or of a folder in a repository, ``org/name:folder``."""


def resolve(
    source: str | os.PathLike[str], *, precision: Precision = "fp32", access: Access = ANYHOW
) -> Path:
    """Finds the folder of a model, and downloads the model if necessary.

    Args:
        source: An existing folder, a hub id (``"org/name"``), or ``"demo"``, looked up in this
            order. Text that looks like a path is never looked up on the hub.
        precision: The graphs to fetch when ``source`` is a hub id, of one precision or several.
        access: Which state of a hub repository is wanted. Files that are in the cache are used
            without asking the hub.

    Raises:
        ModelNotFoundError: There is no such folder or repository, or the hub cannot be reached.
        PrecisionError: ``precision`` is not one of ``hub_contract.SUFFIXES``.
    """
    if is_demo(source):
        if not DEMO.is_dir():
            raise ModelNotFoundError("this installation of florence-onnx ships no demo model")
        _tell_what_the_demo_knows()
        return DEMO
    folder = local_folder(source)
    if folder is not None:
        refuse(Contents.of_folder(folder).why_no_model())
        _check_encoding(folder)
        return folder
    folder = hub_model(str(source), precision, access)
    names = graph_files(folder)
    if not layout_of(names, precision).is_whole(names, precision):
        raise PrecisionError(
            f"the model made of {str(source)!r} has no graphs of precision {precision!r}; make "
            f"them with florence-onnx pull {source} --precision {precision}"
        )
    return folder


def is_demo(source: str | os.PathLike[str]) -> bool:
    """Tells whether ``source`` is the name of the shipped demo, and of no folder."""
    return source == "demo" and not Path(source).is_dir()


@cache
def _tell_what_the_demo_knows() -> None:
    say(
        "note: the demo model knows drawn scenes only; for photographs, leave --model out, as in "
        "florence-onnx run PICTURE --task od, or give a hub id"
    )


def local_folder(source: str | os.PathLike[str]) -> Path | None:
    """Finds the folder that ``source`` names; None where ``source`` can only be a hub id.

    If a process ended while it moved new files into the folder, the rest of the files is moved.

    Raises:
        ModelNotFoundError: ``source`` is no folder and has not the form of a hub id.
        ModelFileError: The new files cannot be moved.
    """
    if not isinstance(source, str | os.PathLike):
        raise ModelNotFoundError(
            f"a model is named by a folder or a hub id such as 'org/name', not by {source!r:.80}"
        )
    path = Path(source)
    try:
        folder = path if os.fspath(source) and path.is_dir() else None
        if path.parts[:1] == ("~",) and path.expanduser().is_dir():
            folder = path.expanduser()
        is_file = path.is_file()
        what = "a file, not a model folder" if is_file else "not an existing folder"
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home.
        folder, is_file, what = None, False, f"no folder that can be opened ({error})"
    if folder is not None:
        finish_replacement(folder)
        return folder
    if isinstance(source, str) and _HUB_ID.fullmatch(source) and not is_file:
        return None
    raise ModelNotFoundError(
        f"{os.fspath(source)!r} is {what}; give a folder or a hub id such as 'org/name'"
    )


def _check_encoding(folder: Path) -> None:
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise ModelNotFoundError(
            f"the name of {folder} is not UTF-8, as ONNX Runtime needs it; rename the folder"
        ) from None


def hub_model(
    repository: str,
    precision: Precision,
    access: Access,
    may_make: Callable[[], object] = lambda: None,
) -> Path:
    """Finds the folder of a hub model with its assets and the graphs of one precision.

    For a checkpoint, the folder is that of the model made of the checkpoint, which may lack
    precisions other than fp32.

    Args:
        repository: Hub id, ``"org/name"``.
        precision: The graphs to fetch.
        access: Which state of the repository is wanted.
        may_make: Called before the weights of a checkpoint are fetched; may raise an exception.

    Raises:
        ModelNotFoundError: There is no such repository, or the hub cannot be reached.
        PrecisionError: The precision is unknown, or the repository has no graphs of the precision.
        ModelFileError: Graphs that were made of the checkpoint are gone.
    """
    for name in [precision] if isinstance(precision, str) else precision.values():
        if name not in hub_contract.SUFFIXES:
            raise PrecisionError(
                f"unknown precision {name!r}; choose one of {', '.join(hub_contract.SUFFIXES)}"
            )
    folder = hub.cached(repository, access)
    needed = _needed(graph_files(folder), precision) if folder else []
    lacking = [name for name in needed if folder and not (folder / name).is_file()]
    if folder is not None and not lacking:
        return folder
    # These modules open models, and so import this module.
    from florence_onnx.model_cache import cached_model, make_model

    made = cached_model(repository, access, hub.commit_of(repository, folder) if folder else None)
    if made is None:
        if folder is None or not Contents.of_folder(folder).is_checkpoint:
            select = partial(_files_to_fetch, repository, precision)
            with suppress(_CheckpointFoundError):
                return hub.fetch(repository, access, select, lacking)
        may_make()
        made = make_model(repository, access)
    if "fp32" not in precisions_of(graph_files(made)):
        raise ModelFileError(
            f"{made} does not hold the whole model any more; remove the folder, and make it again "
            f"with florence-onnx pull {repository}"
        )
    return made


def _needed(names: Collection[str], precision: Precision) -> list[str]:
    """Selects from names the graphs of a precision and the files beside the graphs."""
    return [*contract.ASSETS, *layout_of(names, precision).files(names, precision).values()]


def _files_to_fetch(repository: str, precision: Precision, names: Collection[str]) -> list[str]:
    """Selects the files of a repository that a model needs at one precision.

    Raises:
        ModelNotFoundError: The repository holds no model.
        PrecisionError: The repository holds graphs, but none of this precision.
        _CheckpointFoundError: The repository holds a checkpoint.
    """
    contents = Contents(repository, names)
    if contents.is_checkpoint:
        raise _CheckpointFoundError
    refuse(contents.why_no_model())
    layout, others = layout_of(names, precision), precisions_of(names)
    if others and not layout.is_whole(names, precision):
        files = layout.files(names, precision).values() if layout.suits(precision) else ()
        missing = [file for file in files if file not in names]
        lacking = f": {', '.join(missing)} missing" if len(missing) < len(files) else ""
        raise PrecisionError(
            f"hub model {repository!r} has no graphs of precision {precision!r}{lacking}; "
            f"it has {', '.join(others)}"
        )
    needed = _needed(names, precision)
    absent = [name for name in needed if name not in names]
    if absent:
        raise ModelNotFoundError(f"hub model {repository!r} has no {', '.join(absent)}")
    return [name for name in names if graph_of(name) in needed]


def cached_folder(repository: str, access: Access) -> Path | None:
    """Finds the folder of a hub model in the cache, complete or not."""
    from florence_onnx.model_cache import cached_model

    folder = hub.cached(repository, access)
    commit = hub.commit_of(repository, folder) if folder else None
    return cached_model(repository, access, commit) or folder


class _CheckpointFoundError(FlorenceError):
    """Signals a repository of weights, from which graphs have to be made."""


def refuse(reason: str | None) -> None:
    """Raises ModelNotFoundError if there is a reason to."""
    if reason is not None:
        raise ModelNotFoundError(reason)
