"""Files that are written whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from florence_onnx.files import whole_file, write_whole
from tests.helpers.kills import contents, killed_at_every_step, make_files, posix


@pytest.mark.parametrize("existing", [True, False])
def test_a_file_is_written_with_its_folder(tmp_path: Path, existing: bool) -> None:
    path = tmp_path / "some" / "where" / "file.json"
    if existing:
        make_files(path.parent, {path.name: b"old and longer"})
    write_whole(path, "n\u00e9w\n")
    assert contents(tmp_path) == {"some/where/file.json": "n\u00e9w\n".encode()}


def test_an_exception_leaves_no_new_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "some" / "where" / "file"):
        raise KeyboardInterrupt
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_exception_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(b"old")
    with pytest.raises(error), whole_file(path) as partial:
        partial.write_bytes(b"half")
        raise error
    assert contents(tmp_path) == {"file.txt": b"old"}


def test_a_disk_that_turns_out_to_be_full_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As file systems on a network do: not before they have to store what was written."""

    def fail(file: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "file.txt"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new")
    assert contents(tmp_path) == {"file.txt": b"old"}


@posix
def test_a_kill_at_any_step_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    before, work = make_files(tmp_path / "before", {"file.txt": b"old"}), tmp_path / "work"
    work.mkdir()
    program = (
        "from florence_onnx.files import write_whole\n"
        "def change(folder):\n    write_whole(folder / 'file.txt', 'new')"
    )
    found = [(f / "file.txt").read_bytes() for f in killed_at_every_step(program, before, work)]
    assert found[0] == b"old"
    assert found[-1] == b"new"
    assert set(found) == {b"old", b"new"}


@pytest.mark.parametrize("umask", [0o022, 0o077])
@posix
def test_files_take_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "file.txt", "new")
    finally:
        os.umask(before)
    assert (tmp_path / "file.txt").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    make_files(tmp_path, {"disk/file.txt": b"old"})
    (tmp_path / "link.txt").symlink_to(tmp_path / "disk" / "file.txt")
    write_whole(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "disk" / "file.txt").read_bytes() == b"new"
    assert {path.name for path in tmp_path.rglob("*")} == {"disk", "file.txt", "link.txt"}


@posix
@pytest.mark.parametrize("kind", ["fifo", "folder", "link to a device"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out"
    make: dict[str, Callable[[], object]] = {
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "link to a device": lambda: path.symlink_to(os.devnull),
    }
    make[kind]()
    before = path.lstat()
    with pytest.raises(OSError, match=r"Not a regular file|Is a directory"):
        write_whole(path, "new")
    assert path.lstat() == before


def test_a_file_that_is_protected_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # Root may write to any file.
    with pytest.raises(PermissionError):
        write_whole(path, "new")
    assert contents(tmp_path) == {"file.txt": b"old"}


def test_the_longest_name_that_a_file_may_have(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".txt")
    write_whole(path, "new")
    assert contents(tmp_path) == {path.name: b"new"}
