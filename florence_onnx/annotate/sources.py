"""Where the pictures of an annotation come from: files, folders, patterns, lists, tar shards."""

import glob
import os
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from florence_onnx.errors import ImageError, InputError
from florence_onnx.files import open_regular
from florence_onnx.images.limits import check_file_size

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif"),
)
"""What the names of pictures in folders and shards end with."""
STANDARD_INPUT = "-"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True, slots=True)
class Item:
    """A picture that can be read."""

    path: str
    """Its name in the output: relative to the folder or behind the shard that was given, else as it
    was given. With slashes."""
    source: str
    """The source that it came from, as it was given."""
    file: str
    """The file that holds it."""
    span: tuple[int, int] | None = None
    """Where in the file it stands: offset and size in bytes; None for the whole file."""

    def read(self) -> bytes:
        """The bytes of the picture file.

        Raises:
            ImageError: They are too many, or fewer than a shard says.
            OSError: The file is missing, unreadable or no regular file.
        """
        with open_regular(self.file) as file:
            offset, size = self.span or (0, os.fstat(file.fileno()).st_size)
            check_file_size(size, self.path)
            file.seek(offset)
            data = file.read(size)
        if len(data) < size:
            raise ImageError(f"{self.path} ends after {len(data)} of {size} bytes")
        return data


def find_items(sources: Sequence[str]) -> list[Item]:
    """The pictures of all sources, in their order; those of a folder by name.

    Args:
        sources: Picture files; folders, whose pictures at any depth are taken, hidden ones
            excepted; patterns with ``*``, ``?`` or ``[``, in which ``**`` stands for folders at
            any depth; text files of paths (``.txt``), a line each, or ``-`` for such a list on the
            standard input; and tar files, uncompressed.

    Raises:
        InputError: A source does not exist, holds no picture, or cannot be read, or not one of
            all pictures exists.
    """
    items = []
    for source in sources:
        try:
            items += _found(source)
        except (OSError, UnicodeDecodeError, tarfile.TarError) as error:
            raise InputError(f"{source} cannot be read: {error}") from error
    if not any(os.path.lexists(item.file) for item in items):
        raise InputError(f"no picture that is listed exists; the first is {items[0].file}")
    return items


def _found(source: str) -> list[Item]:
    if source != STANDARD_INPUT and not os.path.lexists(source) and glob.has_magic(source):
        names = sorted(glob.glob(source, recursive=True))  # noqa: PTH207  # Names stay as they are.
        items = [item for name in names if not Path(name).is_dir() for item in _of_file(name)]
    elif Path(source).is_dir():
        items = list(_of_folder(source))
    else:
        items = _of_file(source)
    if not items:
        raise InputError(f"{source} holds no pictures; the names of pictures end with {_LISTED}")
    return items


_LISTED = ", ".join(SUFFIXES)


def _of_file(source: str) -> list[Item]:
    name = source.lower()
    if source == STANDARD_INPUT:
        return _of_list(sys.stdin.read(), source)
    if not os.path.lexists(source):
        raise InputError(f"{source} does not exist; give a picture, a folder, a pattern or a list")
    if name.endswith(_COMPRESSED):
        raise InputError(f"{source} is compressed; decompress it to a .tar file")
    if is_shard(name):
        return list(_of_shard(source))
    if name.endswith(".txt"):
        with open_regular(source) as file:
            return _of_list(file.read().decode("utf-8-sig"), source)
    return [Item(_slashed(source), source, source)]


def _of_folder(source: str) -> Iterator[Item]:
    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(source, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if _is_picture(name):
                file = os.path.join(parent, name)  # noqa: PTH118  # A Path takes more memory.
                yield Item(_slashed(os.path.relpath(file, source)), source, file)


def _of_list(text: str, source: str) -> list[Item]:
    names = (line.rstrip("\r") for line in text.split("\n"))
    return [Item(_slashed(name), source, name) for name in names if name]


def _of_shard(source: str) -> Iterator[Item]:
    with open_regular(source) as file, tarfile.open(fileobj=file, mode="r:") as shard:
        for member in shard:
            if member.isreg() and not member.issparse() and _is_picture(Path(member.name).name):
                span = (member.offset_data, member.size)
                yield Item(f"{_slashed(source)}/{member.name}", source, source, span)


def is_shard(source: str) -> bool:
    """Whether a source is a file of many pictures."""
    return source.lower().endswith(".tar")


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def _slashed(path: str) -> str:
    return path.replace(os.sep, "/")
