"""JSON lines that are appended whole, and what a killed process leaves of them."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from florence_onnx.errors import InputError

_CHUNK = 1 << 16


def write_line(record: Mapping[str, Any]) -> bytes:
    """A record as a line of JSON in UTF-8."""
    try:
        return (json.dumps(record, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # The name of a file that is no UTF-8.
        return (json.dumps(record) + "\n").encode()


class Journal:
    """A file to which lines are appended; several at once, or none of them."""

    def __init__(self, path: Path) -> None:
        """Opens the file, or makes it.

        Raises:
            OSError: It cannot be written.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._file = os.open(path, flags, 0o666)

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Appends records; after an error, the file is as it was before.

        Raises:
            OSError: The disk is full, or cannot be written.
        """
        rest = memoryview(b"".join(map(write_line, records)))
        before = os.fstat(self._file).st_size
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except BaseException:
            os.ftruncate(self._file, before)
            raise

    def close(self) -> None:
        """Waits until the lines are on the disk, and closes the file."""
        try:
            os.fsync(self._file)
        finally:
            os.close(self._file)


def repair(path: Path) -> str | None:
    """Ends the last line of a file that a process was killed in, or cuts off what is torn.

    Returns:
        What was done, in a sentence; None for nothing.

    Raises:
        OSError: The file cannot be read or written.
    """
    if not path.exists():
        return None
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        tail, start = b"", size
        while start and b"\n" not in tail:
            start = max(0, start - _CHUNK)
            file.seek(start)
            tail = file.read(size - start)
        torn = tail[tail.rfind(b"\n") + 1 :]
        if not torn:
            return None
        if is_object(torn):
            file.seek(size)
            file.write(b"\n")
            return f"{path}: the last line had no end, and has one now"
        file.truncate(size - len(torn))
        return f"{path}: the last line was torn, and its {len(torn)} bytes are cut off"


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of a file with the numbers of their lines.

    Raises:
        InputError: A line is no JSON object.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path} line {number} is no JSON: {error}") from error
            if not isinstance(record, dict):
                raise InputError(f"{path} line {number} is no JSON object")
            yield number, record


def digest(values: Sequence[object]) -> bytes:
    """16 bytes that stand for values: a set of them has room for millions of lines."""
    content = json.dumps(values, sort_keys=True).encode()
    return hashlib.sha256(content).digest()[:16]


def is_object(text: bytes) -> bool:
    """Whether bytes are a JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
