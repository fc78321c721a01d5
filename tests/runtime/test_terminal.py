"""What reaches the terminal: nothing that controls it, and no crash where there is none."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from florence_onnx.cli.program import main
from florence_onnx.errors import CheckpointError, FlorenceError, ModelNotFoundError
from florence_onnx.resolver import resolve
from florence_onnx.terminal import one_line, printable, say
from tests.helpers.picture_files import encoded, png_chunk
from tests.helpers.tiny import TINY, picture, run_python, without_notes

MODEL = ("--model", str(TINY), "--threads", "1", "--max-new-tokens", "12")
CLEAR = "\x1b[2J\x9b\u202e"
SPELLED = "\\u001b[2J\\u009b\\u202e"
ON_POSIX = pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes streams")


@pytest.fixture
def photo(tmp_path: Path) -> str:
    path = tmp_path / "photo.png"
    Image.fromarray(picture(1, 40, 60)).save(path)
    return str(path)


# Characters that control a terminal


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("caf\u00e9 \u732b \u3000 \U0001f408\u200d\u2b1b", None),
        (CLEAR, SPELLED),
        ("a\rb\bc\0\x7f", "a\\u000db\\u0008c\\u0000\\u007f"),
        ("\u2028\u2066\udcff", "\\u2028\\u2066\\udcff"),
        ("a\n\tb", "a\\u000a\\u0009b"),
    ],
)
def test_what_is_spelled_out(text: str, safe: str | None) -> None:
    assert printable(text) == (text if safe is None else safe)
    assert json.loads(f'"{printable(text)}"') == text


def test_some_controls_may_stay() -> None:
    assert printable("a\n\tb\r", keep="\n\t") == "a\n\tb\\u000d"
    assert one_line("a\n  b\x1b") == "a b\\u001b"


@pytest.mark.parametrize("kind", [FlorenceError, ModelNotFoundError, CheckpointError])
def test_exceptions(kind: type[FlorenceError]) -> None:
    """Whoever prints or logs one gets no escape codes and nothing that no encoding has."""
    assert str(kind(f"a {CLEAR}\udcff\nb")) == f"a {SPELLED}\\udcff\nb"


def test_no_line_is_endless() -> None:
    assert one_line("x" * 10**6) == "x" * 2000 + " [...]"


def test_labels_of_a_stranger(
    photo: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"a{CLEAR}b<loc_0><loc_0><loc_499><loc_999>"
    monkeypatch.setattr("florence_onnx.tokenizer.Tokenizer.decode", lambda self, ids: text)
    assert main(["run", photo, "--task", "od", *MODEL]) == 0
    assert capsys.readouterr().out == f"a{SPELLED}b: 0.0 0.0 30.0 40.0\n"
    assert main(["run", photo, "--task", "od", "--json", *MODEL]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isprintable()
    assert json.loads(line)["text"] == text


def test_a_text_answer_keeps_its_lines(
    photo: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("florence_onnx.tokenizer.Tokenizer.decode", lambda self, ids: "a\n\tb\x1bc")
    assert main(["run", photo, "--task", "caption", *MODEL]) == 0
    assert capsys.readouterr().out == "a\n\tb\\u001bc\n"


@ON_POSIX
def test_names_of_files(tmp_path: Path, photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = tmp_path / f"a{CLEAR}\n.png"
    hostile.write_bytes(Path(photo).read_bytes())
    undecodable = os.fsdecode(bytes(tmp_path / "b.png").replace(b"b.png", b"\xff.png"))
    Path(undecodable).write_bytes(b"no picture")
    assert main(["run", str(hostile), undecodable, "--task", "od", *MODEL]) == 2
    out, err = capsys.readouterr()
    first = out.splitlines()[0]
    assert first == f"{tmp_path}/a{SPELLED}\\u000a.png:"
    assert err.replace("\n", "").isprintable()
    (line,) = without_notes(err)
    assert line.startswith(f"florence-onnx: {tmp_path}/\\udcff.png: ")
    assert main(["run", str(hostile), "--task", "od", "--json", *MODEL]) == 0
    line = capsys.readouterr().out[:-1]
    assert line.isprintable()
    assert json.loads(line)["image"] == str(hostile)


@pytest.mark.parametrize(
    "command",
    [
        ["info", f"/nowhere{CLEAR}"],
        ["info", f"org/{CLEAR}"],
        ["run", "x.png", "--task", f"odd{CLEAR}", *MODEL],
        ["run", "x.png", "--task", "od", *MODEL, "--provider", CLEAR],
        ["run", "x.png", "--task", "region_to_ocr", "--region", CLEAR, *MODEL],
        ["run", CLEAR, "--task", "od", *MODEL],
        ["run", CLEAR],
        ["export", f"/nowhere{CLEAR}", "out"],
        ["quantize", f"/nowhere{CLEAR}", "--precision", "q8"],
    ],
)
def test_errors(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err[:-1].isprintable()


@pytest.mark.parametrize(
    "command",
    [
        [CLEAR],
        ["info", str(TINY), CLEAR],
        ["info", str(TINY), f"--{CLEAR}"],
        ["bench", str(TINY), "--tokens", CLEAR],
        ["run", CLEAR, "--threads", CLEAR],
        ["run", "photo", "--task", "od", "--draw=--", *MODEL],
        ["info", str(TINY), "--provider=--"],
    ],
)
def test_errors_of_the_arguments(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(command)
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert err.replace("\n", "").isprintable()
    assert "florence-onnx" in err.splitlines()[-1]


def test_a_warning_of_another_package(tmp_path: Path) -> None:
    """Pillow warns of EXIF that is cut off; the picture is answered."""
    data = encoded(Image.new("RGB", (8, 8)), "PNG")
    exif = b"MM\0*\0\0\0\x08" + b"\xff" * 60
    (tmp_path / "photo.png").write_bytes(data[:33] + png_chunk(b"eXIf", exif) + data[33:])
    photo = str(tmp_path / "photo.png")
    result = run_python("-m", "florence_onnx", "run", photo, "--task", "od", *MODEL)
    assert result.returncode == 0
    (line,) = without_notes(result.stderr)
    assert line.startswith("note: Corrupt EXIF data.")


# Streams that are closed, None, or lead nowhere


def closed_file(tmp_path: Path) -> Any:
    stream = (tmp_path / "log").open("w")
    stream.close()
    return stream


@pytest.mark.parametrize("closed", [False, True])
def test_a_program_without_streams(
    tmp_path: Path, photo: str, monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    """As under pythonw, where both are None."""
    stream = closed_file(tmp_path) if closed else None
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("sys.stderr", stream)
    assert main(["run", photo, photo, "--task", "od", *MODEL]) == 0
    assert main(["run", "nothing.png", "--task", "od", *MODEL]) == 2
    assert main(["info", str(TINY)]) == 0
    assert main(["info", "/nowhere"]) == 2
    for arguments, status in ((["--help"], 0), ([], 2)):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == status
    assert (sys.stdout, sys.stderr) == (stream, stream)


@pytest.mark.parametrize("closed", [False, True])
def test_without_stderr_nothing_else_is_written_to(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    closed: bool,
) -> None:
    """print(file=None) prints on stdout."""
    monkeypatch.setattr("sys.stderr", closed_file(tmp_path) if closed else None)
    say("a line")
    assert main(["info", "/nowhere"]) == 2
    assert (
        main(["bench", str(TINY), "--tokens", "3", "--repeats", "1", "--warmup", "0", "--json"])
        == 0
    )
    json.loads(capsys.readouterr().out)


@ON_POSIX
@pytest.mark.parametrize("closing", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors(tmp_path: Path, photo: str, closing: str) -> None:
    """As of a service."""
    drawn, missing = tmp_path / "drawn", tmp_path / "missing.png"
    program = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
    shell = f'"$0" -m florence_onnx "$@" {closing}'
    start = ("-c", program, "sh", "-c", shell, sys.executable)
    run = ("run", photo, str(missing), "--task", "od", "--json", *MODEL, "--draw", str(drawn))
    result = run_python(*start, *run)
    assert result.returncode == 2
    assert result.stderr.count("\n") == (closing == ">&-")
    assert [json.loads(line)["image"] for line in result.stdout.splitlines()] == [photo] * (
        closing == "2>&-"
    )
    with Image.open(drawn / "photo.png") as image:
        image.load()


@ON_POSIX
def test_no_file_takes_the_number_of_a_stream(tmp_path: Path) -> None:
    """It would get what libraries write to that stream."""
    number = tmp_path / "number"
    program = (
        "import os, sys\n"
        "from florence_onnx.cli.streams import standard_streams\n"
        "for number in range(3): os.close(number)\n"
        "with standard_streams():\n"
        "    file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)\n"
        "    os.write(file, b'%d' % file)\n"
    )
    run_python("-c", program, str(number))
    assert int(number.read_text()) > 2


@ON_POSIX
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_stderr_that_takes_nothing(photo: str) -> None:
    program = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
    shell = '"$0" -m florence_onnx "$@" 2>/dev/full'
    start = ("-c", program, "sh", "-c", shell, sys.executable)
    result = run_python(*start, "run", photo, "missing.png", "--task", "od", *MODEL)
    assert result.returncode == 2
    assert result.stdout.startswith(f"{photo}:\n")


# Words that come once


def test_the_demo_says_once_what_it_knows() -> None:
    program = (
        "from florence_onnx import Florence2\n"
        "for _ in range(2): Florence2.load('demo', threads=1)\n"
    )
    result = run_python("-c", program)
    assert (result.returncode, result.stdout) == (0, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("note: the demo model knows drawn scenes only")


def test_other_models_say_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    resolve(TINY)
    assert capfd.readouterr() == ("", "")


def test_memory_that_does_not_suffice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("florence_onnx.cli.info.locate", fail)
    assert main(["info", str(TINY)]) == 2
    assert capsys.readouterr() == ("", "florence-onnx: error: the memory does not suffice\n")
