"""Folders that appear whole or not at all, whatever happens on the way."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import florence_onnx
from florence_onnx.errors import OutputExistsError
from florence_onnx.staging import staged_folder

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def make(target: Path, content: str, force: bool = False) -> None:
    with staged_folder(target, force) as folder:
        (folder / "onnx").mkdir()
        (folder / "onnx" / "file").write_text(content)


def test_the_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "some" / "where" / "out"
    with staged_folder(target, force=False) as folder:
        assert folder.parent == target.parent, "a rename must not cross file systems"
        assert folder.name.startswith(".out.")
        (folder / "file").write_text("whole")
        assert not target.exists()
    assert names(target.parent) == {"out"}
    assert (target / "file").read_text() == "whole"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, OSError])
@pytest.mark.parametrize("existing", [True, False])
def test_an_exception_leaves_nothing_new(
    tmp_path: Path, error: type[BaseException], existing: bool
) -> None:
    target = tmp_path / "out"
    if existing:
        make(target, "old")
    with pytest.raises(error), staged_folder(target, force=True) as folder:
        (folder / "file").write_text("half")
        raise error
    assert names(tmp_path) == ({"out"} if existing else set())
    if existing:
        assert (target / "onnx" / "file").read_text() == "old"


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_exists_is_refused_before_any_work(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    {
        "folder": target.mkdir,
        "file": target.touch,
        "link": lambda: target.symlink_to(elsewhere),
    }[kind]()
    before = names(tmp_path)
    with (
        pytest.raises(OutputExistsError, match=r"exists; choose another folder or pass --force"),
        staged_folder(target, force=False),
    ):
        pytest.fail("the block was entered")
    assert names(tmp_path) == before


def test_force_replaces(tmp_path: Path) -> None:
    target = tmp_path / "out"
    make(target, "old")
    (target / "stale").touch()
    make(target, "new", force=True)
    assert names(tmp_path) == {"out"}
    assert names(target) == {"onnx"}
    assert (target / "onnx" / "file").read_text() == "new"


def test_force_on_a_link_replaces_what_it_points_to(tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "real", tmp_path / "link"
    make(real, "old")
    link.symlink_to(real)
    make(link, "new", force=True)
    assert link.is_symlink()
    assert (real / "onnx" / "file").read_text() == "new"
    assert names(tmp_path / "disk") == {"real"}


def test_a_target_made_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(OutputExistsError), staged_folder(target, force=False):
        target.mkdir()
        (target / "mine").touch()
    assert names(tmp_path) == {"out"}
    assert names(target) == {"mine"}


def test_a_rename_that_fails_restores_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    make(target, "old")
    rename = Path.rename

    def fail_to_arrive(self: Path, goal: Path) -> Path:
        if ".partial-" in self.name:
            raise OSError("the disk is full")
        return rename(self, goal)

    monkeypatch.setattr(Path, "rename", fail_to_arrive)
    with pytest.raises(OSError, match=r"the disk is full"):
        make(target, "new", force=True)
    monkeypatch.undo()
    assert names(tmp_path) == {"out"}
    assert (target / "onnx" / "file").read_text() == "old"


def a_process_that_is_gone() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("name", ["out", "o[u]t*", "out.partial"])
def test_what_a_kill_left_is_removed(tmp_path: Path, name: str) -> None:
    gone, target = a_process_that_is_gone(), tmp_path / name
    left = [f".{name}.partial-{gone}", f".{name}.replaced-{gone}"]
    kept = [
        f".{name}.partial-{os.getppid()}",  # of a process that still runs
        f".other.partial-{gone}",
        f".{name}.partial-notes",
        f"{name}.partial-{gone}",
    ]
    for folder in [*left, *kept]:
        (tmp_path / folder / "onnx").mkdir(parents=True)
    target.mkdir()
    make(target, "new", force=True)
    assert names(tmp_path) == {name, *kept}


def test_a_kill_between_the_renames_loses_nothing(tmp_path: Path) -> None:
    """The old folder had been moved aside, the new one had not arrived."""
    gone, target = a_process_that_is_gone(), tmp_path / "out"
    make(target, "old")
    target.rename(tmp_path / f".out.replaced-{gone}")
    (tmp_path / f".out.partial-{gone}").mkdir()
    with pytest.raises(OutputExistsError):
        make(target, "new")
    assert names(tmp_path) == {"out"}
    assert (target / "onnx" / "file").read_text() == "old"


PROGRAM = """
import sys, time
from pathlib import Path
from florence_onnx.staging import staged_folder

with staged_folder(Path(sys.argv[1]), force=True) as folder:
    (folder / "half").write_text("half")
    print("working", flush=True)
    time.sleep(60)
"""


def start(*arguments: str) -> "subprocess.Popen[str]":
    """Starts a program and waits until it is in the middle of its work."""
    package = Path(florence_onnx.__file__).parents[1]
    search = os.pathsep.join([str(package), str(package / "export")])
    process = subprocess.Popen(
        [sys.executable, "-c", *arguments],
        env={**os.environ, "PYTHONPATH": search},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    return process


@posix
def test_kill_9(tmp_path: Path) -> None:
    target = tmp_path / "out"
    process = start(PROGRAM, str(target))
    (partial,) = names(tmp_path)
    process.kill()
    process.communicate()
    assert names(tmp_path) == {partial}, "no target, but the half-made folder"
    make(target, "whole")
    assert names(tmp_path) == {"out"}


COMMAND = """
import sys, time, types
from florence_onnx.cli.program import main
from florence_onnx.staging import staged_folder

def export(source, out, **options):
    with staged_folder(out, options["force"]) as folder:
        (folder / "half").write_text("half")
        print("working", flush=True)
        time.sleep(60)

sys.modules["florence_onnx_export.exporter"] = types.SimpleNamespace(export=export)
sys.exit(main())
"""


@posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_during_an_export(tmp_path: Path, number: signal.Signals, status: int) -> None:
    """Whoever stops the command finds no half-made folder, and no traceback."""
    process = start(COMMAND, "export", "checkpoint", str(tmp_path / "out"))
    assert len(names(tmp_path)) == 1
    process.send_signal(number)
    assert process.communicate() == ("", "")
    assert process.returncode == status
    assert names(tmp_path) == set()


def test_a_parent_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file"):
        make(tmp_path / "file" / "out", "new")


def test_a_folder_emptied_on_the_way_is_no_error(tmp_path: Path) -> None:
    """As when someone tidies up while the export fails."""
    with (
        pytest.raises(ValueError, match=r"first"),
        staged_folder(tmp_path / "out", False) as folder,
    ):
        shutil.rmtree(folder)
        raise ValueError("first")
