"""Things with a path that are no regular files."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KINDS = ("fifo", "link to a fifo", "device", "link to a device", "pipe", "socket")


@contextmanager
def strange_file(kind: str, folder: Path) -> Iterator[Path]:
    """Makes a thing of one of the ``KINDS``; reading it would block, or never end."""
    path = folder / "thing.jpg"
    if kind == "fifo":
        os.mkfifo(path)
        yield path
    elif kind == "link to a fifo":
        os.mkfifo(folder / "fifo")
        path.symlink_to("fifo")
        yield path
    elif kind == "device":
        yield Path("/dev/zero")
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
        yield path
    elif kind == "pipe":
        ends = os.pipe()
        yield Path(f"/dev/fd/{ends[0]}")
        for end in ends:
            os.close(end)
    else:
        bound = socket.socket(socket.AF_UNIX)
        # A socket's path holds about a hundred characters, a test's folder may have more.
        here = Path.cwd()
        os.chdir(folder)
        bound.bind(path.name)
        os.chdir(here)
        yield path
        bound.close()
