"""Models made from checkpoints of the hub, kept so that each is made once.

A model's folder is known by repository, commit and the version of the graph contract. The folder
appears whole or not at all. Two processes that want a model at once make the model once.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from florence_onnx.assets.ownership import exported_files, known_names
from florence_onnx.checkpoints.checkpoint import read_config
from florence_onnx.checkpoints.finding import find_checkpoint
from florence_onnx.engine import contract
from florence_onnx.engine.present import present_precisions
from florence_onnx.errors import (
    ExportError,
    FolderBusyError,
    ModelFileError,
    ModelNotFoundError,
    OutputExistsError,
)
from florence_onnx.exporting import export, needed_bytes
from florence_onnx.files import write_whole
from florence_onnx.hub import ANYHOW, Access, commit_of, hub_settings, split_source
from florence_onnx.skeletons.writing import require_skeleton, write_graphs
from florence_onnx.space import existing, require_space
from florence_onnx.terminal import say

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo

VARIABLE = "FLORENCE_ONNX_CACHE"
"""Environment variable with the cache's folder, by default ``florence-onnx`` at the hub's cache."""

_PAUSE = 0.2
_REFERENCES = "refs"
"""Folder beside a repository's models with the commits of branches and tags at the making."""


@dataclass(frozen=True)
class CachedModel:
    """Model in the cache."""

    repository: str
    """Hub id of the checkpoint."""
    commit: str
    """Commit of the checkpoint."""
    version: str
    """Version of the graph contract for which the model was made."""
    folder: Path
    """Folder of the model."""
    made: bool = True
    """Tells whether the model was made here; else it is a repository in the hub library's cache."""

    @property
    def opens(self) -> bool:
        """Tells whether this version of the package opens the model."""
        return self.version == str(contract.VERSION)

    @property
    def precisions(self) -> list[str]:
        """Precisions of the model."""
        return present_precisions(self.folder)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


def cache_folder(access: Access = ANYHOW) -> Path:
    """Finds the folder of the cache, which may not exist yet."""
    if access.cache_dir is not None:
        return access.cache_dir / "florence-onnx"
    named = os.environ.get(VARIABLE)
    if not named:
        return Path(hub_settings().HF_HOME) / "florence-onnx"
    try:
        return Path(named).expanduser()
    except RuntimeError as error:  # There is no such home.
        raise ModelNotFoundError(f"{VARIABLE} is {named!r}, which is no folder: {error}") from error


def cached_models(access: Access = ANYHOW) -> Iterator[CachedModel]:
    """Lists the models in the cache, by name."""
    for folder in sorted(cache_folder(access).glob("*--*/*-*")):
        commit, _, version = folder.name.rpartition("-")
        if version.isdecimal() and folder.is_dir():
            repository = folder.parent.name.replace("--", "/", 1)
            repository = repository.replace("@", ":").replace("+", "/")
            yield CachedModel(repository, commit, version, folder)
    for found in _fetched(access):
        for state in sorted(found.revisions, key=lambda state: state.commit_hash):
            if present_precisions(state.snapshot_path):
                yield CachedModel(
                    found.repo_id,
                    state.commit_hash,
                    str(contract.VERSION),
                    state.snapshot_path,
                    made=False,
                )


def _fetched(access: Access) -> "list[CachedRepoInfo]":
    """Lists the repositories in the hub library's cache, by name."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        found = scan_cache_dir(access.cache).repos
    except (CacheNotFound, ValueError, OSError):
        return []
    models = (repository for repository in found if repository.repo_type == "model")
    return sorted(models, key=lambda repository: repository.repo_id)


def cached_model(repository: str, access: Access, commit: str | None = None) -> Path | None:
    """Finds the folder of a repository's model; None where there is no model.

    Args:
        repository: Hub id, ``"org/name"``.
        access: The wanted state of the repository.
        commit: The commit, if known; by default the commit of the last model made of this state.
    """
    if commit is None and not access.refresh:
        reference = _reference(repository, access)
        try:
            commit = reference.read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            commit = access.revision
    folder = _folder(repository, commit, access) if commit else None
    return folder if folder and folder.is_dir() else None


def make_model(repository: str, access: Access) -> Path:
    """Finds the folder of a hub checkpoint's model, or makes the model.

    Args:
        repository: Hub id, ``"org/name"``.
        access: The wanted state of the repository.

    Raises:
        ModelNotFoundError: The repository cannot be had.
        CheckpointError: The repository does not hold a Florence-2 of a released geometry.
        DiskSpaceError: The disk has too little free space.
        ExportError: The cache cannot be written.
    """
    checkpoint = find_checkpoint(repository, access, partial(_accept, repository, access))
    commit = commit_of(repository, checkpoint)
    folder = _folder(repository, commit, access)
    if not folder.is_dir():
        _require_writable(access)
        say(f"making ONNX graphs of {repository} in {folder}")
    pinned = replace(access, revision=commit)  # The branch may move meanwhile.
    waiting = False
    while not folder.is_dir():
        try:
            export(repository, folder, write_graphs, access=pinned, progress=say)
        except OutputExistsError:
            if not folder.is_dir():
                raise
        except FolderBusyError:
            if not waiting:
                say(f"waiting for another process that makes {folder}")
            waiting = True
            time.sleep(_PAUSE)
    if access.revision != commit:
        with suppress(OSError):  # The hub's cache says the same, as long as it is there.
            write_whole(_reference(repository, access), commit)
    return folder


def _accept(repository: str, access: Access, checkpoint: Path, coming: int) -> None:
    """Refuses a checkpoint that cannot become a model, before the weights are fetched."""
    if _folder(repository, commit_of(repository, checkpoint), access).is_dir():
        return  # Nothing will be written.
    config = read_config(checkpoint)
    require_skeleton(config, str(checkpoint))
    _require_writable(access)
    cache = cache_folder(access)
    disks = {existing(folder).stat().st_dev for folder in (cache, access.cache)}
    needed = needed_bytes(config) + (coming if len(disks) == 1 else 0)
    require_space(cache, needed, "making ONNX graphs of the checkpoint")


def _require_writable(access: Access) -> None:
    """Raises ExportError where nothing can be written to the cache."""
    cache = cache_folder(access)
    place = next(path for path in (cache, *cache.absolute().parents) if os.path.lexists(path))
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise ExportError(
            f"models are made in {cache}, which cannot be written; {VARIABLE}, cache_dir or "
            "--cache-dir choose another folder"
        )


def remove(repository: str, access: Access = ANYHOW) -> int:
    """Removes the models of a repository from the cache. Other files stay.

    Args:
        repository: Hub id, ``"org/name"``.
        access: Where the cache is.

    Returns:
        Bytes freed.

    Raises:
        ModelNotFoundError: There is no model of the repository.
        ModelFileError: Files cannot be removed, such as on a read-only disk.
    """
    found = [model for model in cached_models(access) if model.repository == repository]
    if not found:
        there = ", ".join(sorted({model.repository for model in cached_models(access)})) or "none"
        raise ModelNotFoundError(f"no model of {repository!r} is in the cache; there are: {there}")
    for folder in (place for model in found for place in (model.folder, model.folder.parent)):
        if not os.access(folder, os.W_OK):
            raise ModelFileError(f"{repository} cannot be removed: {folder} cannot be written")
    try:
        freed = sum(_remove_made(model) for model in found if model.made)
        commits = [model.commit for model in found if not model.made]
        if commits:
            freed += _remove_fetched(repository, commits, access)
        home = _home(repository, access)
        shutil.rmtree(home / _REFERENCES, ignore_errors=True)
        _remove_empty(home)
    except ModelFileError:
        raise
    except OSError as error:
        raise ModelFileError(
            f"{repository} cannot be removed as a whole: {error.filename}: {error.strerror}"
        ) from error
    return freed


def fetched_bytes(repository: str, access: Access = ANYHOW) -> int:
    """Counts the bytes of a repository's files in the hub library's cache."""
    return sum(found.size_on_disk for found in _fetched(access) if found.repo_id == repository)


def _remove_made(model: CachedModel) -> int:
    before = model.size
    names = known_names()  # Also of files that are damaged.
    with suppress(OutputExistsError, ModelFileError):  # The report is gone or damaged.
        names |= exported_files(model.folder)
    for name in names:
        (model.folder / name).unlink(missing_ok=True)
    for folder in (model.folder / "onnx", model.folder):
        _remove_empty(folder)
    return before - (model.size if model.folder.is_dir() else 0)


def _remove_fetched(repository: str, commits: list[str], access: Access) -> int:
    from huggingface_hub import scan_cache_dir

    # Copies of a repository have the same commits.
    ours = frozenset(found for found in _fetched(access) if found.repo_id == repository)
    plan = replace(scan_cache_dir(access.cache), repos=ours).delete_revisions(*commits)
    plan.execute()
    return int(plan.expected_freed_size)


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _folder(repository: str, commit: str, access: Access) -> Path:
    return _home(repository, access) / f"{commit}-{contract.VERSION}"


def _reference(repository: str, access: Access) -> Path:
    # A branch may be called refs/pr/1.
    name = (access.revision or "main").replace("/", "--")
    return _home(repository, access) / _REFERENCES / name


def _home(repository: str, access: Access) -> Path:
    name, inside = split_source(repository)
    name = name.replace("/", "--", 1)
    # No hub id holds these signs, and every file system takes them.
    return cache_folder(access) / (f"{name}@{inside.replace('/', '+')}" if inside else name)
