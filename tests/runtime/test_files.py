"""Files are opened when they are regular files, and nothing else is touched."""

import os
from pathlib import Path

import pytest

from florence_onnx.errors import ModelFileError
from florence_onnx.files import open_regular, read_json
from tests.helpers.strange_files import KINDS, strange_file


@pytest.mark.skipif(os.name != "posix", reason="fifos and devices have paths on POSIX")
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    with strange_file(kind, tmp_path) as path:
        with pytest.raises(OSError, match="Not a regular file") as raised:
            open_regular(path)
        assert raised.value.filename == str(path)
        with pytest.raises(ModelFileError, match=f"{path} cannot be read as JSON: .*regular file"):
            read_json(path)


@pytest.mark.skipif(os.name != "posix", reason="fifos and devices have paths on POSIX")
@pytest.mark.parametrize("kind", ["fifo", "link to a fifo", "device", "pipe"])
def test_what_takes_the_place_of_a_file_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = Path(__file__).stat()
    with strange_file(kind, tmp_path) as path:
        monkeypatch.setattr(Path, "stat", lambda self: status)
        with pytest.raises(OSError, match="Not a regular file"):
            open_regular(path)


def test_paths_that_name_no_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "missing")
    for path in ("a\0b", "a\ud800b", "a" * 5000, ""):
        with pytest.raises(OSError, match=r"."):
            open_regular(path)


def test_a_regular_file_and_a_link_to_it(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"content")
    link.symlink_to(path)
    for name in (path, str(link)):
        with open_regular(name) as file:
            assert file.read() == b"content"
