"""Reasons why files of the hub cannot be fetched, in one line that says what to do."""

import errno
from collections.abc import Iterator
from pathlib import Path

from florence_onnx.terminal import one_line

_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
_BROKEN = {"RemoteProtocolError", "ReadError", "ChunkedEncodingError", "ProtocolError"}
"""Exceptions of HTTP clients when a connection ends in the middle of a file."""
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def why_not_fetched(
    error: Exception, repository: str, revision: str | None, cache: Path, state: str
) -> str:
    """Tells why a download failed.

    Args:
        error: Exception of the hub library, the HTTP client or the file system. Exceptions are told
            apart by name, because the HTTP client depends on the hub library's version.
        repository: Hub id of the repository.
        revision: The wanted revision; the main branch by default.
        cache: Folder of the hub library's cache.
        state: What the cache holds of the repository, as a clause.
    """
    causes = list(_causes(error))
    kinds = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    name = f"hub model {repository!r}"
    if "GatedRepoError" in kinds:
        return (
            f"{name} is gated: accept its terms on the hub or ask for access there, and {_LOG_IN}"
        )
    if "DisabledRepoError" in kinds:
        return f"{name} is disabled on the hub, so nobody can fetch it"
    if "RepositoryNotFoundError" in kinds:
        return (
            f"there is no folder {repository!r}, and {name} does not exist on the hub, or is "
            f"private: {_LOG_IN}, as somebody who may read it"
        )
    if "RevisionNotFoundError" in kinds:
        return f"{name} has no revision {revision!r}"
    status = next(filter(None, map(_status, causes)), None)
    if status == 401:
        return (
            f"the hub refuses {repository!r} (401): the login is missing, wrong or expired; "
            f"{_LOG_IN}"
        )
    if status == 403:
        return (
            f"the hub refuses {repository!r} (403): the login may not read it; ask its owner for "
            f"access, or {_LOG_IN} to a token with the permission"
        )
    if isinstance(error, UnicodeEncodeError):
        return f"the login holds {error.object[error.start]!r}, as no token does; {_LOG_IN}"
    # By type: urllib3's error for a refused connection is a TimeoutError of its own.
    late = any(isinstance(cause, TimeoutError) for cause in causes)
    if late or kinds & {"Timeout", "TimeoutException"}:
        return (
            f"{state}; the hub did not answer in time (HF_HUB_ETAG_TIMEOUT and "
            "HF_HUB_DOWNLOAD_TIMEOUT set how many seconds to wait)"
        )
    if has_broken(error):
        return f"the download of {name} broke off; run it again, and what has come stays"
    if kinds & {"ConnectionError", "TransportError"}:
        return f"{state}; the hub cannot be reached: {one_line(causes[-1])}"
    denied = any(getattr(cause, "errno", None) in _UNWRITABLE for cause in causes)
    return (
        f"{name} could not be fetched to {cache}: {type(error).__name__}: {one_line(error)}"
        f"{'; HF_HUB_CACHE, cache_dir or --cache-dir choose another folder' if denied else ''}"
    )


def has_broken(error: Exception) -> bool:
    """Tells whether a connection ended in the middle of a file."""
    kinds = {kind.__name__ for cause in _causes(error) for kind in type(cause).__mro__}
    return bool(kinds & _BROKEN) or "Consistency check failed" in str(error)


def _status(error: BaseException) -> int | None:
    """Finds the HTTP status of the answer that an exception is about."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Lists an error and its causes, the first cause last."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
