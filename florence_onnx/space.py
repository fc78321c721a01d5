"""Free space on a disk, looked at before the work that needs it."""

import shutil
from pathlib import Path

from florence_onnx.errors import DiskSpaceError
from florence_onnx.terminal import size_text


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Checks that a folder's disk has room.

    Args:
        folder: Where files are to be written; it may not exist yet.
        needed: Bytes of the files.
        purpose: Purpose of the files, the start of the message.

    Raises:
        DiskSpaceError: There is less room.
    """
    try:
        free = shutil.disk_usage(existing(folder)).free
    except OSError:
        return  # Whoever writes there says what is wrong.
    if free < needed:
        raise DiskSpaceError(
            f"{purpose} needs {size_text(needed)} in {folder}, and {size_text(free)} are free there"
        )


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())
