"""Reading and writing of whole files, with errors of one line."""

import codecs
import errno
import json
import math
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from florence_onnx.errors import FlorenceError, ModelFileError

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LARGEST_JSON = 8 << 20  # A published tokenizer_config.json has 4.8 MB.
_DEEPEST_JSON = 32
_TOO_DEEP = f" is nested deeper than {_DEEPEST_JSON} levels"
_MOST_DIGITS = 40  # transformers writes 10**30 for "no limit".


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a regular file, or a link to a regular file, to read its bytes.

    A fifo would block and a device has no end, so only regular files are opened.

    Args:
        path: The file. A stranger may name anything.

    Raises:
        OSError: The file is missing, unreadable or not a regular file, or this is no path;
            ``strerror`` says which.
    """
    try:
        # Before opening too: opening makes some devices act, and releases the writer of a fifo.
        _check_regular(Path(path).stat(), path)
        # If the file is replaced by a fifo meanwhile, opening does not block.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags), "rb")
    except ValueError as error:  # a null character, or one that the file system cannot write
        raise OSError(errno.EINVAL, str(error), os.fspath(path)) from error
    try:
        _check_regular(os.fstat(file.fileno()), path)
    except OSError:
        file.close()
        raise
    return file


def _check_regular(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))


def read_json(path: Path, error: type[FlorenceError] = ModelFileError) -> dict[str, Any]:
    """Reads the object in a JSON file.

    Args:
        path: The file.
        error: Error to raise when the file is missing, or `parse_json` refuses the content.
    """
    try:
        with open_regular(path) as file:
            data = file.read(_LARGEST_JSON + 1)
    except FileNotFoundError:
        raise error(f"{path} is missing; a model folder or checkpoint needs it") from None
    except OSError as reason:
        raise error(f"{path} cannot be read as JSON: {reason}") from reason
    refuse_pointer(data, str(path), error)
    return parse_json(data, str(path), error)


def parse_json(
    data: bytes, name: str, error: type[FlorenceError], largest: int = _LARGEST_JSON
) -> dict[str, Any]:
    """Reads the object that bytes of JSON describe.

    Numbers are finite and have at most 40 digits before the point, strings can be written as
    UTF-8, and nothing is nested deeper than 32 levels, so that whatever is read can be compared,
    computed with, printed and written. Of a name that occurs twice, the last value counts.

    Args:
        data: UTF-8 without a byte order mark.
        name: Name of the bytes in the message.
        error: Error to raise for any other bytes.
        largest: How many bytes there may be.
    """
    try:
        if len(data) > largest:
            raise ValueError(f"it is larger than {largest >> 20} MiB")
        if data.startswith(codecs.BOM_UTF8):
            raise ValueError("it begins with a byte order mark; save it as UTF-8 without one")
        content = json.loads(data.decode("utf-8"), parse_int=_whole_number)
    except RecursionError:
        raise error(f"{name}{_TOO_DEEP}") from None
    except ValueError as reason:
        raise error(f"{name} cannot be read as JSON: {reason}") from reason
    if not isinstance(content, dict):
        raise error(f"{name} holds {type(content).__name__}, not a JSON object")
    flaw = _flaw(content, 0)
    if flaw is not None:
        raise error(f"{name}: {flaw[1:]}" if flaw.startswith(".") else name + flaw)
    return content


def refuse_lfs_pointer(path: Path, error: type[FlorenceError]) -> None:
    """Raises ``error`` if a file is a pointer of Git LFS; else does nothing."""
    try:
        with open_regular(path) as file:
            start = file.read(len(_LFS_POINTER))
    except OSError:
        return  # The reader of the file reports the error.
    refuse_pointer(start, str(path), error)


def refuse_pointer(content: bytes, name: str, error: type[FlorenceError]) -> None:
    """Raises ``error`` if bytes are, or begin with, a pointer of Git LFS."""
    if content.startswith(_LFS_POINTER):
        raise error(
            f"{name} is a Git LFS pointer, not the file itself; run `git lfs pull` to fetch the "
            "file"
        )


def _whole_number(digits: str) -> int:
    """Reads a number; returns another number beyond the limit for a number with too many digits."""
    return int(digits[: _MOST_DIGITS + 2])


def _flaw(value: object, depth: int) -> str | None:
    """Finds the first flaw of a JSON value, as a sentence with the field's path; None without."""
    if isinstance(value, str):
        return None if _is_unicode(value) else " holds half of a surrogate pair, which is no text"
    if isinstance(value, float) and not math.isfinite(value):
        return f" is {value}, but must be finite"
    if isinstance(value, int) and abs(value) >= 10**_MOST_DIGITS:
        return f" is a number of more than {_MOST_DIGITS} digits"
    if not isinstance(value, dict | list):
        return None
    if depth == _DEEPEST_JSON:
        return _TOO_DEEP
    if isinstance(value, dict) and not all(map(_is_unicode, value)):
        return " has a name that holds half of a surrogate pair, which is no text"
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        flaw = _flaw(item, depth + 1)
        if flaw is not None:
            plain = isinstance(key, int) or key.isidentifier()
            return f".{key if plain else repr(key)[:80]}{flaw}"
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def named(path: Path, hidden: Path) -> Iterator[None]:
    """Has errors about files name what the user has named.

    Args:
        path: Name for a full disk, whose errors name no file, and in place of ``hidden``.
        hidden: File or folder with a name that the user does not know.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _FULL:
            name = path
        elif isinstance(error.filename, str) and Path(error.filename).is_relative_to(hidden):
            name = path / Path(error.filename).relative_to(hidden)
        else:
            raise
        raise OSError(error.errno, os.strerror(error.errno or 0), os.fspath(name)) from error


_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextmanager
def whole_file(path: Path, unfinished: Path | None = None) -> Iterator[Path]:
    """Yields a path to write to; the file written there becomes ``path`` when the block succeeds.

    An exception, a full disk or a kill leaves an old file at ``path`` unchanged. The new file has
    the permissions that the umask gives. Where ``path`` is a link, the target of the link is
    replaced.

    Args:
        path: File to write. A missing folder is made.
        unfinished: Folder for the unfinished file, on the file system of ``path``; by default the
            folder of ``path``.

    Raises:
        OSError: The file cannot be written, or ``path`` is read-only or no regular file.
    """
    given, path = path, Path(os.path.realpath(path))
    if path.exists():
        _check_regular(path.stat(), path)
        if not os.access(path, os.W_OK):  # A rename would replace the file all the same.
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
    partial = (unfinished or path.parent) / f".partial-{secrets.token_hex(8)}{path.suffix}"
    with folder_made(path.parent):
        try:
            with named(given, partial):
                yield partial
                flush(partial)
                partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise


def write_whole(path: Path, content: str | bytes, unfinished: Path | None = None) -> None:
    """Writes a file, text in UTF-8, as `whole_file` does."""
    with whole_file(path, unfinished) as partial:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def folder_made(folder: Path) -> Iterator[None]:
    """Makes a folder with its parents. What is new and empty when the block ends is removed."""
    new = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:  # Another process has just removed a parent that is empty.
            folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for place in new:
            with suppress(OSError):
                place.rmdir()


def flush(path: Path) -> None:
    """Waits until a file is on the disk. Some file systems report a full disk only then."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
