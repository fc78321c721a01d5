"""Sets of files that appear in a folder whole or not at all.

A new folder is filled under a hidden name beside its place, and then renamed. New files for an
existing folder are written to a hidden folder inside. One rename then declares the new files whole,
and `finish_replacement` moves the files to their places. If the process ends between, the next
reader of the folder moves the rest. So there is always one whole set of files: the old files before
the rename, the new files after the rename.
"""

import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from florence_onnx.errors import FolderBusyError, ModelFileError, OutputExistsError
from florence_onnx.files import flush, folder_made, named

WORK = ".florence-onnx"
"""Name of the folder of unfinished files, inside the target, or beside it behind its name."""

_LOCK, _PARTIAL, _READY = "lock", "partial", "ready"
"""Content of the folder: a file that the writing process holds locked, the files that are being
written, and whole sets of files that are on the way to their places."""

_LONGEST_NAME = 255
"""Bytes of a name; most file systems take no longer one."""

Replaced = Callable[[Path], Collection[str]]
"""Function that lists the files to replace in an existing folder, as relative paths with slashes;
raises OutputExistsError where the folder must not be changed."""


def refuse_existing(folder: Path) -> Collection[str]:
    """Raises OutputExistsError, for folders that may be made but not changed."""
    raise OutputExistsError(f"{folder} exists; choose another folder")


@contextmanager
def staged_folder(target: Path, replaced: Replaced = refuse_existing) -> Iterator[Path]:
    """Yields a hidden folder, whose files are moved to ``target`` when the block succeeds.

    After an exception the hidden folder is removed. After a kill the hidden folder stays, and the
    next call for the same target removes it. In an existing target only the files change that
    ``replaced`` names: files without a successor are removed, all other files stay.

    Args:
        target: The folder to make, or to change.
        replaced: Called with an existing ``target``, before any work and before the files change.

    Raises:
        OutputExistsError: ``replaced`` raises this error, or another file has the name of a new
            file.
        ExportError: Another process writes to ``target`` at the moment.
        OSError: The disk is full, or the folder cannot be written.
    """
    if target.is_symlink() and not target.exists():
        # The disk behind the link may come back, and hide what was written meanwhile.
        raise OutputExistsError(f"{target} is a link to nothing: remove it, or make its folder")
    given, target = target, Path(os.path.realpath(target))
    beside = _beside(target)
    inside = target.is_dir()
    if os.path.lexists(target):
        finish_replacement(target)
        replaced(target)
    if inside and beside.is_dir():
        with _held(beside, target):
            pass  # A process was killed before target was there; its files go.
    work = target / WORK if inside else beside
    with named(given, work), _held(work, target) as staging, named(given, staging):
        if not inside:
            _refuse_new(target)  # An earlier process with the lock may have made the folder.
        yield staging
        _settle(staging)
        if inside:
            _replace(target, staging, set(replaced(target)))
        else:
            _refuse_new(target)
            staging.rename(target)


@contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty hidden folder inside ``folder`` for unfinished files, removed at the end.

    Raises:
        ExportError: Another process uses the hidden folder at the moment.
        OSError: The folder cannot be written.
    """
    hidden = folder.resolve() / WORK
    with named(folder, hidden), _held(hidden, folder) as work:
        yield work


def check_places(folder: Path, new: Collection[str], old: Collection[str]) -> None:
    """Checks that new files can be renamed to their places, and replace no other than old files.

    Args:
        folder: An existing folder.
        new: The files to come, as relative paths.
        old: The files that the new files replace.

    Raises:
        OutputExistsError: Another file is in the place of a new file.
    """
    home = folder.resolve()
    for name in {*new, *old}:
        path = home / name
        if os.path.lexists(path) and name not in old:
            raise OutputExistsError(f"{path} is in the way: move it, or choose another folder")
        between = path.parents[: len(path.relative_to(home).parts) - 1]
        for parent in filter(os.path.lexists, between):
            in_place = parent.resolve() == parent and parent.is_dir()
            if not in_place or parent.stat().st_dev != home.stat().st_dev:
                raise OutputExistsError(
                    f"{parent} is a link, a mount or no folder: choose another folder"
                )


def finish_replacement(folder: Path) -> None:
    """Moves new files to their places, if the files are whole and their writer has ended.

    Several processes may call this function at once, also the writer itself.

    Raises:
        ModelFileError: The folder cannot be written, or something is in the way.
    """
    ready = folder / WORK / _READY
    if not os.access(ready, os.F_OK):
        return
    home = folder.resolve()
    try:
        # The folder may come from a stranger: links out of it, or into it, are not followed.
        if ready.resolve() != home / WORK / _READY:
            raise NotADirectoryError(f"{ready} is a link")
        for parent, _, names in os.walk(ready, topdown=False):
            goal = home / Path(parent).relative_to(ready)
            if goal.resolve() != goal:
                raise NotADirectoryError(f"{goal} is a link")
            goal.mkdir(exist_ok=True)
            for name in names:
                _move(Path(parent) / name, goal / name)
            with suppress(OSError):
                Path(parent).rmdir()
        with suppress(OSError):
            ready.parent.rmdir()  # Removing fails while the writer's lock is there.
    except OSError as error:
        raise ModelFileError(
            f"{folder} was being changed when the process ended, and the new files in {ready} "
            f"cannot be moved to their places: {error}; open it where it can be written"
        ) from error


def _move(source: Path, goal: Path) -> None:
    """Moves a new file. An empty file means that the old file is removed."""
    try:
        if source.stat().st_size:
            source.replace(goal)
        else:
            goal.unlink(missing_ok=True)
            source.unlink()
    except FileNotFoundError:
        if source.exists():
            raise
        # Another process was faster.


def _beside(target: Path) -> Path:
    """Returns the hidden folder beside a new folder."""
    name, bare = f".{target.name}{WORK}", os.fsencode(target.name)
    if len(bare) <= _LONGEST_NAME < len(os.fsencode(name)):
        name = f".{hashlib.sha256(bare).hexdigest()}{WORK}"
    return target.parent / name


def _refuse_new(target: Path) -> None:
    """Raises OutputExistsError if another process has made the folder meanwhile."""
    if os.path.lexists(target):
        raise OutputExistsError(f"{target} has appeared meanwhile; choose another folder")


def _replace(target: Path, staging: Path, old: set[str]) -> None:
    """Declares the files in ``staging`` whole and replaces the files ``old`` by these."""
    new = {file.relative_to(staging).as_posix() for file in _files(staging)}
    check_places(target, new, old)
    for name in old - new:
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).touch()
    staging.rename(staging.with_name(_READY))
    finish_replacement(target)


def _settle(staging: Path) -> None:
    """Waits until the files are on the disk, and sets the permissions that the umask gives.

    Some libraries write by way of temporary files, which only the owner may read.
    """
    mode = staging.stat().st_mode & 0o666
    for file in _files(staging):
        file.chmod(mode)
        flush(file)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


@contextmanager
def _held(work: Path, target: Path) -> Iterator[Path]:
    """Makes and locks a folder of unfinished files; yields the folder for the files inside."""
    if work.is_symlink():
        raise OutputExistsError(f"{work} is a link: remove it")
    lock, partial = work / _LOCK, work / _PARTIAL
    busy = FolderBusyError(
        f"another process is writing to {target}; wait for it or choose another folder"
    )
    with folder_made(work):
        try:
            file = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except FileNotFoundError:  # An earlier process has just removed the folder.
            raise busy from None
        _open_locks.add(file)
        try:
            if not (_try_lock(file) and _is_at(file, lock)):
                raise busy
            shutil.rmtree(partial, ignore_errors=True)
            try:
                partial.mkdir()
                yield partial
            finally:
                shutil.rmtree(partial, ignore_errors=True)
                with suppress(OSError):  # Windows deletes no open file; the next process uses it.
                    lock.unlink()
        finally:
            _open_locks.remove(file)
            os.close(file)
            with suppress(OSError):
                work.rmdir()


_open_locks: set[int] = set()
"""Files that this process holds open and locked."""


def _close_locks() -> None:
    """Closes the files in a child process, because an open file stays locked."""
    for file in _open_locks:
        os.close(file)
    _open_locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_locks)

if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: int) -> bool:
        """Locks an open file for this process, whose end unlocks it."""
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(file: int) -> bool:
        """Locks an open file for this process, whose end unlocks it.

        A process number would not do: another container, or the next one, has the same numbers.
        """
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            # On a file system without locks, two processes may spoil each other's unfinished work.
            return error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
        return True


def _is_at(file: int, path: Path) -> bool:
    """Tells whether an open file is still at ``path``. An earlier process may have removed it."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
