"""Output folders that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from florence_onnx.errors import OutputExistsError


@contextmanager
def staged_folder(target: Path, force: bool) -> Iterator[Path]:
    """Yields a hidden folder beside ``target`` that becomes ``target`` when the block succeeds.

    After an exception the hidden folder is removed; after a kill it stays behind, and the next
    call for the same target removes it once the process that made it is gone.

    Args:
        target: The folder to make.
        force: Whether an existing ``target`` is replaced.

    Raises:
        OutputExistsError: ``target`` exists and ``force`` is false.
    """
    target = target.absolute()
    if target.exists() and not force:
        raise OutputExistsError(f"{target} exists; choose another folder or pass --force")
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    staging = _staging_path(target, os.getpid())
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
        _swap(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _staging_path(target: Path, process: int) -> Path:
    return target.with_name(f".{target.name}.partial-{process}")


def _swap(staging: Path, target: Path) -> None:
    """Renames ``staging`` to ``target``; an old target is moved aside first, then deleted."""
    if not target.exists():
        staging.rename(target)
        return
    old = target.with_name(f".{target.name}.replaced-{os.getpid()}")
    target.rename(old)
    try:
        staging.rename(target)
    except OSError:
        old.rename(target)
        raise
    if old.is_dir() and not old.is_symlink():
        shutil.rmtree(old)
    else:
        old.unlink()


def _remove_abandoned(target: Path) -> None:
    for folder in target.parent.glob(f".{target.name}.partial-*"):
        process = folder.name.rpartition("-")[2]
        if process.isdigit() and not _alive(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
