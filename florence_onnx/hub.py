"""Repositories of the hub: found in the cache, or fetched with a limit to every wait."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path, PurePosixPath

from florence_onnx.errors import FlorenceError, ModelNotFoundError
from florence_onnx.files import write_whole
from florence_onnx.terminal import one_line, standard_error

_SHOWN = 3


def cached(repository: str, revision: str | None) -> Path | None:
    """The folder of a repository's files in the cache, whole or not; None without its config.json.

    Args:
        repository: Hub id, ``"org/name"``.
        revision: Branch, tag or commit; the main branch by default.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repository, "config.json", revision=revision)
    except (HFValidationError, OSError):
        return None  # `fetch` says what is wrong.
    return Path(found).parent if isinstance(found, str) else None


def fetch(
    repository: str,
    revision: str | None,
    select: Callable[[Collection[str]], Sequence[str]],
    lacking: Sequence[str] = (),
) -> Path:
    """Fetches files of a repository into the cache, those that are not there.

    Args:
        repository: Hub id, ``"org/name"``.
        revision: Branch, tag or commit; the main branch by default.
        select: Given the names of all files, those to fetch: one at least, or an exception.
        lacking: What the cached folder lacks; empty when nothing is cached.

    Returns:
        The folder of the files.

    Raises:
        ModelNotFoundError: The repository or revision does not exist, or the hub cannot be reached
            or does not answer in time, or the files cannot be written.
    """
    from huggingface_hub import (
        HfApi,
        constants,
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
    )

    # Not snapshot_download, which waits for the list of files without a limit.
    limit = constants.HF_HUB_ETAG_TIMEOUT
    try:
        info = HfApi().model_info(repository, revision=revision, timeout=limit)
        names = select([file.rfilename for file in info.siblings or ()])
        # The progress bars fail where stderr is None.
        with redirect_stderr(standard_error()), _over_http():
            for name in sorted(names, key=lambda name: name != "config.json"):
                # hf_hub_download asks the same, and up to seven times for a minute each.
                get_hf_file_metadata(hf_hub_url(repository, name, revision=info.sha), timeout=limit)
                path = hf_hub_download(repository, name, revision=info.sha, etag_timeout=limit)
                folder = Path(path).parents[len(PurePosixPath(name).parts) - 1]
                if revision != folder.name:
                    _refer(folder.parents[1] / "refs" / (revision or "main"), folder.name)
    except FlorenceError:
        raise
    except Exception as error:  # Which HTTP client raises depends on the hub library's version.
        raise ModelNotFoundError(_reason(error, repository, revision, lacking)) from error
    return folder


@contextmanager
def _over_http() -> Iterator[None]:
    """Has files come over plain HTTP: hf_xet waits for a silent server without a limit."""
    from huggingface_hub import constants

    before = getattr(constants, "HF_HUB_DISABLE_XET", False)
    constants.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


def _refer(reference: Path, commit: str) -> None:
    """Writes which commit a branch or tag is, by which the hub library finds it in the cache."""
    if reference.is_file() and reference.read_text(encoding="utf-8") == commit:
        return
    write_whole(reference, commit)


def _reason(error: Exception, repository: str, revision: str | None, lacking: Sequence[str]) -> str:
    from huggingface_hub import constants

    causes = list(_causes(error))
    kinds = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    name = f"hub model {repository!r}"
    # What is typed as a hub id may be meant as a path.
    either = f"there is no folder {repository!r}, and {name}"
    if "GatedRepoError" in kinds:
        return f"{name} is gated: accept its terms on the hub and log in with `hf auth login`"
    if "RepositoryNotFoundError" in kinds:
        return f"{either} does not exist on the hub, or is private and you are not logged in"
    if "RevisionNotFoundError" in kinds:
        return f"{name} has no revision {revision!r}"
    more = f" and {len(lacking) - _SHOWN} more files" if len(lacking) > _SHOWN else ""
    state = (
        f"{name} is in the cache, but without {', '.join(lacking[:_SHOWN])}{more}"
        if lacking
        else f"{either} is not in the cache"
    )
    # By type: urllib3's error for a refused connection is a TimeoutError of its own.
    late = any(isinstance(cause, TimeoutError) for cause in causes)
    if late or kinds & {"Timeout", "TimeoutException"}:
        return (
            f"{state}; the hub did not answer in time (HF_HUB_ETAG_TIMEOUT and "
            "HF_HUB_DOWNLOAD_TIMEOUT set how many seconds to wait)"
        )
    if kinds & {"ConnectionError", "TransportError"}:
        return f"{state}; the hub cannot be reached: {one_line(causes[-1])}"
    return (
        f"{name} could not be fetched to {constants.HF_HUB_CACHE}: "
        f"{type(error).__name__}: {one_line(error)}"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, the first cause last."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
