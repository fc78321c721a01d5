"""Sets of files that appear whole or not at all, whatever happens on the way."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

import florence_onnx
from florence_onnx.errors import (
    ExportError,
    FolderBusyError,
    ModelFileError,
    OutputExistsError,
)
from florence_onnx.staging import finish_replacement, staged_folder, work_folder
from tests.helpers.kills import contents, killed_at_every_step, make_files, posix

OLD = {"onnx/graph": b"old graph", "onnx/graph_data": b"old data", "config": b"old", "stale": b"s"}
NEW = {"onnx/graph": b"new graph", "onnx/graph_data": b"new data", "config": b"new", "more/x": b"x"}
FOREIGN = {".git/HEAD": b"ref", "novel.txt": b"chapter 1", "onnx/notes": b"mine", "more/y": b"y"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def ours(folder: Path) -> Collection[str]:
    return OLD.keys() | NEW.keys()


def make(target: Path, files: dict[str, bytes] = NEW) -> None:
    with staged_folder(target, ours) as folder:
        make_files(folder, files)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder with an old set of files, and others."""
    return make_files(tmp_path / "out", OLD | FOREIGN)


# Success and failure


def test_the_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "some" / "where" / "out"
    with staged_folder(target) as folder:
        assert folder.is_relative_to(target.parent), "a rename must not cross file systems"
        assert names(target.parent) == {".out.florence-onnx"}
        make_files(folder, NEW)
    assert names(target.parent) == {"out"}
    assert contents(target) == NEW


@pytest.mark.parametrize("name", ["n" * 255, "\u00fc" * 120])
def test_the_longest_name_that_a_folder_may_have(tmp_path: Path, name: str) -> None:
    make(tmp_path / name)
    assert contents(tmp_path / name) == NEW
    assert names(tmp_path) == {name}


@posix
def test_a_name_that_is_too_long_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="name too long"), staged_folder(tmp_path / ("n" * 256)):
        pytest.fail("the block was entered")
    assert names(tmp_path) == set()


def test_a_replacement_leaves_what_is_not_ours(tmp_path: Path, target: Path) -> None:
    inode = target.stat().st_ino
    make(target)
    assert contents(target) == NEW | FOREIGN
    assert names(tmp_path) == {"out"}
    assert target.stat().st_ino == inode, "the folder may be a mount, or where a shell is"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, OSError])
@pytest.mark.parametrize("existing", [True, False])
def test_an_exception_leaves_nothing_new(
    tmp_path: Path, error: type[BaseException], existing: bool
) -> None:
    target = tmp_path / "out"
    if existing:
        make_files(target, OLD | FOREIGN)
    with pytest.raises(error), staged_folder(target, ours) as folder:
        make_files(folder, NEW)
        raise error
    assert names(tmp_path) == ({"out"} if existing else set())
    if existing:
        assert contents(target) == OLD | FOREIGN


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_no_new_parent(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(error), staged_folder(tmp_path / "empty" / "some" / "where" / "out"):
        raise error
    assert [*tmp_path.rglob("*")] == [tmp_path / "empty"], "what was there before stays"


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_exists_is_refused_before_any_work(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    make: dict[str, Callable[[], object]] = {
        "folder": target.mkdir,
        "file": target.touch,
        "link": lambda: target.symlink_to(elsewhere),
    }
    make[kind]()
    before = names(tmp_path)
    with (
        pytest.raises(OutputExistsError, match="exists; choose another folder"),
        staged_folder(target),
    ):
        pytest.fail("the block was entered")
    assert names(tmp_path) == before


def test_a_link_to_a_folder(tmp_path: Path) -> None:
    real, link = make_files(tmp_path / "disk" / "real", OLD | FOREIGN), tmp_path / "link"
    link.symlink_to(real)
    make(link)
    assert link.is_symlink()
    assert contents(real) == NEW | FOREIGN
    assert names(tmp_path / "disk") == {"real"}


def test_a_link_that_leads_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "out")
    with pytest.raises(OSError, match="out"):
        make(tmp_path / "out")


@pytest.mark.parametrize("kind", ["folder", "file", "empty folder"])
def test_a_target_made_meanwhile_is_not_replaced(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    with (
        pytest.raises(OutputExistsError, match="has appeared meanwhile"),
        staged_folder(target, ours),
    ):
        if kind == "file":
            target.write_bytes(b"mine")
        else:
            make_files(target, {"mine": b""} if kind == "folder" else {})
            target.mkdir(exist_ok=True)
    assert names(tmp_path) == {"out"}
    if kind == "file":
        assert target.read_bytes() == b"mine"
    else:
        assert names(target) == ({"mine"} if kind == "folder" else set())


def test_the_second_of_two_is_told_before_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ends between the second's look at the folder and its lock."""
    target = tmp_path / "out"
    lock = pytest.importorskip("fcntl").flock

    def end_and_lock(file: int, operation: int) -> None:
        make_files(target, NEW)
        lock(file, operation)

    monkeypatch.setattr("fcntl.flock", end_and_lock)
    with pytest.raises(OutputExistsError, match="has appeared meanwhile"), staged_folder(target):
        pytest.fail("the block was entered")
    assert contents(tmp_path) == {f"out/{name}": content for name, content in NEW.items()}


@pytest.mark.parametrize("existing", [True, False])
def test_a_lock_whose_folder_the_process_before_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    target = tmp_path / "out"
    if existing:
        make_files(target, OLD)
    before = contents(tmp_path)

    def remove_and_open(path: Path, *rest: int) -> int:
        monkeypatch.undo()
        path.parent.rmdir()
        return os.open(path, *rest)

    monkeypatch.setattr(os, "open", remove_and_open)
    with (
        pytest.raises(FolderBusyError, match="another process is writing to"),
        staged_folder(target, ours),
    ):
        pytest.fail("the block was entered")
    assert contents(tmp_path) == before


def test_a_folder_that_has_become_another_meanwhile_is_not_changed(target: Path) -> None:
    def still_ours(folder: Path) -> Collection[str]:
        if (folder / "theirs").exists():
            raise OutputExistsError("no longer ours")
        return OLD.keys()

    with (
        pytest.raises(OutputExistsError, match="no longer ours"),
        staged_folder(target, still_ours) as folder,
    ):
        make_files(folder, NEW)
        (target / "theirs").touch()
    assert contents(target) == OLD | FOREIGN | {"theirs": b""}


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_has_the_name_of_a_new_file_is_not_replaced(
    tmp_path: Path, target: Path, kind: str
) -> None:
    path = target / "more" / "x"
    make: dict[str, Callable[[], object]] = {
        "file": lambda: path.write_bytes(b"mine"),
        "folder": path.mkdir,
        "link": lambda: path.symlink_to(tmp_path / "nowhere"),
    }
    make[kind]()
    before = contents(target)
    with (
        pytest.raises(OutputExistsError, match=r"more/x is in the way"),
        staged_folder(target, lambda folder: OLD.keys()) as folder,
    ):
        make_files(folder, NEW)
    assert contents(target) == before
    assert os.path.lexists(path)


@pytest.mark.parametrize("kind", ["link", "file"])
def test_files_are_not_moved_through_a_link(tmp_path: Path, kind: str) -> None:
    target, elsewhere = make_files(tmp_path / "out", {"config": b"old"}), tmp_path / "elsewhere"
    make_files(elsewhere, {"graph": b"old graph"})
    if kind == "link":
        (target / "onnx").symlink_to(elsewhere)
    else:
        (target / "onnx").write_bytes(b"mine")
    before = contents(tmp_path)
    with pytest.raises(OutputExistsError, match="onnx is a link, a mount or no folder"):
        make(target)
    assert contents(tmp_path) == before


def test_a_parent_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file"):
        make(tmp_path / "file" / "out")


def test_a_folder_emptied_on_the_way_is_no_error(tmp_path: Path) -> None:
    """As when someone tidies up while the export fails."""
    with pytest.raises(ValueError, match=r"first"), staged_folder(tmp_path / "out") as folder:
        shutil.rmtree(folder.parent)
        raise ValueError("first")


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
@pytest.mark.parametrize("existing", [True, False])
@posix
def test_files_take_the_umask(tmp_path: Path, umask: int, existing: bool) -> None:
    target = tmp_path / "out"
    if existing:
        make_files(target, OLD)
    before = os.umask(umask)
    try:
        with staged_folder(target, ours) as folder:
            make_files(folder, NEW)
            for path in folder.rglob("*"):
                if path.is_file():
                    path.chmod(0o600)  # as some libraries write it
    finally:
        os.umask(before)
    modes = {name: (target / name).stat().st_mode & 0o777 for name in NEW}
    assert modes == dict.fromkeys(NEW, 0o666 & ~umask)


# Kills

REPLACE = """
from florence_onnx.staging import staged_folder
from tests.helpers.kills import make_files
from tests.runtime.test_staging import NEW, ours

def change(folder):
    with staged_folder(folder / "out", ours) as staging:
        make_files(staging, NEW)
"""


@posix
def test_a_kill_at_any_step_of_a_replacement_leaves_one_whole_set(tmp_path: Path) -> None:
    make_files(tmp_path / "before" / "out", OLD | FOREIGN)
    (tmp_path / "work").mkdir()
    states = killed_at_every_step(REPLACE, tmp_path / "before", tmp_path / "work")
    assert len(states) > 20
    found = []
    for folder in states:
        finish_replacement(folder / "out")
        seen = contents(folder / "out")
        found.append({n: seen[n] for n in seen if not n.startswith(".florence-onnx")})
        assert found[-1] in (OLD | FOREIGN, NEW | FOREIGN)
        make(folder / "out")
        assert contents(folder) == {f"out/{n}": c for n, c in (NEW | FOREIGN).items()}
        assert names(folder) == {"out"}
        assert ".florence-onnx" not in names(folder / "out")
    assert found[0] == OLD | FOREIGN
    assert found[-1] == NEW | FOREIGN


@posix
def test_a_kill_at_any_step_of_a_new_folder_leaves_nothing_or_all(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    (tmp_path / "work").mkdir()
    for folder in killed_at_every_step(REPLACE, tmp_path / "before", tmp_path / "work"):
        target = folder / "out"
        if target.exists():
            assert contents(target) == NEW
            with pytest.raises(OutputExistsError), staged_folder(target):
                pytest.fail("the block was entered")
        make(target)
        assert contents(target) == NEW
        assert names(folder) == {"out"}


def test_whoever_opens_the_folder_at_any_step_finds_one_whole_set(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that starts while files are replaced; the writer goes on afterwards."""
    before = contents(target)
    found = []
    replace = Path.replace

    def look_and_replace(source: Path, goal: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        finish_replacement(target)
        seen = contents(target)
        found.append({name: seen[name] for name in seen if not name.startswith(".florence-onnx")})
        return replace(source, goal)

    monkeypatch.setattr(Path, "replace", look_and_replace)
    make(target)
    assert found == [NEW | FOREIGN]
    assert contents(target) == NEW | FOREIGN != before


def test_what_cannot_be_moved_is_said_and_kept(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: Path, goal: Path) -> Path:
        raise OSError(errno.EROFS, "Read-only file system", str(goal))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", fail)
        with pytest.raises(ModelFileError, match=r"Read-only file system.*; open it where it can"):
            make(target)
        with pytest.raises(ModelFileError, match="Read-only file system"):
            finish_replacement(target)
    finish_replacement(target)
    assert contents(target) == NEW | FOREIGN


@pytest.mark.parametrize("link", [".florence-onnx", ".florence-onnx/ready", "onnx"])
def test_a_folder_from_a_stranger_moves_nothing_from_or_to_elsewhere(
    tmp_path: Path, link: str
) -> None:
    precious = make_files(tmp_path / "home", {"ready/onnx/a": b"1", "onnx/b": b"2", "graph": b"3"})
    model = make_files(tmp_path / "model", {"config": b"{}"})
    if link == "onnx":
        make_files(model, {".florence-onnx/ready/onnx/graph": b"evil"})
    (model / link).parent.mkdir(exist_ok=True)
    (model / link).symlink_to(precious)
    before = contents(precious)
    with pytest.raises(ModelFileError, match="is a link"):
        finish_replacement(model)
    assert contents(precious) == before


# Several processes

WORKING = """
import os, sys, time
from pathlib import Path
from florence_onnx.staging import staged_folder

with staged_folder(Path(sys.argv[1]), lambda folder: ()) as folder:
    (folder / "half").write_text("half")
    process = os.getpid()
    if process:
        print("working", process, sep="\\n", flush=True)
    time.sleep(60)
    os._exit(1)
"""


def start(target: Path, program: str = WORKING) -> "subprocess.Popen[str]":
    """Starts a program and waits until it is in the middle of its work."""
    package = Path(florence_onnx.__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(target)],
        env={**os.environ, "PYTHONPATH": str(package)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    return process


@pytest.mark.parametrize("existing", [True, False])
@posix
def test_the_second_of_two_processes_is_told(tmp_path: Path, existing: bool) -> None:
    target = tmp_path / "out"
    if existing:
        make_files(target, OLD)
    process = start(target)
    try:
        with pytest.raises(ExportError, match=r"another process is writing to .*out; wait"):
            make(target)
        make_files(target, OLD)  # by hand; the first process is still at work
        if not existing:
            with pytest.raises(ExportError, match="another process is writing to"):
                make(target)
    finally:
        process.kill()
        process.communicate()
    make(target)
    assert names(tmp_path) == {"out"}
    assert contents(target) == NEW


@pytest.mark.parametrize("existing", [True, False])
@posix
def test_what_a_killed_process_left_goes(tmp_path: Path, existing: bool) -> None:
    target = tmp_path / "out"
    if existing:
        make_files(target, OLD)
    process = start(target)
    process.kill()
    process.communicate()
    assert any(name.endswith("/half") for name in contents(tmp_path))
    make(target)
    assert contents(tmp_path) == {f"out/{name}": content for name, content in NEW.items()}


@posix
def test_the_child_of_a_killed_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    """As the workers of a pool, which do not notice that their parent has gone."""
    child_speaks = WORKING.replace("os.getpid()", "0 if os.fork() else os.getpid()")
    process = start(tmp_path / "out", child_speaks)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        make(tmp_path / "out")
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("name", ["out", "o[u]t*", "out.partial", "-"])
def test_names_beside_the_output_that_look_like_ours_stay(tmp_path: Path, name: str) -> None:
    target = make_files(tmp_path / name, OLD)
    kinds = (".partial", ".replaced", ".florence-onnx")
    numbers = ("99999999999999999999", "1", str(os.getpid()), "notes", "²")
    theirs = {f".{name}{kind}-{number}/x": b"mine" for kind in kinds for number in numbers}
    theirs |= {f".other{kind}/x": b"mine" for kind in kinds} | {f".{name}.florence-onnx/x": b"m"}
    make_files(tmp_path, theirs)
    make(target)
    assert contents(tmp_path) == theirs | {
        f"{name}/{file}": content for file, content in NEW.items()
    }


def test_a_work_folder_that_is_a_link(tmp_path: Path, target: Path) -> None:
    precious = make_files(tmp_path / "home", {"partial/x": b"mine"})
    (target / ".florence-onnx").symlink_to(precious)
    with pytest.raises(OutputExistsError, match=r"\.florence-onnx is a link"):
        make(target)
    assert contents(precious) == {"partial/x": b"mine"}


@posix
def test_a_file_system_without_locks(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    make(target)
    assert contents(target) == NEW | FOREIGN


def test_a_work_folder_is_one_processs_and_goes(target: Path) -> None:
    with work_folder(target) as work:
        make_files(work, {"half": b"half"})
        with pytest.raises(ExportError, match="another process"), work_folder(target):
            pytest.fail("the block was entered")
    assert contents(target) == OLD | FOREIGN
    assert ".florence-onnx" not in names(target)
