"""Free space on a disk, checked before the work that needs the space."""

import shutil
from pathlib import Path

from florence_onnx.errors import DiskSpaceError
from florence_onnx.terminal import size_text


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Checks that a folder's disk has room.

    Args:
        folder: Folder for the files, which may not exist yet.
        needed: Bytes of the files.
        purpose: Purpose of the files, the start of the message.

    Raises:
        DiskSpaceError: The disk has less free space.
    """
    try:
        free = shutil.disk_usage(existing(folder)).free
    except OSError:
        return  # The writer of the files reports the error.
    if free < needed:
        raise DiskSpaceError(
            f"{purpose} needs {size_text(needed)} in {folder}, and {size_text(free)} are free there"
        )


def existing(folder: Path) -> Path:
    """Finds the nearest existing folder: the folder itself, or one above."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())
