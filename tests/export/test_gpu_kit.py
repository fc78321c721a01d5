"""The command that checks and times a GPU, on the CPU."""

import json
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import __main__ as kit
from benchmarks.gpu import checks, models, tables, wheels
from benchmarks.gpu.budget import Budget
from benchmarks.harness import measuring
from benchmarks.harness.common import BenchmarkError
from florence_onnx import Florence2, Result
from florence_onnx_export.quantization.bounds import BOUNDS, Bounds


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture
def options(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(measuring, "PAUSE", 0)
    monkeypatch.setattr(kit, "GRACE", 1e6)
    monkeypatch.setattr(checks, "PICTURES", 1)
    monkeypatch.setattr(checks, "CASES", 2)
    monkeypatch.setattr(checks, "PARITY_MODELS", checks.PARITY_MODELS[:1])
    monkeypatch.setattr(tables, "BATCHES", (1, 2))
    monkeypatch.setattr(tables, "THEIRS", ("transformers_eager:fp32-eager",))
    monkeypatch.setattr(tables, "CASES", {"CAPTION of 4 tokens": ("<CAPTION>", 4)})
    options = ["--provider", "CPUExecutionProvider", "--geometry", "tiny", "--no-compiled"]
    options += ["--threads", "1", "--repeats", "1", "--seconds", "1e6"]
    return [*options, "--work", str(work), "--out", str(tmp_path / "gpu.json")]


def written(tmp_path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((tmp_path / "gpu.json").read_text())
    return record


def test_everything_is_checked_and_timed(options: list[str], tmp_path: Path) -> None:
    assert kit.main(options) == 0
    record = written(tmp_path)
    assert [check["name"] for check in record["checks"] if check["passed"]] == [
        "the provider runs every graph",
        "demo, features of 1 to 9 pictures",
        *("demo, fp32 answers", "demo, fp16 errors", "demo, fp16 answers"),
        *("demo, a batch of all tasks", "random model, fp32 answers"),
        *("random model, a cache that grows", "searches beside transformers"),
    ]
    assert record["checks"][2]["detail"] == "30 of 30 answers have the tokens of the CPU"
    assert list(record["values"]) == [
        *("tiny: vision", "tiny: first token after the picture is encoded", "tiny: a step"),
        *("tiny: CAPTION of 4 tokens, 1 picture", "tiny: CAPTION of 4 tokens, 2 pictures"),
    ]
    for sides in record["values"].values():
        assert list(sides) == ["ours fp32", "ours fp16", "transformers fp32-eager"]
    assert "tiny: a step: ours fp16 / transformers fp32-eager" in record["ratios"]
    assert record["notes"] == []


def test_what_fails_is_told_and_stops_nothing(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Florence2.run

    def broken(model: Florence2, *arguments: Any, **more: Any) -> list[Result]:
        if more.get("min_new_tokens") == 200:
            raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED\nand where")
        results = run(model, *arguments, **more)
        return results if model.precision == "fp32" else results[:1] * len(results)

    monkeypatch.setattr(Florence2, "run", broken)
    monkeypatch.setitem(BOUNDS, "fp16", Bounds(1e-9, 1e-9))
    for other in ("_same_answers", "_batched_answers", "_parity"):
        monkeypatch.setattr(checks, other, lambda *ignored: (True, ""))
    assert kit.main([*options, "--seconds", "0"]) == 1
    record = written(tmp_path)
    failed = {check["name"]: check["detail"] for check in record["checks"] if not check["passed"]}
    assert failed.keys() == {
        *("demo, fp16 errors", "demo, fp16 answers", "random model, a cache that grows")
    }
    assert failed["random model, a cache that grows"] == "RuntimeError: CUBLAS_STATUS_ALLOC_FAILED"
    assert record["values"] == {}
    assert record["notes"] == [
        "tiny with ours:fp32, ours:fp16, transformers_eager:fp32-eager was left out: the time was "
        "over."
    ]


def test_cases_are_begun_only_where_there_is_time(
    options: list[str], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = models.make_setup("tiny", work, "CPUExecutionProvider", 1)
    budget = Budget(0)
    monkeypatch.setattr(budget, "left", iter([9, 9, -1, -1, -1, -1]).__next__)
    *_, (cases, notes) = tables.measure(setup, ["ours:fp32"], 1, budget)
    assert "vision" in cases and "CAPTION of 4 tokens, 2 pictures" not in cases
    assert notes[-1] == "CAPTION of 4 tokens, 2 pictures was left out: 0 s were left."


@pytest.mark.parametrize("interrupted", ["checks", "measurements"])
def test_a_run_ends_in_the_middle_of_a_case(
    interrupted: str, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = checks.Check("the first", True, "")

    def made(setup: Any) -> Iterator[checks.Check]:
        yield first
        if interrupted == "checks":
            signal.raise_signal(signal.SIGALRM)

    def measure(*ignored: Any) -> Iterator[tuple[tables.Cases, list[str]]]:
        yield {"a step": {"ours fp32": [0.5]}}, []
        signal.raise_signal(signal.SIGALRM)
        yield {}, ["this is not reached"]

    monkeypatch.setattr(checks, "run_checks", made)
    monkeypatch.setattr(tables, "measure", measure)
    assert kit.main(options) == (interrupted == "checks")
    record = written(tmp_path)
    assert [check["name"] for check in record["checks"]] == ["the first"]
    assert list(record["values"]) == ([] if interrupted == "checks" else ["tiny: a step"])
    ended = "The run was ended: the time was over. What is missing had no time."
    assert record["notes"] == [ended]
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_one_record_cannot_be_printed_after_every_step(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        kit.main([*options[:-2], "--json"])
    assert "writes its file after every step" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--wheels", "x"], ["--wheels=x"], ["--wh", "x"], []])
def test_the_installed_wheels_are_not_named_again(given: list[str]) -> None:
    others = ["--provider", "P", "--geometry", "base", "large", "--seconds=9", "--work", "w"]
    assert kit.without_wheels([*others, *given]) == others
    assert kit.without_wheels([*given, *others]) == others


def make_wheel(folder: Path, name: str, value: int) -> Path:
    """A wheel with one module."""
    about = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": f"VALUE = {value}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{file},,\n" for file in (*files, f"{about}/RECORD"))
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, content in files.items():
            wheel.writestr(file, content)
    return path


def test_wheels_in_parts_are_joined_and_installed(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    wheel = make_wheel(tmp_path / "made", "florence_onnx_probe", 7)
    folder = tmp_path / "wheels"
    folder.mkdir()
    content = wheel.read_bytes()
    for number, start in enumerate(range(0, len(content), 300)):
        part = folder / f"{wheel.name}.part-{number:02}"
        part.write_bytes(content[start : start + 300])
    earlier = tmp_path / "site" / "florence_onnx_probe-0.9.dist-info"
    earlier.mkdir(parents=True)
    wheels.install(folder, tmp_path / "site")
    assert (tmp_path / "site" / "florence_onnx_probe.py").read_text() == "VALUE = 7\n"
    assert not earlier.exists()


def test_a_folder_without_wheels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="holds no wheels and no parts of wheels"):
        wheels.install(tmp_path, tmp_path / "site")
