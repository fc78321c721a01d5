"""Repositories of the hub: found in the cache, or fetched with a limit to every wait."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from florence_onnx.errors import FlorenceError, ModelNotFoundError
from florence_onnx.files import write_whole
from florence_onnx.hub_errors import has_broken, why_not_fetched
from florence_onnx.space import require_space
from florence_onnx.terminal import say, size_text, standard_error

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

_SHOWN = 3


@dataclass(frozen=True)
class Access:
    """Access to a repository: the wanted state, and the allowed sources."""

    revision: str | None = None
    """Branch, tag or commit; the main branch by default."""
    cache_dir: Path | None = None
    """Folder for fetched files and made models, in place of the hub library's cache and of ours."""
    local_files_only: bool = False
    """Tells whether the hub is never asked."""
    refresh: bool = False
    """Tells whether the hub is asked for a branch of which the cache knows an earlier state."""

    @property
    def cache(self) -> Path:
        """Folder of the hub library's cache."""
        return self.cache_dir or Path(hub_settings().HF_HUB_CACHE)


def hub_settings() -> Any:
    """Imports the constants of the hub library, which come from the environment.

    Raises:
        ModelNotFoundError: The hub library cannot read the value of an environment variable.
    """
    try:
        from huggingface_hub import constants
    except ValueError as error:
        raise ModelNotFoundError(
            f"an environment variable HF_… of the hub library is wrong: {error}"
        ) from error
    return constants


ANYHOW = Access()
"""Access to the main branch, from the usual cache or the hub."""


def split_source(source: str) -> tuple[str, str]:
    """Splits a hub id ``"org/name:folder"`` into repository and folder; empty for the root."""
    repository, _, folder = source.partition(":")
    return repository, folder


def commit_of(source: str, folder: Path) -> str:
    """Finds the commit of files in a folder of the cache."""
    inside = split_source(source)[1]
    return (folder.parents[inside.count("/")] if inside else folder).name


def cached(source: str, access: Access, name: str = "config.json") -> Path | None:
    """Finds the folder of a hub id's files in the cache, whole or not; None without the file.

    Args:
        source: Hub id, ``"org/name"`` or ``"org/name:folder"``.
        access: The wanted state of the repository.
        name: File that must be in the cache.
    """
    settings = hub_settings()
    from huggingface_hub import try_to_load_from_cache

    repository, inside = split_source(source)
    if access.refresh and not (access.local_files_only or settings.HF_HUB_OFFLINE):
        return None
    try:
        found = try_to_load_from_cache(
            repository,
            str(PurePosixPath(inside, name)),
            cache_dir=access.cache,
            revision=access.revision or None,
        )
    except (ValueError, OSError):
        return None  # `fetch` says what is wrong.
    return Path(found).parent if isinstance(found, str) else None


def fetch(
    source: str,
    access: Access,
    select: Callable[[Collection[str]], Sequence[str]],
    lacking: Sequence[str] = (),
    accept: Callable[[Path, int], object] = lambda folder, coming: None,
) -> Path:
    """Fetches files of a repository into the cache, if the files are not in the cache.

    Before the download, a line on stderr tells the files, their size and the folder.

    Args:
        source: Hub id, ``"org/name"`` or ``"org/name:folder"`` for the files of a folder only.
        access: The wanted state of the repository, and the cache.
        select: Chooses from the names of all files the files to fetch, at least one; may raise.
        lacking: Files that the cached folder lacks; empty when nothing is cached.
        accept: Called with the folder when config.json is there, and the bytes of the files to
            come; an exception ends the download.

    Returns:
        The folder of the files.

    Raises:
        ModelNotFoundError: The repository, revision or folder does not exist, or the hub cannot be
            reached or does not answer in time or may not be asked, or the files cannot be written.
        DiskSpaceError: The disk has too little free space.
    """
    repository, inside = split_source(source)
    start = f"{inside}/" if inside else ""
    if access.local_files_only:
        state = _state(repository, access, lacking)
        raise ModelNotFoundError(f"{state}, and the hub is not asked: local files only")
    try:
        info, files = _listed(repository, inside, access.revision)
        names = sorted(select(list(files)), key=lambda name: name != "config.json")
        coming = _coming(repository, [files[name] for name in names], info, access.cache)
        # The progress bars fail where stderr is None.
        with redirect_stderr(standard_error()), _over_http():
            for name in names:
                folder = _fetch_file(repository, start + name, str(info.sha), access) / inside
                if name == "config.json":
                    accept(folder, coming)
    except FlorenceError:
        raise
    except Exception as error:  # Which HTTP client raises depends on the hub library's version.
        state = _state(repository, access, lacking)
        reason = why_not_fetched(error, repository, access.revision, access.cache, state)
        raise ModelNotFoundError(reason) from error
    return folder


def _listed(
    repository: str, inside: str, revision: str | None
) -> "tuple[ModelInfo, dict[str, RepoSibling]]":
    """Asks the hub for the files of a repository, or of a folder in the repository, by name."""
    limit = hub_settings().HF_HUB_ETAG_TIMEOUT
    from huggingface_hub import HfApi

    # Not snapshot_download, which waits for the list of files without a limit.
    info = HfApi().model_info(
        repository, revision=revision or None, timeout=limit, files_metadata=True
    )
    listed, start = info.siblings or (), f"{inside}/" if inside else ""
    files = {
        file.rfilename.removeprefix(start): file
        for file in listed
        if file.rfilename.startswith(start)
    }
    if inside and not files:
        raise _no_folder(repository, inside, [file.rfilename for file in listed])
    return info, files


def _no_folder(repository: str, inside: str, names: Collection[str]) -> ModelNotFoundError:
    folders = sorted({str(parent) for name in names for parent in PurePosixPath(name).parents})
    there = ", ".join(folder for folder in folders if folder != ".") or "none"
    return ModelNotFoundError(
        f"hub model {repository!r} has no folder {inside!r}; its folders are: {there[:500]}"
    )


def _coming(repository: str, files: Sequence["RepoSibling"], info: "ModelInfo", cache: Path) -> int:
    """Counts the bytes of files that are not in the cache; prints a line on stderr if any."""
    home = cache / f"models--{repository.replace('/', '--')}"
    absent = [
        file
        for file in files
        if not (home / "snapshots" / str(info.sha) / file.rfilename).is_file()
        # Another commit may have the same weights.
        and not (home / "blobs" / (file.lfs["sha256"] if file.lfs else str(file.blob_id))).is_file()
    ]
    size = sum(file.size or 0 for file in absent)
    if absent:
        what = f"{len(absent)} file{'s' * (len(absent) > 1)} of {repository}"
        require_space(cache, size, f"fetching {what}")
        say(f"fetching {what}, {size_text(size)}, to {cache}")
    return size


def _fetch_file(repository: str, name: str, commit: str, access: Access) -> Path:
    """Fetches a file of a commit into the cache; returns the folder of the commit."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    limit = hub_settings().HF_HUB_ETAG_TIMEOUT
    # hf_hub_download asks the same, and up to seven times for a minute each.
    get_hf_file_metadata(hf_hub_url(repository, name, revision=commit), timeout=limit)
    download = partial(hf_hub_download, repository, name, revision=commit, cache_dir=access.cache)
    try:
        path = download(etag_timeout=limit)
    except Exception as error:
        if not has_broken(error):
            raise
        path = download(etag_timeout=limit)  # Older hub libraries give up at the first break.
    folder = Path(path).parents[len(PurePosixPath(name).parts) - 1]
    if access.revision != folder.name:
        _refer(folder.parents[1] / "refs" / (access.revision or "main"), folder.name)
    return folder


@contextmanager
def _over_http() -> Iterator[None]:
    """Switches to plain HTTP, because hf_xet waits for a silent server without a limit."""
    settings = hub_settings()
    before = getattr(settings, "HF_HUB_DISABLE_XET", False)
    settings.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        settings.HF_HUB_DISABLE_XET = before


def _refer(reference: Path, commit: str) -> None:
    """Writes the commit of a branch or tag into the cache, where the hub library looks it up."""
    if reference.is_file() and reference.read_text(encoding="utf-8") == commit:
        return
    write_whole(reference, commit)


def _state(repository: str, access: Access, lacking: Sequence[str]) -> str:
    """Finds the files of a repository in the cache."""
    name = f"hub model {repository!r}"
    more = f" and {len(lacking) - _SHOWN} more files" if len(lacking) > _SHOWN else ""
    if lacking:
        return f"{name} is in the cache, but without {', '.join(lacking[:_SHOWN])}{more}"
    if access.refresh and cached(repository, replace(access, refresh=False)):
        return f"{name} is in the cache, but whether it has changed cannot be asked"
    # What is typed as a hub id may be meant as a path.
    return f"there is no folder {repository!r}, and {name} is not in the cache"
