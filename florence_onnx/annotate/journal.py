"""Journals: files of JSON lines that are appended whole, and the repair after a kill."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from florence_onnx.errors import InputError
from florence_onnx.files import named

_CHUNK = 1 << 16


def write_line(record: Mapping[str, Any]) -> bytes:
    """Writes a record as a line of JSON in UTF-8."""
    try:
        return (json.dumps(record, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8
        return (json.dumps(record) + "\n").encode()


class Journal:
    """Journal: a file to which lines are appended, several together or none."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file.

        Raises:
            OSError: The file cannot be written.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._path, self._file = path, os.open(path, flags, 0o666)

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Appends records. After an error, the file is the same as before.

        Raises:
            OSError: The disk is full, or the file cannot be written.
        """
        rest = memoryview(b"".join(map(write_line, records)))
        before = os.fstat(self._file).st_size
        try:
            with named(self._path, self._path):
                while rest:
                    rest = rest[os.write(self._file, rest) :]
        except BaseException:
            os.ftruncate(self._file, before)
            raise

    def close(self) -> None:
        """Waits until the lines are on the disk, and closes the file."""
        try:
            with named(self._path, self._path):
                os.fsync(self._file)
        finally:
            os.close(self._file)


def repair(path: Path) -> str | None:
    """Repairs the end of a file after a kill: ends a whole last line, cuts off a part of a line.

    Returns:
        A sentence about the repair; None without a repair.

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
    """Reads the records of a file, with the numbers of the lines.

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
    """Makes a digest of values in 16 bytes, so that a set of millions of lines fits in memory."""
    content = json.dumps(values, sort_keys=True).encode()
    return hashlib.sha256(content).digest()[:16]


def is_object(text: bytes) -> bool:
    """Tells whether bytes are a JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
