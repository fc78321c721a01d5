"""Output folders that appear whole or not at all."""

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from florence_onnx.errors import OutputExistsError

_PARTIAL, _REPLACED = ".partial-", ".replaced-"


@contextmanager
def staged_folder(target: Path, force: bool) -> Iterator[Path]:
    """Yields a hidden folder beside ``target`` that becomes ``target`` when the block succeeds.

    After an exception the hidden folder is removed; after a kill it stays behind, and the next
    call for the same target removes it. A target that was moved aside when the kill came is put
    back.

    Args:
        target: The folder to make.
        force: Whether an existing ``target`` is replaced.

    Raises:
        OutputExistsError: ``target`` exists and ``force`` is false.
    """
    target = target.resolve()
    _clean_up(target)
    _check_free(target, force)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}{_PARTIAL}{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
        _check_free(target, force)
        _swap(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_free(target: Path, force: bool) -> None:
    if target.exists() and not force:
        raise OutputExistsError(f"{target} exists; choose another folder or pass --force")


def _swap(staging: Path, target: Path) -> None:
    """Renames ``staging`` to ``target``; an old target is moved aside first, then deleted."""
    if not target.exists():
        staging.rename(target)
        return
    old = target.with_name(f".{target.name}{_REPLACED}{os.getpid()}")
    target.rename(old)
    try:
        staging.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _clean_up(target: Path) -> None:
    """Undoes what processes that were killed have left beside ``target``."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.*"):
        for kind in (_PARTIAL, _REPLACED):
            process = left.name.removeprefix(f".{target.name}{kind}")
            if not process.isdigit() or _alive(int(process)):
                continue
            if kind == _REPLACED and not target.exists():
                left.rename(target)
            else:
                shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
