"""Models made from checkpoints of the hub, kept so that each is made once.

A model's folder is known by repository, commit and the version of the graph contract. It appears
whole or not at all, and two processes that want it at once make it once.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from florence_onnx.assets.ownership import exported_files
from florence_onnx.checkpoints.finding import find_checkpoint
from florence_onnx.engine import contract
from florence_onnx.engine.sessions import present_precisions
from florence_onnx.errors import FolderBusyError, ModelNotFoundError, OutputExistsError
from florence_onnx.exporting import export
from florence_onnx.skeletons.writing import write_graphs
from florence_onnx.terminal import say

VARIABLE = "FLORENCE_ONNX_CACHE"
"""Names the cache's folder; without it, the folder ``florence-onnx`` beside the hub's own cache."""

_PAUSE = 0.2


@dataclass(frozen=True)
class CachedModel:
    """A model in the cache."""

    repository: str
    """Hub id of its checkpoint."""
    commit: str
    """The checkpoint's commit."""
    folder: Path
    """Where it is."""

    @property
    def precisions(self) -> list[str]:
        """The precisions it has."""
        return present_precisions(self.folder)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


def cache_folder() -> Path:
    """The folder of the cache, which may not exist yet."""
    from huggingface_hub import constants

    named = os.environ.get(VARIABLE)
    if not named:
        return Path(constants.HF_HOME) / "florence-onnx"
    try:
        return Path(named).expanduser()
    except RuntimeError as error:  # There is no such home.
        raise ModelNotFoundError(f"{VARIABLE} is {named!r}, which is no folder: {error}") from error


def cached_models() -> Iterator[CachedModel]:
    """The models in the cache that this version opens, by name."""
    ending = f"-{contract.VERSION}"
    for folder in sorted(cache_folder().glob(f"*--*/*{ending}")):
        if folder.is_dir():
            repository = folder.parent.name.replace("--", "/", 1)
            yield CachedModel(repository, folder.name.removesuffix(ending), folder)


def cached_model(repository: str, commit: str) -> Path | None:
    """The folder of the model made of a commit, None where there is none."""
    folder = _folder(repository, commit)
    return folder if folder.is_dir() else None


def make_model(repository: str, revision: str | None) -> Path:
    """The folder of a hub checkpoint's model, made unless it is in the cache.

    Args:
        repository: Hub id, ``"org/name"``.
        revision: Branch, tag or commit; the main branch by default.

    Raises:
        ModelNotFoundError: The repository cannot be had.
        CheckpointError: It does not hold a Florence-2 of a released geometry.
        ExportError: The cache cannot be written.
    """
    checkpoint = find_checkpoint(repository, revision)
    folder = _folder(repository, checkpoint.name)
    if not folder.is_dir():
        say(f"making ONNX graphs of {repository} in {folder}")
    waiting = False
    while not folder.is_dir():
        try:
            export(checkpoint, folder, write_graphs)
        except OutputExistsError:
            if not folder.is_dir():
                raise
        except FolderBusyError:
            if not waiting:
                say(f"waiting for another process that makes {folder}")
            waiting = True
            time.sleep(_PAUSE)
    return folder


def remove(repository: str) -> int:
    """Removes the models of a repository from the cache; what is not theirs stays.

    Returns:
        Bytes freed.

    Raises:
        ModelNotFoundError: There is none.
    """
    found = [model for model in cached_models() if model.repository == repository]
    if not found:
        there = ", ".join(sorted({model.repository for model in cached_models()})) or "none"
        raise ModelNotFoundError(f"no model of {repository!r} is in the cache; there are: {there}")
    freed = 0
    for model in found:
        before = model.size
        for name in exported_files(model.folder):
            (model.folder / name).unlink()
        for folder in (model.folder / "onnx", model.folder, model.folder.parent):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        freed += before - (model.size if model.folder.is_dir() else 0)
    return freed


def _folder(repository: str, commit: str) -> Path:
    return cache_folder() / repository.replace("/", "--", 1) / f"{commit}-{contract.VERSION}"
