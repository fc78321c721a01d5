"""What an annotation says of its progress."""

import io
import sys

import pytest

from florence_onnx.annotate.pipeline import Summary
from florence_onnx.cli import progress


@pytest.mark.parametrize(
    ("summary", "limit", "seconds", "text"),
    [
        (Summary(), None, 0.0, "0 of 500 pictures"),
        (Summary(pictures=100), None, 50.0, "100 of 500 pictures, 2.00 a second, 0:03:20 left"),
        (
            Summary(pictures=300, skipped=200, errors=1),
            None,
            50.0,
            "300 of 500 pictures, 2.00 a second, 0:01:40 left, 200 skipped, 1 error",
        ),
        (
            Summary(pictures=100, errors=3),
            110,
            50.0,
            "100 of 500 pictures, 2.00 a second, 0:00:05 left, 3 errors",
        ),
        (Summary(pictures=9, skipped=9), None, 3.0, "9 of 500 pictures, 9 skipped"),
        (
            Summary(pictures=1),
            None,
            400.0,
            "1 of 500 pictures, 0.00 a second, 2 days, 7:26:40 left",
        ),
    ],
)
def test_the_state_on_a_line(
    summary: Summary, limit: int | None, seconds: float, text: str
) -> None:
    assert progress.state(summary, 500, limit, seconds) == text


def test_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    watch = progress.lines(lambda summary: f"at {now[0]}", lambda: now[0])
    for now[0] in (101.0, 129.0, 130.0, 131.0, 159.0, 165.0):
        watch(Summary())
    out, err = capsys.readouterr()
    assert (out, err) == ("", "at 130.0\nat 165.0\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watched(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.progress(4, None) as watch:
        watch(Summary(pictures=3, errors=2))
    return stream.getvalue()


def test_a_bar_where_a_person_is_watching(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rich")
    shown = watched(monkeypatch, Terminal())
    assert "3 of 4 pictures" in shown
    assert "2 errors" in shown
    assert watched(monkeypatch, io.StringIO()) == ""
    assert capsys.readouterr().out == ""


def test_no_bar_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(progress, "_PAUSE", 0.0)
    assert watched(monkeypatch, Terminal()).startswith("3 of 4 pictures")
