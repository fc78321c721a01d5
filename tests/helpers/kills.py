"""Processes that end at every step of a change of files, as if they were killed."""

import os
from pathlib import Path

import pytest

from tests.helpers.tiny import run_python

posix = pytest.mark.skipif(os.name != "posix", reason="needs fork and signals")

_PROGRAM = """
import os, shutil, sys, traceback
from pathlib import Path

sys.path.insert(0, sys.argv[3])
{program}

STEPS = set(sys.argv[4].split())
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

def change_but_end_before(step, folder):
    done = 0
    def count(event, arguments):
        nonlocal done
        if event in STEPS and (event != "open" or arguments[2] & WRITING):
            if done == step:
                os._exit(9)
            done += 1
    sys.addaudithook(count)
    change(folder)

before, work = Path(sys.argv[1]), Path(sys.argv[2])
for step in range(1000):
    folder = work / str(step)
    shutil.copytree(before, folder, symlinks=True)
    child = os.fork()
    if child == 0:
        try:
            change_but_end_before(step, folder)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 9:
        sys.exit(status)
sys.exit("it never ends")
"""


MOVES = "os.rename os.remove os.rmdir"
STEPS = f"{MOVES} os.mkdir os.chmod os.link os.truncate open"
"""Python's events for what changes files."""


def killed_at_every_step(program: str, before: Path, work: Path, steps: str = STEPS) -> list[Path]:
    """Copies of a folder in which ``change(folder)`` ended before its first, second, ... step.

    Args:
        program: Python that defines ``change``.
        before: The folder to copy.
        work: An empty folder for the copies.
        steps: The events before which the process ends.

    Returns:
        The copies in the order of the steps; in the last one ``change`` went to its end.
    """
    arguments = [str(before), str(work), str(Path(__file__).parents[2]), steps]
    result = run_python("-c", _PROGRAM.format(program=program), *arguments)
    assert result.returncode == 0, result.stderr
    return sorted(work.iterdir(), key=lambda folder: int(folder.name))


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by relative path."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def make_files(folder: Path, files: dict[str, bytes]) -> Path:
    """The opposite of `contents`."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def modes(folder: Path) -> set[int]:
    """The permissions of all files below a folder."""
    return {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}


def usual_mode(folder: Path) -> int:
    """What the umask allows for a new file, by one that is made in a folder and removed."""
    path = folder / "new"
    path.touch()
    mode = path.stat().st_mode & 0o777
    path.unlink()
    return mode
