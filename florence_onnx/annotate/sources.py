"""Sources of pictures: files, folders, patterns, lists, tar shards, videos."""

import glob
import io
import os
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import count
from pathlib import Path

from florence_onnx.annotate.video import VIDEOS, find_frames, frame_name, is_video
from florence_onnx.errors import FlorenceError, ImageError, InputError
from florence_onnx.files import open_regular
from florence_onnx.images.limits import check_file_size

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif"),
)
"""Endings of the names of pictures in folders and shards."""
STANDARD_INPUT = "-"
_LIST = ".txt"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True, slots=True)
class Item:
    """Item of a source: a picture that can be read."""

    path: str
    """Name of the picture in the output, with slashes: relative to a given folder, behind a given
    shard, else as given."""
    source: str
    """Source of the picture, as given."""
    file: str
    """File that holds the picture."""
    span: tuple[int, int] | None = None
    """Offset and size in bytes of the picture in the file; None for the whole file."""
    load: Callable[[], bytes] | None = None
    """Function that gives the bytes, for a frame of a video; None where the bytes are in the
    file."""
    error: FlorenceError | None = None
    """Reason why pictures cannot be found here, for a source, or a part of a source, that is
    damaged; None for a picture."""

    def read(self) -> bytes:
        """Reads the bytes of the picture file.

        Raises:
            FlorenceError: This is no picture, but an `error`.
            ImageError: There are too many bytes, or fewer than a shard says.
            OSError: The file is missing, unreadable or no regular file.
        """
        if self.error is not None:
            raise self.error
        if self.load is not None:
            return self.load()
        with open_regular(self.file) as file:
            offset, size = self.span or (0, os.fstat(file.fileno()).st_size)
            check_file_size(size, self.path)
            file.seek(offset)
            data = file.read(size)
        if len(data) < size:
            raise ImageError(f"{self.path} ends after {len(data)} of {size} bytes")
        return data


def find_items(sources: Sequence[str], every: float = 1.0) -> list[Item]:
    """Finds the pictures of all sources, in the order of the sources, and by name in a folder.

    Args:
        sources: Picture files; folders, whose pictures at any depth are taken, hidden ones
            excepted; patterns with ``*``, ``?`` or ``[``, in which ``**`` stands for folders at
            any depth; text files of paths (``.txt``), a line each, or ``-`` for such a list on the
            standard input, where a null character may end each path; tar files, uncompressed; and
            videos, which are taken by their names, but not out of folders.
        every: Seconds between two frames of a video.

    Returns:
        The pictures. Of a source that cannot be read, or from some place on, one item has the
        `Item.error`.

    Raises:
        InputError: A source does not exist or holds no picture, or no source can be read, or not
            one of all pictures exists.
        ImageError: The frames of the only videos are too large.
        MissingDependencyError: A video is there, and PyAV is not.
    """
    items = [item for source in sources for item in _found(source, Fraction(repr(every)))]
    errors = [item.error for item in items if item.error is not None]
    if errors and len(errors) == len(items):
        raise errors[0]
    if not any(os.path.lexists(item.file) for item in items):
        raise InputError(f"no picture that is listed exists; the first is {items[0].file}")
    return items


def _found(source: str, every: Fraction) -> list[Item]:
    if source != STANDARD_INPUT and not os.path.lexists(source) and glob.has_magic(source):
        items = [item for name in _matching(source) for item in _of_file(name, every)]
    elif Path(source).is_dir():
        items = list(_of_folder(source))
    else:
        items = _of_file(source, every)
    if not items:
        name = "the standard input" if source == STANDARD_INPUT else source
        is_list = source == STANDARD_INPUT or source.lower().endswith(_LIST)
        hint = "write the path of a picture on each line" if is_list else _NAMES
        raise InputError(f"{name} holds no pictures; {hint}")
    return items


_NAMES = f"the names of pictures end with {', '.join(SUFFIXES)}"


def _matching(pattern: str) -> list[str]:
    """Finds the files of a pattern, sorted; each file once, even where links lead to its folder."""
    folder_of = cache(os.path.realpath)
    names: dict[tuple[str, str], str] = {}
    for name in sorted(glob.glob(pattern, recursive=True), key=len):  # noqa: PTH207  # As they are.
        if not Path(name).is_dir():
            parent, base = os.path.split(name)
            names.setdefault((folder_of(parent), base), name)
    return sorted(names.values())


def _of_file(source: str, every: Fraction) -> list[Item]:
    name = source.lower()
    if source == STANDARD_INPUT:
        return _of_list(_standard_input, source)
    if not os.path.lexists(source):
        raise InputError(f"{source} does not exist; give a picture, a folder, a pattern or a list")
    if name.endswith(_COMPRESSED):
        raise InputError(f"{source} is compressed; decompress it to a .tar file")
    if is_shard(name):
        return list(_of_shard(source))
    if is_video(name):
        return list(_of_video(source, every))
    if name.endswith(_LIST):
        return _of_list(lambda: _list_file(source), source)
    return [Item(_slashed(source), source, source)]


def _of_folder(source: str) -> Iterator[Item]:
    unlisted: list[Item] = []

    def note(error: OSError) -> None:
        path = _slashed(os.path.relpath(error.filename, source))
        unlisted.append(_unreadable(source if path == "." else path, source, error))

    for parent, folders, names in os.walk(source, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if _is_picture(name):
                file = os.path.join(parent, name)  # noqa: PTH118  # A Path takes more memory.
                yield Item(_slashed(os.path.relpath(file, source)), source, file)
    yield from unlisted


def _unreadable(name: str, source: str, error: Exception, behind: str = "") -> Item:
    """Makes the item of a source, or of a folder in a source, that cannot be read."""
    place = f" behind {behind}" if behind else ""
    told = InputError(f"{name} cannot be read{place}: {error}")
    return Item(_slashed(name), source, source, error=told)


def _standard_input() -> str:
    if sys.stdin is None:
        return ""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # Names need not be text.
    return sys.stdin.read()


def _list_file(source: str) -> str:
    with open_regular(source) as file:
        return file.read().decode("utf-8-sig")


def _of_list(read: Callable[[], str], source: str) -> list[Item]:
    try:
        text = read()
    except (OSError, UnicodeDecodeError) as error:
        return [_unreadable(source, source, error)]
    names = (line.rstrip("\r") for line in text.split("\0" if "\0" in text else "\n"))
    return [Item(_slashed(name), source, name) for name in names if name]


def _of_shard(source: str) -> Iterator[Item]:
    """Yields the pictures of a shard, and an error for the rest of a shard that is damaged."""
    last = ""
    try:
        with open_regular(source) as file, tarfile.open(fileobj=file, mode="r:") as shard:
            size = os.fstat(file.fileno()).st_size
            for member in shard:
                if member.offset_data + member.size > size:
                    continue  # A member that is cut off; the next one raises an error.
                last = member.name
                if member.isreg() and not member.issparse() and _is_picture(Path(last).name):
                    span = (member.offset_data, member.size)
                    yield Item(f"{_slashed(source)}/{last}", source, source, span)
            # The loop also ends at a damaged header. A whole shard ends with zeros.
            file.seek(shard.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError("it is damaged there")
    except (OSError, tarfile.TarError) as error:
        yield _unreadable(source, source, error, last)


def _of_video(source: str, every: Fraction) -> Iterator[Item]:
    """Yields the frames of a video, or the error of a file that is no video."""
    try:
        yield from frames_of(source, (number * every for number in count()))
    except OSError as error:
        yield _unreadable(source, source, error)
    except (ImageError, InputError) as error:
        yield Item(_slashed(source), source, source, error=error)


def frames_of(source: str, times: Iterable[Fraction]) -> Iterator[Item]:
    """Makes items of the frames of a video; see `find_frames`."""
    for time, frame in find_frames(source, times):
        yield Item(frame_name(_slashed(source), time), source, source, load=frame)


def place_of(source: str, path: str) -> str:
    """Finds the place of a picture by the fields of its line; a path for shards and videos."""
    is_given = source in (path, STANDARD_INPUT) or source.lower().endswith(
        (*VIDEOS, ".tar", ".txt")
    )
    if _is_folder(source) or not (is_given or glob.has_magic(source)):
        return f"{source.rstrip(os.sep)}{os.sep}{path}"
    return path


@cache
def _is_folder(source: str) -> bool:
    return Path(source).is_dir()


def is_shard(source: str) -> bool:
    """Tells whether a source is a file of many pictures."""
    return source.lower().endswith(".tar")


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def _slashed(path: str) -> str:
    return path.replace(os.sep, "/")
