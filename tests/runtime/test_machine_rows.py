"""The report of a benchmark: a row of the table of machines, and the JSON behind it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from florence_onnx import machine
from florence_onnx.cli.program import main
from florence_onnx.engine import processor
from florence_onnx.machine_rows import table
from florence_onnx.profiling import STAGES
from tests.helpers.tiny import TINY

BENCH = ["bench", str(TINY), "--repeats", "1", "--warmup", "0"]


def row(**changes: Any) -> dict[str, Any]:
    """A record with round numbers."""
    seconds = dict.fromkeys((*STAGES, "total"), 0.25)
    packages = {"numpy": "2.4.6", "onnxruntime": "1.30.0", "onnxruntime-gpu": "1.32.0"}
    record = {"machine": "A", "cores": 4, "threads": None, "memory_gb": 8.2, "model": "base"}
    record |= {"precision": "q8", "fast_math": False, "providers": ["CPUExecutionProvider"]}
    record |= {
        "packages": packages,
        "onnxruntime": "1.32.0",
        "seconds": seconds,
        "peak_mb": 517,
        "date": "2026-11-26",
    }
    return {**record, **changes}


def cells(**changes: Any) -> list[str]:
    head, _, line = table([row(**changes)]).splitlines()
    assert head.count("|") == line.count("|")
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_report_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "results"
    options = ["--threads", "1", "--machine", "Acme | 9000", "--report", str(folder), "--json"]
    assert main([*BENCH, *options]) == 0
    out, err = capsys.readouterr()
    files = sorted(folder.iterdir())
    name = "acme-9000-other-width-32-2-layers-64x64-fp32"
    assert [file.name for file in files] == [f"{name}.json", f"{name}.md"]
    assert err.splitlines()[-1] == f"wrote {files[0]} and {name}.md"
    content = json.loads(files[0].read_text())
    printed = json.loads(out)
    assert content["seconds"] == printed["seconds"]
    assert (content["tokens"], content["beams"], content["repeats"]) == (32, 3, 1)
    assert (printed["tokens"], printed["beams"]) == (32, 3)
    assert content["machine"] == "Acme | 9000"
    assert content["cpu"] == machine.processor_name()
    assert {"numpy", "onnxruntime", "florence-onnx"} <= content["packages"].keys()
    assert content["onnxruntime"] == ort.__version__
    assert content["providers"] == ["CPUExecutionProvider"]
    assert files[1].read_text() == table([content])
    assert "| Acme / 9000 | 1 of " in files[1].read_text()
    assert str(TINY) not in files[0].read_text() + files[1].read_text()


def test_a_report_in_a_file_replaces_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.json"
    assert main([*BENCH, "--report", str(file)]) == 0
    before = file.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.json", "mine.md"]
    capsys.readouterr()
    for lost in (None, file):
        if lost:
            lost.unlink()
        assert main([*BENCH, "--report", str(file)]) == 2
        (line,) = capsys.readouterr().err.splitlines()  # Nothing has been timed.
        there = file if lost is None else file.with_suffix(".md")
        expected = f"{there} exists already; remove it or name another file"
        assert line == f"florence-onnx: error: {expected}"
        assert lost or file.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--report", "x", "--tokens", "20"], "compare answers of 32 tokens with 3 beams"),
        (["--report", "x", "--beams", "1"], "compare answers of 32 tokens with 3 beams"),
        (["--machine", "mine"], "give --report too"),
        (["--report", "x", "--machine", " "], "--machine ' ' is no line of text"),
        (["--report", "x", "--machine", "a\udcff"], "is no line of text"),
        (["--report", "x", "--machine", "a\x1b[31m"], "is no line of text"),
        (["--report", "x", "--machine", "a\nb"], "is no line of text"),
        (["--report", "row.md"], "row.md is no folder and no name of a JSON file"),
        (["--report", f"{'x' * 300}.json"], "File name too long"),
    ],
)
def test_what_is_no_row_is_refused(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*BENCH, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert main([*BENCH, "--report", str(tmp_path / "file" / "rows")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Not a directory" in line


def test_a_file_that_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "notes"
    file.write_bytes(b"mine")
    assert main([*BENCH, "--report", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{file} is no folder and no name of a JSON file" in line
    assert file.read_bytes() == b"mine"


def test_a_folder_with_the_name_of_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "rows.json"
    folder.mkdir()
    assert main([*BENCH, "--report", str(folder)]) == 0
    assert {file.suffix for file in folder.iterdir()} == {".json", ".md"}


def test_a_folder_that_cannot_be_written_is_told_before_the_timing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    assert main([*BENCH, "--report", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Permission denied" in line and str(tmp_path) in line


def test_a_long_name_of_a_machine(tmp_path: Path) -> None:
    assert main([*BENCH, "--report", str(tmp_path), "--machine", "x" * 300]) == 0
    assert {file.name for file in tmp_path.iterdir()} == {f"{'x' * 100}.json", f"{'x' * 100}.md"}


@pytest.mark.parametrize("asked", [[], ["--precision", "auto"], ["--precision", "q8"]])
def test_a_model_that_is_not_made(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To make it in the process would count to the peak memory."""
    options = ["--report", str(tmp_path / "rows"), "--cache-dir", str(tmp_path / "cache")]
    assert main(["bench", "org/name", *options, *asked]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    more = " --precision q8" if "q8" in asked else ""
    assert line.endswith(f"; first run florence-onnx pull org/name{more}")
    assert list(tmp_path.iterdir()) == []


def test_the_words_of_a_row() -> None:
    assert cells()[:6] == ["A", "4", "8 GB", "base", "q8", "1.32.0"]
    assert cells()[6:12] == ["250 ms"] * 6
    assert cells()[12:] == ["250 ms", "517 MB", "2026-11-26"]
    assert cells(threads=2)[1] == "2 of 4"
    assert cells(fast_math=True)[4] == "q8, fast_math"
    both = ["CPUExecutionProvider", "OpenVINOExecutionProvider"]
    assert cells(providers=both)[4] == "q8 on OpenVINO"
    assert cells(peak_mb=None, memory_gb=None)[2] == cells(peak_mb=None)[13] == ""
    assert cells(machine="a|b\n<i>")[0] == "a/b (i)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.000123, "0.123 ms"), (0.01234, "12.3 ms"), (0.9996, "1000 ms"), (1.2345, "1.23 s")],
)
def test_the_times_of_a_row(seconds: float, text: str) -> None:
    assert cells(seconds=dict.fromkeys((*STAGES, "total"), seconds))[6] == text


def test_rows_that_compare_stand_together() -> None:
    slow = dict.fromkeys((*STAGES, "total"), 1.0)
    rows = [row(machine="C", seconds=slow), row(machine="B", model="large"), row(machine="A")]
    order = [line.split("|")[1].strip() for line in table(rows).splitlines()[2:]]
    assert order == ["A", "C", "B"]


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor : 0\nmodel : 17\nmodel name\t: AMD EPYC\nflags : fpu\n", "AMD EPYC"),
        (
            "processor : 0\nFeatures : fp\n\nModel\t\t: Raspberry Pi 5\n",
            "Raspberry Pi 5",
        ),
        ("processor : 0\nFeatures : fp\n", "aarch64"),
    ],
)
def test_the_name_of_a_processor(
    cpuinfo: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert machine.processor_name() == name


def test_the_name_of_a_mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 0, stdout="Apple M4\n")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: done)
    assert machine.processor_name() == "Apple M4"
