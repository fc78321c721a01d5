"""Files that are read whole, with one line that says what is wrong with them."""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from florence_onnx.errors import FlorenceError, ModelFileError


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a regular file, or a link to one, for reading its bytes.

    A fifo would block and a device has no end, so what is no regular file is not even opened.

    Args:
        path: The file. It may be anything that a stranger names.

    Raises:
        OSError: The file is missing, unreadable or not a regular file, or this is no path;
            ``strerror`` says which.
    """
    try:
        # Before opening too: that alone makes some devices act, and a fifo's writer go on.
        _check_regular(Path(path).stat(), path)
        # Should it be replaced by a fifo meanwhile, opening it does not block.
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
    """The object in a JSON file.

    Args:
        path: The file.
        error: What is raised when the file is missing or holds something else.
    """
    try:
        with open_regular(path) as file:
            content = json.loads(file.read().decode("utf-8"))
    except FileNotFoundError:
        raise error(f"{path} is missing; a model folder or checkpoint needs it") from None
    except (OSError, ValueError) as reason:
        raise error(f"{path} cannot be read as JSON: {reason}") from reason
    if not isinstance(content, dict):
        raise error(f"{path} holds {type(content).__name__}, not a JSON object")
    return content
