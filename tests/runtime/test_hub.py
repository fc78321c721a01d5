"""Downloads from a hub on 127.0.0.1: what is said before, and what can happen meanwhile."""

import errno
import importlib.util
import os
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from florence_onnx import (
    CheckpointError,
    DiskSpaceError,
    Florence2,
    ModelNotFoundError,
    hub,
    model_cache,
)
from florence_onnx.cli.program import main
from florence_onnx.engine import contract
from florence_onnx.hub import Access
from florence_onnx.resolver import resolve
from florence_onnx.skeletons.filling import GEOMETRY, SKELETONS
from tests.helpers.hub import COMMIT, Hub, limit_waits, serve_hub, use_empty_cache, use_hub
from tests.helpers.plain_checkpoints import save_arrays
from tests.helpers.tiny import TINY, run_python

NAME = "someone/Florence-2-tiny"
LATER = "fade" + "0" * 36
WEIGHTS = contract.graph_file("vision_encoder", "fp32")
FILES = 9
"""Four graphs and five files beside them."""


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder, as a repository holds them."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_empty_cache(monkeypatch, tmp_path / "hub")
    return tmp_path / "hub"


@pytest.fixture
def served(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serves the tiny model's graphs."""
    limit_waits(monkeypatch, 5)
    with serve_hub(NAME, files_of(TINY)) as server:
        use_hub(monkeypatch, server.url)
        yield server


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of the downloads."""
    lines: list[str] = []
    monkeypatch.setattr(hub, "say", lines.append)
    return lines


def empty_file(folder: Path) -> Path:
    """A file in the place of a picture, for commands that look at no pixels."""
    path = folder / "photo.jpg"
    path.touch()
    return path


def leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the network away."""
    use_hub(monkeypatch, "http://127.0.0.1:1")


def test_what_how_large_and_where_to_is_said_before(
    served: Hub, cache: Path, said: list[str]
) -> None:
    served.event = said.append
    resolve(NAME)
    (line,) = (line for line in said if line.startswith("fetching"))
    assert line == f"fetching {FILES} files of {NAME}, 1.9 MB, to {cache}"
    first = next(number for number, text in enumerate(said) if "/resolve/" in text)
    assert said.index(line) < first


def test_nothing_is_said_of_what_is_there(served: Hub, cache: Path, said: list[str]) -> None:
    folder = resolve(NAME)
    (folder / "tokenizer.json").unlink()
    (folder / WEIGHTS).unlink()
    said.clear()
    resolve(NAME)  # Its content is still there, and only the name has to be put back.
    assert said == []
    link = folder / WEIGHTS
    content = link.resolve()
    link.unlink()
    content.unlink()
    resolve(NAME)
    assert said == [f"fetching 1 file of {NAME}, 1.1 MB, to {cache}"]


def test_a_gain_that_may_have_to_be_fetched(
    served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No other precision can be made of a repository of graphs."""
    monkeypatch.setattr("florence_onnx.engine.precision.has_int8_dot_products", lambda: True)
    pull = f"florence-onnx pull {NAME} --precision q8"
    asked = ["--task", "od", "--model", NAME, "--provider", "CPUExecutionProvider"]
    assert main(["run", str(empty_file(tmp_path)), *asked]) == 2  # The picture is read later.
    assert (
        "precision: fp32; q8 is faster on this machine and less exact, and is fetched by "
        f"{pull} if the repository has it\n"
    ) in capsys.readouterr().err
    assert main(pull.split()[1:]) == 2
    assert "has no graphs of precision 'q8'; it has fp32" in capsys.readouterr().err


def test_a_connection_that_breaks_once(served: Hub) -> None:
    served.breaks = 1
    folder = resolve(NAME)
    assert files_of(folder) == files_of(TINY)
    assert served.breaks == 0


def test_a_connection_that_breaks_always(served: Hub) -> None:
    """What has come is not fetched again."""
    served.breaks = 1000
    with pytest.raises(ModelNotFoundError) as error:
        resolve(NAME)
    assert str(error.value) == (
        f"the download of hub model '{NAME}' broke off; run it again, and what has come stays"
    )
    assert "config.json" in served.fetched
    served.breaks = 0
    served.requests.clear()
    assert files_of(resolve(NAME)) == files_of(TINY)
    assert "config.json" not in served.fetched


def test_a_branch_that_moves_meanwhile(served: Hub, cache: Path) -> None:
    """All files are of one commit."""
    before = dict(served.files)

    def move(line: str) -> None:
        if line.startswith("GET ") and line.endswith("config.json") and served.commit == COMMIT:
            served.move(LATER, dict.fromkeys(before, b"{}"))

    served.event = move
    folder = resolve(NAME)
    assert folder.name == COMMIT
    assert files_of(folder) == before


def test_a_branch_that_has_moved(
    served: Hub, said: list[str], capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    first = resolve(NAME)
    served.tags["v1"] = COMMIT
    served.move(LATER, {**served.files, "config.json": served.files["config.json"] + b" \n" * 600})
    assert resolve(NAME) == first  # The cache is used as it is.
    said.clear()
    assert main(["pull", NAME]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder.name == LATER
    # Other commits have the same weights.
    assert said == [f"fetching 1 file of {NAME}, 2.8 kB, to {cache}"]
    assert resolve(NAME) == folder
    for revision in ("v1", COMMIT):
        assert resolve(NAME, access=Access(revision)) == first
    assert Florence2.load(NAME, revision="v1", threads=1).precision == "fp32"


def test_a_pull_without_a_network(
    served: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is in the cache stays and is opened."""
    leave(monkeypatch)
    assert main(["pull", NAME]) == 2
    assert f"'{NAME}' is not in the cache; the hub cannot be reached" in capsys.readouterr().err
    use_hub(monkeypatch, served.url)
    folder = resolve(NAME)
    leave(monkeypatch)
    capsys.readouterr()
    assert main(["pull", NAME]) == 2
    assert capsys.readouterr().err.startswith(
        f"florence-onnx: error: hub model '{NAME}' is in the cache, but whether it has changed "
        "cannot be asked; the hub cannot be reached: "
    )
    assert main(["pull", NAME, "--local-files-only"]) == 0
    assert capsys.readouterr().out.strip() == str(folder)
    assert resolve(NAME) == folder


@pytest.mark.parametrize("foreseen", [True, False])
def test_remove_where_nothing_can_be_removed(
    served: Hub,
    cache: Path,
    foreseen: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As on a disk that is read-only, which the system may or may not tell beforehand."""
    folder = resolve(NAME)
    before = files_of(folder)

    def refuse(*arguments: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder / "config.json"))

    if foreseen:
        monkeypatch.setattr(os, "access", lambda *_: False)
    else:
        monkeypatch.setattr(model_cache, "_remove_fetched", refuse)
    capsys.readouterr()
    assert main(["remove", NAME]) == 2
    reason = (
        f"cannot be removed: {folder} cannot be written"
        if foreseen
        else f"cannot be removed as a whole: {folder / 'config.json'}: Read-only file system"
    )
    assert capsys.readouterr().err == f"florence-onnx: error: {NAME} {reason}\n"
    assert files_of(folder) == before


def test_list_and_remove(served: Hub, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Repositories of graphs are listed too; removing one leaves its copies."""
    served.others["someone/copy"] = served.files
    folders = [resolve(name) for name in (NAME, "someone/copy")]
    capsys.readouterr()
    assert main(["list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{name}  {COMMIT[:8]}  1.9 MB  fp32" for name in (NAME, "someone/copy")
    ]
    assert main(["remove", NAME]) == 0
    assert capsys.readouterr().out == f"removed {NAME}: 1.9 MB\n"
    assert [folder.exists() for folder in folders] == [False, True]


def test_a_refused_checkpoint_leaves_no_folder(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fetched files stay in the hub library's cache; of the model, nothing is left."""
    save_arrays(tmp_path / "weights", {"vision_tower.x": np.zeros(3, np.float32)})
    config = (SKELETONS / "base" / GEOMETRY).read_bytes()
    weights = (tmp_path / "weights").read_bytes()
    before = {*tmp_path.iterdir()}
    with serve_hub(NAME, {"config.json": config, "model.safetensors": weights}) as server:
        use_hub(monkeypatch, server.url)
        for _ in range(2):
            with pytest.raises(CheckpointError):
                resolve(NAME)
    assert server.fetched == {"config.json", "model.safetensors"}
    assert {*tmp_path.iterdir()} == before | {cache}


def test_local_files_only(served: Hub) -> None:
    with pytest.raises(ModelNotFoundError) as error:
        Florence2.load(NAME, local_files_only=True)
    assert str(error.value) == (
        f"there is no folder '{NAME}', and hub model '{NAME}' is not in the cache, and the hub is "
        "not asked: local files only"
    )
    assert served.requests == []
    Florence2.load(NAME, threads=1)
    served.requests.clear()
    Florence2.load(NAME, threads=1, local_files_only=True)
    assert served.requests == []


def test_a_cache_of_ones_own(
    served: Hub, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Florence2.load(NAME, cache_dir=tmp_path / "own", threads=1)
    assert not cache.exists()
    leave(monkeypatch)
    Florence2.load(NAME, cache_dir=str(tmp_path / "own"), threads=1)


@pytest.mark.parametrize("command", ["info", "bench", "tune", "pull", "run", "export"])
def test_commands_pass_on_where_a_model_may_come_from(
    served: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    place = [NAME]
    if command == "run":
        place = [str(empty_file(tmp_path)), "--task", "od", "--model", NAME]
    if command == "export":
        place = [NAME, str(tmp_path / "out")]
    own = str(tmp_path / "own")
    assert main([command, *place, "--cache-dir", own, "--revision", "v9"]) == 2
    assert f"'{NAME}' has no revision 'v9'" in capsys.readouterr().err
    served.requests.clear()
    assert main([command, *place, "--cache-dir", own, "--local-files-only"]) == 2
    assert "is not in the cache, and the hub is not asked" in capsys.readouterr().err
    assert served.requests == []


def test_wrong_input_is_refused_before_anything_is_fetched(
    served: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line for each picture if there is none, one line for options that no model takes."""
    there, lost = str(empty_file(tmp_path)), str(tmp_path / "lost.txt")
    Path(lost).write_text("no-1.jpg\nno-2.jpg\n")
    out = str(tmp_path / "out")
    od = ["--task", "od", "--model", NAME]
    commands = {
        ("run", "no-1.jpg", "no-2.jpg", *od): [
            f"florence-onnx: {name}: cannot read the picture '{name}': No such file or directory"
            for name in ("no-1.jpg", "no-2.jpg")
        ],
        ("run", str(tmp_path), *od): ["Is a directory"],
        ("run", there, *od, "--beams", "0"): ["num_beams is 0"],
        ("run", there, *od, "--labels", ","): ["at least one label"],
        ("run", there, "--task", "caption", "--model", NAME, "--labels", "car"): ["is for tasks"],
        ("annotate", "no-1.jpg", *od, "--out", out): ["no-1.jpg does not exist"],
        ("annotate", lost, *od, "--out", out): [
            "no picture that is listed exists; the first is no-1.jpg"
        ],
        ("annotate", there, *od, "--out", out, "--beams", "0"): ["num_beams is 0"],
    }
    for command, messages in commands.items():
        assert main(command) == 2
        out_text, err = capsys.readouterr()
        assert out_text == ""
        for line, message in zip(err.splitlines(), messages, strict=True):
            assert message in line
    assert served.requests == []


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("q8", "quantising needs onnx; run pip install 'florence-onnx[quantize]'"),
        ("int8", "unknown precision 'int8'; choose from fp32, fp16, q8, q4"),
    ],
)
def test_a_precision_that_cannot_be_made_is_refused_before_anything_is_fetched(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    precision: str,
    message: str,
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnx" else find_spec(name)
    )
    checkpoint = {"config.json": b"{}", "model.safetensors": b"x"}
    with serve_hub(NAME, checkpoint) as server:
        use_hub(monkeypatch, server.url)
        assert main(["pull", NAME, "--precision", precision]) == 2
        assert server.fetched == set()
    assert message in capsys.readouterr().err


def test_too_little_space(served: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is needed and what is free is said before any file is fetched."""
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(1_234_000))
    with pytest.raises(DiskSpaceError) as error:
        resolve(NAME)
    assert str(error.value) == (
        f"fetching {FILES} files of {NAME} needs 1.9 MB in {cache}, and 1.2 MB are free there"
    )
    assert served.fetched == set()


WITHOUT_PRIVILEGE = """
import ctypes, os, sys
if os.getuid() == 0:  # Permissions count for root too once it has let go of two capabilities.
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
"""

INFO = """
import os, sys
from florence_onnx.cli.program import main
if os.access(sys.argv[1], os.W_OK):
    sys.exit(77)
sys.exit(main(["info", sys.argv[2], "--cache-dir", sys.argv[1]]))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs permissions")
def test_a_cache_that_is_read_only(
    served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    own = tmp_path / "own"
    resolve(NAME, access=Access(cache_dir=own))
    folders = [own, *(path for path in own.rglob("*") if path.is_dir() and not path.is_symlink())]
    served.others["someone/else"] = served.files
    for folder in folders:
        folder.chmod(0o555)
    try:
        opened, failed = (
            run_python("-c", WITHOUT_PRIVILEGE, INFO, str(own), name)
            for name in (NAME, "someone/else")
        )
    finally:
        for folder in folders:
            folder.chmod(0o755)
    if opened.returncode == 77:
        pytest.skip("this user may write everywhere")
    assert opened.returncode == 0, opened.stderr
    assert failed.returncode == 2
    assert f"hub model 'someone/else' could not be fetched to {own}: " in failed.stderr
    assert failed.stderr.splitlines()[-1].endswith("--cache-dir choose another folder")


def test_environment_variables_that_the_hub_library_cannot_read(tmp_path: Path) -> None:
    photo = str(empty_file(tmp_path))
    for words in (["run", photo, "--task", "od", "--model", NAME], ["list"]):
        result = run_python("-m", "florence_onnx", *words, env={"HF_HUB_ETAG_TIMEOUT": "soon"})
        assert result.returncode == 2
        (line,) = result.stderr.splitlines()
        assert "an environment variable HF_… of the hub library is wrong" in line
        assert "'soon'" in line
