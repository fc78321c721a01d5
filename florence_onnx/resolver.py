"""Where a model is: a folder, a repository of the hub, or the shipped demo; and its precision."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from florence_onnx.engine import contract
from florence_onnx.engine.precision import AUTO, suitable_precisions
from florence_onnx.engine.providers import Providers, providers_by_graph, require_onnxruntime
from florence_onnx.engine.sessions import present_precisions
from florence_onnx.errors import ModelNotFoundError, PrecisionError

DEMO = Path(__file__).parent / "demo"

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def resolve(
    source: str | os.PathLike[str], *, precision: str = "fp32", revision: str | None = None
) -> Path:
    """The folder that holds a model, downloaded if need be.

    Args:
        source: An existing folder, a hub id (``"org/name"``), or ``"demo"``, looked up in this
            order. What looks like a path is never looked up on the hub.
        precision: The graphs to fetch when ``source`` is a hub id.
        revision: Branch, tag or commit of a hub repository; its main branch by default. A
            snapshot that is already in the cache is used as it is, without asking the hub.

    Raises:
        ModelNotFoundError: There is no such folder or repository, or the hub cannot be reached.
        PrecisionError: ``precision`` is not one of ``contract.PRECISIONS``.
    """
    if source == "demo" and not Path(source).is_dir():
        if not DEMO.is_dir():
            raise ModelNotFoundError("this installation of florence-onnx ships no demo model")
        return DEMO
    folder = local_folder(source)
    if folder is not None:
        return folder
    if precision not in contract.PRECISIONS:
        raise PrecisionError(
            f"unknown precision {precision!r}; choose one of {', '.join(contract.PRECISIONS)}"
        )
    files = [contract.graph_file(graph, precision) for graph in contract.GRAPHS]
    required = [*contract.ASSETS, *files]
    beside = [name + contract.DATA_SUFFIX for name in files]
    return download(str(source), [*required, *beside], revision, required)


def locate(
    source: str | os.PathLike[str], precision: str, providers: Providers | None
) -> tuple[Path, str]:
    """The folder of a model and the precision to open there.

    Args:
        source: A model folder, a hub id, or ``"demo"``.
        precision: The precision asked for; ``"auto"`` for the first of `suitable_precisions` that
            the model has. Any other is passed on unchecked.
        providers: What the graphs are to run on.

    Raises:
        ModelNotFoundError: There is no such model.
        PrecisionError: The model has no precision that suits.
        ProviderError: A provider cannot be had.
    """
    if precision != AUTO:
        return resolve(source, precision=precision), precision
    require_onnxruntime()
    suitable = suitable_precisions(providers_by_graph(providers))
    for name in suitable:
        folder = resolve(source, precision=name)
        present = present_precisions(folder)
        if name in present:
            return folder, name
    raise PrecisionError(
        f"{folder} has no precision that suits these providers and this processor "
        f"({', '.join(suitable)}); present: {', '.join(present) or 'none complete'}"
    )


def local_folder(source: str | os.PathLike[str]) -> Path | None:
    """The folder that ``source`` names, or None when it can only be a hub id.

    Raises:
        ModelNotFoundError: ``source`` is neither a folder nor what a hub id looks like.
    """
    path = Path(source)
    if os.fspath(source) and path.is_dir():
        return path
    if isinstance(source, str) and _HUB_ID.fullmatch(source):
        return None
    what = "a file, not a model folder" if path.is_file() else "not an existing folder"
    raise ModelNotFoundError(
        f"{os.fspath(source)!r} is {what}; give a folder or a hub id such as 'org/name'"
    )


def download(
    repository: str, patterns: Sequence[str], revision: str | None, required: Sequence[str]
) -> Path:
    """The cached snapshot of a hub repository, fetched unless ``required`` files are there.

    Args:
        repository: Hub id, ``"org/name"``.
        patterns: Names or glob patterns of the files that may be fetched.
        revision: Branch, tag or commit; the main branch by default.
        required: Files without which a cached snapshot is fetched again.

    Raises:
        ModelNotFoundError: The repository, revision or hub cannot be had.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    def snapshot(cached: bool) -> Path:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(patterns),
                local_files_only=cached,
            )
        )

    try:
        folder = snapshot(cached=True)
        if all((folder / name).is_file() for name in required):
            return folder
    except (LocalEntryNotFoundError, HFValidationError):
        pass  # the second attempt says what is wrong
    try:
        return snapshot(cached=False)
    except Exception as error:  # which HTTP client raises depends on the hub library's version
        reason = _reason(error, revision)
        raise ModelNotFoundError(f"hub model {repository!r} {reason}") from error


def _reason(error: Exception, revision: str | None) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return "is gated: accept its terms on the hub and log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "does not exist on the hub, or is private and you are not logged in"
    if isinstance(error, RevisionNotFoundError):
        return f"has no revision {revision!r}"
    if isinstance(error, LocalEntryNotFoundError):
        return "is not complete in the cache, and the hub cannot be reached"
    lines = str(error).splitlines() or [""]
    return f"could not be fetched: {type(error).__name__}: {lines[0]}"
