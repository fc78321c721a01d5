"""The benchmark scripts run, publish what they say, and refuse what they must; no clock is read."""

import dataclasses
import importlib
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import (
    annotating,
    annotating_memory,
    batching,
    choices,
    cold_start,
    compare,
    filling,
    profile,
    quantising,
    scaling,
    serving,
    serving_memory,
    size,
    stages,
    streaming,
)
from benchmarks.harness import command, fresh, measuring
from benchmarks.harness.checkpoint import kept, prepare
from benchmarks.harness.common import DEMO, BenchmarkError, Setup, make_parser, make_picture
from benchmarks.peers import Answer, open_peer, open_peers, vision_engines
from benchmarks.peers.ours import Ours
from benchmarks.report import __main__ as report
from benchmarks.report import engineering, front
from benchmarks.report.machines import machines, read_machines
from benchmarks.report.performance import performance
from benchmarks.report.records import read_records
from benchmarks.report.targets import TARGETS
from florence_onnx import Task, answering
from florence_onnx.assets.reading import Assets
from florence_onnx.assets.report import REPORT
from florence_onnx.cli.program import main
from florence_onnx.engine import contract
from florence_onnx.machine import peak_bytes
from florence_onnx.machine_rows import BEAMS, TOKENS, table
from florence_onnx.profiling import STAGES
from florence_onnx.terminal import size_text
from florence_onnx_export.quantization.fidelity import Fidelity, relative_error
from florence_onnx_export.quantization.methods import METHODS
from tests.helpers.hub import COMMIT
from tests.helpers.tiny import TINY

ROOT = Path(__file__).parents[2]
Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmarks")


@pytest.fixture
def options(work: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(measuring, "PAUSE", 0)
    return ["--model", "tiny", "--work", str(work), "--threads", "1", "--repeats", "1"]


@pytest.fixture
def run(options: list[str], tmp_path: Path) -> Run:
    def run(main: Callable[[list[str]], None], *more: str) -> dict[str, Any]:
        out = tmp_path / "result.json"
        main([*options, "--out", str(out), *more])
        record: dict[str, Any] = json.loads(out.read_text())
        return record

    return run


@pytest.fixture
def setup(options: list[str]) -> Setup:
    return prepare(make_parser("", 1).parse_args(options))


def check_record(record: dict[str, Any], name: str, *sides: str) -> None:
    """What every record must hold: the machine, and statistics that are those of its samples."""
    assert record["benchmark"] == name and record["model"] == "tiny"
    assert record["environment"].keys() >= {
        *("date", "command", "provider", "cpu", "cpu_flags", "cores", "threads"),
        *("platform", "python", "packages"),
    }
    assert record["environment"]["command"].startswith(f"python -m benchmarks.{name} --model tiny")
    assert record["environment"]["packages"].keys() >= {"numpy", "onnxruntime", "torch"}
    for values in record["values"].values():
        assert set(sides) <= values.keys()
        for value in values.values():
            assert len(value["samples"]) == record["repeats"]
            assert 0 < value["min"] == min(value["samples"])
            assert value["max"] == max(value["samples"])
            assert value["median"] == pytest.approx(median(value["samples"]), rel=1e-4)
    for value in record["ratios"].values():
        assert 0 < value["min"] <= value["median"] <= value["max"]


def check_targets(record: dict[str, Any], count: int) -> None:
    """That the targets which these sides can meet find their ratio under the name they have."""
    wanted = [
        target.ratio
        for target in TARGETS
        if target.benchmark == record["benchmark"]
        and not any(side in target.ratio for side in ("q8", "openvino", "torch.compile"))
    ]
    assert len(wanted) == count
    for name in wanted:
        assert any(fnmatchcase(found, name) for found in record["ratios"]), name


def test_compare(run: Run) -> None:
    peers = ["transformers_eager:fp32", "transformers_eager:bf16"]
    record = run(compare.main, "--repeats", "2", "--peers", *peers)
    check_record(record, "compare", "ours fp32", "transformers fp32", "transformers bf16")
    check_targets(record, 2)
    for case in compare.CASES:
        ours, theirs = (
            record["values"][case][f"{side} fp32"]["samples"] for side in ("ours", "transformers")
        )
        ratio = record["ratios"][f"{case}: ours fp32 / transformers fp32"]
        expected = [a / b for a, b in zip(ours, theirs, strict=True)]
        assert ratio["min"] == pytest.approx(min(expected), rel=1e-4)
        assert ratio["max"] == pytest.approx(max(expected), rel=1e-4)
        assert record["equal_tokens"][case]["ours fp32"] == 1


def test_compare_publishes_nothing_when_tokens_differ(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Ours.answer

    def wrong(self: Ours, *arguments: Any) -> list[Answer]:
        (right,) = answer(self, *arguments)
        ids = list(right.token_ids)
        ids[7] += 1
        return [dataclasses.replace(right, token_ids=tuple(ids))]

    monkeypatch.setattr(Ours, "answer", wrong)
    with pytest.raises(BenchmarkError, match="CAPTION of 20 tokens, answer 0: token 7 of 21"):
        run(compare.main, "--peers", "transformers_eager:fp32")
    assert not list(tmp_path.iterdir())


def test_a_profile_counts_the_arithmetic(run: Run) -> None:
    record = run(profile.main)
    sides = [f"ours fp32 {graph}" for graph in (contract.VISION_ENCODER, contract.ENCODER)]
    assert {side for values in record["values"].values() for side in values} == set(sides)
    assert [note.partition(":")[0] for note in record["notes"]] == sides
    shapes = [[{"float": [2, 3, 5, 7]}, {"float": [2, 3, 7, 11]}], [{"float": [2, 3, 5, 11]}]]
    names = ("input_type_shape", "output_type_shape")
    product = {"op_name": "MatMul", **dict(zip(names, shapes, strict=True))}
    assert profile.flop_of(product) == 2 * (2 * 3) * 5 * 7 * 11
    qkv = [[{"float": [4, 9, 8]}, {"float": [8, 24]}], [{"float": [4, 9, 8]}]]
    attention = {"op_name": "Attention", **dict(zip(names, qkv, strict=True))}
    assert profile.flop_of(attention) == 4 * (2 * 9 * 8 * 24 + 2 * 2 * 9 * 9 * 8)
    shapes = [[{"float": [4, 9, 8]}, {"float": [24]}], [{"float": [4, 9, 24]}]]
    packed = {"op_name": "DynamicQuantizeMatMul", **dict(zip(names, shapes, strict=True))}
    assert profile.flop_of(packed) == 2 * (4 * 9) * 8 * 24
    shapes = [[{"uint8": [4, 9, 8]}, {"int8": [4, 8, 24]}, {"float": []}], [{"float": [4, 9, 24]}]]
    rounded = {"op_name": "MatMulIntegerToFloat", **dict(zip(names, shapes, strict=True))}
    assert profile.flop_of(rounded) == 2 * (4 * 9) * 8 * 24
    assert rounded["op_name"] in profile._MATMULS
    shapes = [[{"float": [4, 9, 8]}] * 3, [{"float": [4, 9, 8]}]]
    heads = {"op_name": "MultiHeadAttention", **dict(zip(names, shapes, strict=True))}
    assert profile.flop_of(heads) == 4 * 2 * (2 * 9 * 9 * 8)


def test_choices(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "QUANTIZED", (contract.DECODER,))
    record = run(choices.main)
    names = ["fp32", *METHODS, "q8", "q4"]
    assert list(record["values"]) == [f"{contract.DECODER}, {name}" for name in names]

    def column(title: str) -> dict[str, float]:
        values = record["values"].values()
        return dict(zip(names, (value[title]["median"] for value in values), strict=True))

    errors, sizes = column("error"), column("file")
    assert errors["fp32"] == 0
    assert 0 < errors["blocks8"] < 0.5 * errors["blocks4"]
    assert 0 < errors["dynamic8"] < 0.5 * errors["blocks4"]
    assert sizes["blocks4"] < sizes["dynamic8"] < sizes["blocks8"]
    assert all(seconds > 0 for seconds in column("time").values())
    assert f"{contract.DECODER}: ours q8 / fp32" in record["ratios"]
    assert "| 0 % |" in engineering.render({"choices-cpu": record})


def test_a_result_replaces_nothing_but_a_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = make_parser("A test.", repeats=1)
    path = tmp_path / "result.json"
    assert parser.parse_args(["--out", str(path)]).out == path
    path.write_text('{"benchmark": "size"}')
    assert parser.parse_args(["--out", str(path)]).out == path
    for content in (b"{}", b"[1", b"1", b"\xff"):
        path.write_bytes(content)
        with pytest.raises(SystemExit):
            parser.parse_args(["--out", str(path)])
        assert "result.json exists and is no result" in capsys.readouterr().err


def test_outdated_models_are_not_deleted(tmp_path: Path) -> None:
    mine = tmp_path / "base-photos" / "mine"
    mine.mkdir(parents=True)
    made = kept(tmp_path, "base", [Path(__file__)], lambda home: (home / "made").touch())
    assert (made / "made").exists()
    assert mine.is_dir()
    assert kept(tmp_path, "base", [Path(__file__)], lambda home: pytest.fail("again")) == made


def test_lengths_are_checked() -> None:
    answers = {"ours fp32": Answer((2, 0, 5, 2), {}), "openvino bf16": Answer((2, 0, 2), {})}
    with pytest.raises(BenchmarkError, match="openvino bf16 generated 2 tokens, not 3"):
        compare.check_tokens("case", answers, 3)


@pytest.mark.parametrize(
    ("ours", "theirs", "place"),
    [([1, 2, 3], [1, 4, 3], 1), ([1, 2], [1, 2, 3], 2), ([0], [1], 0)],
)
def test_different_tokens_are_refused(ours: list[int], theirs: list[int], place: int) -> None:
    with pytest.raises(BenchmarkError, match=f"token {place} of"):
        measuring.require_same_tokens("case", [ours], [theirs])
    measuring.require_same_tokens("case", [ours, theirs], [ours, theirs])
    assert measuring.agreement(ours, theirs) == place / max(len(ours), len(theirs))


def test_sides_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "PAUSE", 0)
    calls: list[str] = []

    def side(name: str) -> Callable[[], int]:
        def call() -> int:
            calls.append(name)
            return len(calls)

        return call

    values = measuring.alternate({"a": side("a"), "b": side("b")}, repeats=2, warmup=1)
    assert calls == ["a", "b"] * 3
    assert values == {"a": [3, 5], "b": [4, 6]}


def test_a_ratio_is_taken_round_by_round() -> None:
    assert measuring.ratio([1, 10, 3], [2, 20, 3]) == {"median": 0.5, "min": 0.5, "max": 1}


def test_other_engines_have_the_float32_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(stages, "prepare", lambda arguments: made.extend(arguments.precision))
    with pytest.raises(AttributeError):  # nothing is prepared
        stages.main(["--precision", "q8", "--dtypes"])
    assert set(made) == {"fp32", "q8"}


def test_stages(run: Run) -> None:
    record = run(stages.main, "--dtypes", "fp32")
    check_record(record, "stages", "ours fp32")
    check_targets(record, 5)
    assert record["values"].keys() == {
        *("vision", "preprocess", "embed and encoder", "first token", "parse"),
        *("first token after the picture is encoded", "step at past 16", "step at past 400"),
    }
    for values in record["values"].values():
        assert values.keys() >= {"ours fp32", "transformers fp32"}
    assert record["ratios"]["host's share of a step at past 16: ours fp32"]["max"] < 1


def test_the_log_has_every_step(setup: Setup) -> None:
    log = stages.SessionLog(open_peer("ours:fp32", setup).model)  # type: ignore[attr-defined]
    answers = dataclasses.replace(Ours("", log.model)).answer([make_picture()], "<OD>", 12, 3)
    # Start token, then 12; the last is forced without a step, and the last step has no end.
    assert len(answers[0].token_ids) == 13
    steps = log.take_steps()
    assert len(steps) == 10
    assert all(0 < step.engine < step.seconds and 0 < step.host_share < 1 for step in steps)
    assert log.take_steps() == []


def test_batching(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "TASK_TOKENS", 10)
    record = run(batching.main)
    check_record(record, "batching")
    check_targets(record, 2)


def test_scaling(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = {"tokens": (5, 10), "beams": (1,), "batch": (2,), "picture": ((320, 240),)}
    monkeypatch.setattr(scaling, "AXES", axes)
    record = run(scaling.main)
    check_record(record, "scaling", "ours fp32", "transformers fp32")
    assert list(record["values"]) == [
        *("tokens 5", "tokens 10", "beams 1", "batch 2", "picture 320x240")
    ]


def test_fresh_processes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    runs: dict[str, fresh.FreshRun] = {}
    start = fresh.run_fresh

    def run_once(peer: str, setup: Setup) -> fresh.FreshRun:
        started.append(peer)
        if peer not in runs:
            runs[peer] = start(peer, setup)
        return runs[peer]

    monkeypatch.setattr(cold_start, "run_fresh", run_once)
    record = run(cold_start.main)
    check_record(record, "cold_start", "ours fp32", "transformers fp32")
    check_targets(record, 3)
    assert started == ["ours:fp32", "transformers_eager:fp32"] * 2
    time, memory = record["values"][cold_start.TIME], record["values"][cold_start.MEMORY]
    for side, peer in (("ours fp32", "ours:fp32"), ("transformers fp32", started[1])):
        assert time[side]["median"] == pytest.approx(runs[peer].seconds, rel=1e-4)
        assert memory[side]["median"] == pytest.approx(runs[peer].megabytes, rel=1e-4)
    ours, theirs = memory.values()
    # An interpreter with numpy is more than 20 MB, and PyTorch alone is more than all of ours.
    assert 20 < ours["min"] < theirs["min"]
    assert {ours["unit"], theirs["unit"]} == {"MB"}


@pytest.mark.skipif(sys.platform != "linux", reason="the resident set is read from /proc")
def test_streaming(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "PICTURES", 12)
    monkeypatch.setattr(streaming, "FIRST", 4)
    monkeypatch.setattr(streaming, "resident_bytes", iter([300_000_000, 450_000_000]).__next__)
    record = run(streaming.main)
    check_record(record, "streaming", "ours fp32")
    assert {case: sides["ours fp32"]["median"] for case, sides in record["values"].items()} == {
        "resident after 4 pictures": 300,
        "resident after 12 pictures": 450,
    }
    assert record["notes"] == ["ours fp32: +150 MB, within the limit of 150 MB."]
    monkeypatch.undo()
    # An interpreter with numpy is more than 20 MB.
    assert 20e6 < streaming.resident_bytes() <= (peak_bytes() or 0)


def test_annotating(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    answer = answering.answer_batch

    def noted(assets: Any, graphs: Any, batch: Any, policy: Any) -> Any:
        results = answer(assets, graphs, batch, policy)
        asked.append((len(batch), {len(result.token_ids) for result in results}))
        return results

    monkeypatch.setattr(annotating, "answer_batch", noted)
    monkeypatch.setattr("florence_onnx.streaming.answer_batch", noted)
    monkeypatch.setattr(annotating, "TOKENS", {Task.CAPTION: 3, Task.OD: 5})
    record = run(annotating.main, "--pictures", "9")
    check_record(record, "annotating", "annotate", "engine alone")
    assert len(record["ratios"]) == 1
    assert len(asked) == 8
    assert asked[:4] == asked[4:], "both sides have the same batches"
    assert record["notes"] == ["9 pictures in each round."]
    record = run(annotating.main, "--pictures", "9", "--within")
    check_record(record, "annotating", "annotate", "engine within")
    assert len(asked) == 12, "the same batches, once"
    (share,) = record["ratios"].values()
    assert share["min"] > 1, "the engine is part of the annotation"


@pytest.mark.skipif(sys.platform != "linux", reason="the resident set is read from /proc")
def test_annotating_memory(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotating_memory, "PICTURES", 12)
    monkeypatch.setattr(annotating_memory, "FIRST", 4)
    sizes = iter([300_000_000, 351_000_000])
    monkeypatch.setattr(annotating_memory, "resident_bytes", sizes.__next__)
    record = run(annotating_memory.main)
    assert {case: sides["annotate"]["median"] for case, sides in record["values"].items()} == {
        "resident after 4 pictures": 300,
        "resident after 12 pictures": 351,
    }
    assert record["notes"] == ["+51 MB, beyond the limit of 50 MB."]


def test_serving(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "REQUESTS", {1: 2, 8: 8})
    monkeypatch.setattr(serving, "TOKENS", 5)
    record = run(serving.main)
    check_record(record, "serving", "ours fp32", serving.THEIRS)
    assert list(record["values"]) == [
        f"{clients}, {measure}"
        for clients in ("1 client", "8 clients")
        for measure in (serving.EACH, serving.MEDIAN, serving.TAIL)
    ]
    values = record["values"]["8 clients, seconds per request"]
    expected = values["ours fp32"]["median"] / values[serving.THEIRS]["median"]
    # Targets are of 8 bits, and have the names that 8 bits would get.
    (each, tail) = (target.ratio for target in TARGETS if target.benchmark == "serving")
    ratios = {name.replace("ours fp32", "ours q8"): one for name, one in record["ratios"].items()}
    assert ratios[each]["median"] == pytest.approx(expected, rel=1e-4)
    assert tail in ratios


@pytest.mark.parametrize(
    ("values", "share", "expected"), [([3.0, 1.0, 2.0], 0.95, 3), (range(1, 21), 0.95, 19)]
)
def test_percentiles(values: Sequence[float], share: float, expected: float) -> None:
    assert serving.percentile(values, share) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="the resident set is read from /proc")
def test_the_memory_of_a_service(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_memory, "FIRST", 4)
    monkeypatch.setattr(serving_memory, "IDLE", 1)
    record = run(serving_memory.main, "--model", "demo", "--requests", "12")
    assert list(record["values"]) == [
        "resident after 4 requests",
        "resident after 12 requests",
        "resident after the model is closed",
    ]
    # An interpreter with numpy is more than 20 MB.
    assert all(sides["ours"]["median"] > 20 for sides in record["values"].values())
    (note,) = record["notes"]
    assert re.fullmatch(r"[+-]\d+ MB, (within|beyond) the limit of 50 MB\.", note)


def test_a_failing_process_is_reported(
    setup: Setup, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BenchmarkError, match="ours:fp32 failed in a fresh process"):
        fresh.run_fresh("ours:fp32", dataclasses.replace(setup, exported=tmp_path))
    assert "ModelFileError" in capfd.readouterr().err


def test_size(tmp_path: Path) -> None:
    out = tmp_path / "size.json"
    size.main(["--out", str(out)])
    record = json.loads(out.read_text())
    check_targets(record, 1)
    ours = record["distributions"]["ours"]
    assert {"florence-onnx", "numpy", "onnxruntime", "tokenizers"} <= set(ours)
    assert not {"torch", "transformers", "onnx", "pillow"} & set(ours)
    assert record["values"]["installed"]["ours"]["median"] == pytest.approx(
        sum(record["megabytes"][name] for name in ours), abs=1
    )


def test_size_counts_what_pip_compiles() -> None:
    for name in ("packaging", "florence-onnx"):
        (folder,) = importlib.import_module(name.replace("-", "_")).__path__
        sources = sum(path.stat().st_size for path in Path(folder).rglob("*.py"))
        compiled = sum(path.stat().st_size for path in Path(folder).rglob("*.pyc"))
        assert size.installed_bytes(name) > sources + compiled > 1.5 * sources


def test_filling(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is another process; its part is played here."""
    said = ["fetching 5 files to filling", "reading it", "[ 3.0 s] filling", "asking the model"]
    lines = tuple(command.Line(i + 1.0, 100.0 * (i + 1), text) for i, text in enumerate(said))
    traced_digests = ["other", "same"]

    def play(arguments: Sequence[str], variables: Mapping[str, str]) -> command.Run:
        if arguments[0] == "export":
            traced = "torch" in arguments
            out = Path(arguments[2])
            out.mkdir(parents=True)
            report = {
                "files": {"config.json": traced_digests.pop(0) if traced else "same", "b": "same"},
                "seconds": {"check": 1.5},
                "versions": {"torch": "2", "onnxscript": "0.7", "onnx": "1"},
            }
            (out / REPORT).write_text(json.dumps(report))
            return command.Run(60.0 if traced else 6.0, 7.0, 500.0, 200.0, lines)
        assert arguments[:2] == ["run", str(tmp_path / "work" / "filling" / "photo.png")]
        place = f"{variables['HF_ENDPOINT']}/{filling.NAME}/resolve/{COMMIT}/config.json"
        with urllib.request.urlopen(place) as answer:  # noqa: S310
            assert answer.read() == (DEMO / "config.json").read_bytes()
        Path(variables["HF_HOME"]).mkdir()
        return command.Run(9.0, 7.0, 500.0, 200.0, lines)

    monkeypatch.setattr(filling, "run", play)
    for name in ("before.whl", "now.whl"):
        (tmp_path / name).write_bytes(b"x" * 2_000_000)
    wheels = [str(tmp_path / "before.whl"), str(tmp_path / "now.whl")]
    arguments = ["--model", str(DEMO), "--work", str(tmp_path / "work"), "--wheels", *wheels]
    records = []
    while traced_digests:
        filling.main([*arguments, "--repeats", "2", "--out", str(tmp_path / "result.json")])
        records.append(json.loads((tmp_path / "result.json").read_text()))
    record = records[0]
    ours, torch = "ours, demo", "torch, demo"
    medians = {
        case: {side: value["median"] for side, value in sides.items()}
        for case, sides in record["values"].items()
    }
    assert medians["packages installed"][ours] < medians.pop("packages installed")[torch]
    assert medians == {
        "export": {ours: 6, torch: 60},
        "processor time of the export": {ours: 7, torch: 7},
        "export without its smoke check": {ours: 4.5},
        "peak memory": {ours: 500, torch: 500},
        "peak memory before the smoke check": {ours: 400},
        "peak of private memory": {ours: 200, torch: 200},
        "first answer from a hub": {ours: 9},
    }
    equal, answer, wheel = record["notes"]
    assert "both ways differ in config.json; the graphs were traced by torch 2, onnx" in equal
    assert "both ways are equal, all 2 of them; " in records[1]["notes"][0]
    assert answer.startswith(
        f"{ours}: the first answer is process start 1.0 s, fetching 1.0 s, reading and checking "
        "values 1.0 s, filling 1.0 s, smoke check, digests, opening and answering 5.0 s. "
    )
    assert answer.endswith(f"{size_text((DEMO / 'config.json').stat().st_size)} are fetched.")
    assert wheel == "The wheel has 2.000 MB; before there were skeletons 2.000 MB."
    assert not (tmp_path / "work" / "filling").exists()
    large = {**record, "values": {"export": {"ours, large": record["values"]["export"][ours]}}}
    page = performance({"filling-cpu": record, "filling-large-cpu": large})
    assert "|  | ours, demo | torch, demo | ours, large |" in page
    assert "| export | 6 s | 60 s | 6 s |" in page


def test_quantising(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is another process; its part is played here."""
    said = [
        "[ 0.1 s] running the float32 graphs",
        "[ 3.0 s] writing and measuring vision_encoder_quantized.onnx",
        "[ 4.0 s] writing and measuring embed_tokens_quantized.onnx",
        "[ 5.0 s] q8: first_logits differs from float32 by 4.00%, and 3% is allowed",
        "[ 6.0 s] writing and measuring vision_encoder_quantized.onnx",
        "[ 7.0 s] comparing q8 with float32",
    ]
    lines = tuple(command.Line(i + 1.0, 100.0, text) for i, text in enumerate(said))
    asked: list[Sequence[str]] = []
    measured: list[tuple[Path, str]] = []

    def play(arguments: Sequence[str], variables: Mapping[str, str]) -> command.Run:
        asked.append(arguments)
        assert (Path(arguments[1]) / contract.graph_file(contract.ENCODER, "fp32")).is_file()
        return command.Run(9.0, 12.0, 500.0, 200.0, lines)

    def fidelity(folder: Path, precision: str) -> Fidelity:
        measured.append((folder, precision))
        return Fidelity(0.01, 0.02, 0.9, 105)

    reference = SimpleNamespace(fidelity=fidelity)
    monkeypatch.setattr(quantising, "run", play)
    pictures: list[int] = []

    def refer(folder: Path, measured: int) -> SimpleNamespace:
        pictures.append(measured)
        return reference

    monkeypatch.setattr(quantising, "Reference", refer)
    record = run(quantising.main, "--precision", "q8", "q4", "--pictures", "photos")
    assert pictures == [7]
    assert record["notes"] == []
    assert [arguments[2:] for arguments in asked] == [
        ["--precision", name, "--force", "--pictures=photos", *way]
        for name in ("q8", "q4")
        for way in ([], ["--fast"])
    ]
    assert measured == [(Path(arguments[1]), arguments[3]) for arguments in asked]
    assert not any(folder.exists() for folder, _ in measured)
    assert list(record["values"]["quantise"]) == [
        f"{name}{way}, tiny" for name in ("q8", "q4") for way in ("", " --fast")
    ]
    for side in record["values"]["quantise"]:
        assert {case: sides[side]["median"] for case, sides in record["values"].items()} == {
            "quantise": 9,
            "float32 graphs on what errors are measured on": 1,
            "vision encoder": 2,
            "token embedding": 1,
            "encoder": 0,
            "decoder": 0,
            "comparing with float32": 3,
            "processor time": 12,
            "peak memory": 500,
            "peak of private memory": 200,
            "error of the image features": 1,
            "error of the first logits": 2,
            "tokens of greedy answers that are equal": 90,
        }
    asked.clear()
    fast = run(quantising.main, "--precision", "q8", "--fast-only", "--measured", "2")
    assert [arguments[2:] for arguments in asked] == [["--precision", "q8", "--force", "--fast"]]
    assert pictures == [7, 2]
    assert fast["notes"] == ["tiny: errors are measured on 2 of the drawn pictures."]


@pytest.mark.skipif(sys.platform != "linux", reason="the memory is read from /proc")
def test_a_command_is_watched() -> None:
    """An interpreter is more than 5 MB."""
    done = command.run(["list", "--cache-dir", "nowhere"], {})
    assert done.seconds > 0
    assert 5 < done.private < done.peak
    with pytest.raises(BenchmarkError, match=r"florence-onnx verify nowhere failed: .*nowhere"):
        command.run(["verify", "nowhere"], {})


def test_preprocess_prints_and_writes_nothing() -> None:
    results = set((ROOT / "benchmarks" / "results").glob("*"))
    command = [sys.executable, "-m", "benchmarks.preprocess", "--repeats", "1", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["environment"]["threads"] == 1
    assert results == set((ROOT / "benchmarks" / "results").glob("*"))


def test_openvino_computes_the_same(setup: Setup) -> None:
    pytest.importorskip("openvino")
    pictures = [make_picture(seed=1), make_picture(seed=2)]
    ours, theirs = (
        open_peer(name, setup).answer(pictures, "<OD>", 60, 3)
        for name in ("ours:fp32", "openvino:f32")
    )
    measuring.require_same_tokens(
        "OD", [answer.token_ids for answer in ours], [answer.token_ids for answer in theirs]
    )
    assert [answer.parsed for answer in ours] == [answer.parsed for answer in theirs]


def test_openvino_in_8_bits_answers_nearly_the_same(setup: Setup) -> None:
    pytest.importorskip("nncf")
    pixels = Assets.read(setup.exported).preprocessor(make_picture(seed=1))[None]
    (exact, *_), (rounded, *_) = (
        [np.asarray(vision(pixels)) for vision in visions(setup).values()]
        for visions in (vision_engines.openvino_visions, vision_engines.int8_visions)
    )
    assert 0 < relative_error(rounded, exact) < 0.2
    (answer,) = open_peer("openvino_int8:f32", setup).answer([make_picture(seed=1)], "<OD>", 20, 3)
    assert len(answer.token_ids) == 21


@pytest.mark.parametrize("package", ["openvino", "nncf"])
def test_a_missing_package_is_noted(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    module = {"openvino": "openvino", "nncf": "openvino_int8"}[package]
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"benchmarks.peers.{module}", raising=False)
    peers, notes = open_peers(["ours:fp32", f"{module}:f32"], setup)
    assert [peer.name for peer in peers] == ["ours fp32"]
    assert len(notes) == 1 and notes[0].startswith(f"{module}:f32 was left out: ")


@pytest.mark.parametrize(
    ("name", "message"), [("mystery:f32", "no peer 'mystery:f32'"), ("ours:f1", "no variant 'f1'")]
)
def test_an_unknown_peer_is_refused(setup: Setup, name: str, message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        open_peer(name, setup)


def test_an_unknown_model_is_refused(work: Path) -> None:
    arguments = make_parser("", 1).parse_args(["--model", "mystery", "--work", str(work)])
    with pytest.raises(BenchmarkError, match="'mystery' is none of base, large, tiny nor"):
        prepare(arguments)


def test_the_committed_pages_are_those_of_the_results() -> None:
    pages = report.pages(read_records())
    assert {path.relative_to(ROOT).as_posix() for path in pages} == {
        *("README.md", "benchmarks/README.md", "docs/performance.md"),
        "florence_onnx/demo/README.md",
    }
    for path, content in pages.items():
        assert path.read_text(encoding="utf-8") == content, path


def test_every_result_is_of_a_script_and_has_its_section() -> None:
    text = engineering.render(read_records())
    assert {record["benchmark"] for record in read_records().values()} == set(engineering.ORDER)
    for name, record in read_records().items():
        script = record["benchmark"]
        files = (f"{script}.py", f"{script}/__main__.py")
        assert any((ROOT / "benchmarks" / file).is_file() for file in files), name
        assert record["environment"]["command"] in text
        assert record["environment"]["command"].startswith(f"python -m benchmarks.{script}")


def test_a_page_for_users_is_short_and_leaves_out_what_was_not_measured() -> None:
    everything = performance(read_records())
    unfolded = re.sub(r"<details.*?</details>", "", everything, flags=re.DOTALL)
    assert len([line for line in unfolded.splitlines() if line]) <= 110
    assert "greedy" not in everything.replace("greedy answers", "")
    one = performance({"compare-cpu": compare_record({"ours q8": 1.0, "transformers fp32": 4.0})})
    assert "| OD of 200 tokens | 1 s (0.5 to 2) | 4 s (2 to 8) |" in one
    assert "OD of 200 tokens: ours q8 / transformers fp32 | 0.25 (0.25 to 0.25) |" in one
    assert [line for line in one.splitlines() if line.startswith("## ")] == ["## Requests"]


def test_a_row_of_a_machine_is_a_file_away(tmp_path: Path) -> None:
    """What the command writes is what the page shows."""
    command = ["bench", str(TINY), "--repeats", "1", "--warmup", "0", "--machine", "Acme"]
    before = machines(tmp_path)
    assert main([*command, "--report", str(tmp_path)]) == 0
    (written,) = tmp_path.glob("*.md")
    head, line, row = written.read_text().splitlines()
    assert f"{head}\n{line}\n" in before
    assert machines(tmp_path) == before.replace(f"{line}\n", f"{line}\n{row}\n")


def test_rows_of_machines_can_be_compared() -> None:
    for row in read_machines():
        assert (row["benchmark"], row["tokens"], row["beams"]) == ("bench", TOKENS, BEAMS)
        assert row["seconds"].keys() == {*STAGES, "total"}
        assert f"\n{table([row]).splitlines()[-1]}\n" in machines()


def compare_record(medians: dict[str, float]) -> dict[str, Any]:
    """What compare would publish, had it measured these medians and half and twice as much."""
    case = "OD of 200 tokens"
    place = {"provider": "CPUExecutionProvider", "cpu": "a CPU", "cpu_flags": [], "threads": 2}
    place |= {"cores": 2, "memory_gb": 8, "gpu": None, "platform": "Linux", "python": "3.11"}
    place |= {"packages": {"numpy": "2"}, "command": "run", "date": "2026-01-01"}
    samples = {side: [median / 2, median, median * 2] for side, median in medians.items()}
    summary = measuring.summarise({case: samples})
    return {"benchmark": "compare", "environment": place, "repeats": 3, **summary}


def test_a_report_says_what_is_met_and_missed() -> None:
    sides = {"ours fp32": 3.0, "ours q8": 0.4, "transformers bf16": 2.0}
    text = engineering.render({"compare-cpu": compare_record(sides)})
    assert "| 1.00 | 0.20 (0.20 to 0.20), q8 | met |" in text
    assert "| 400 ms (200 to 800) |" in text and "| 3 s (1.5 to 6) |" in text
    del sides["ours q8"]
    text = engineering.render({"compare-cpu": compare_record(sides)})
    assert "| 1.00 | 1.50 (1.50 to 1.50), fp32 | **missed** |" in text


def test_the_front_table_goes_between_its_markers() -> None:
    page = f"top\n{front.START}\nold\n{front.END}\nbottom\n"
    records = {"compare-cpu": compare_record({"ours fp32": 3.0, "transformers bf16": 0.2})}
    text = front.between_markers(page, front.fronttable(records))
    assert text.startswith(f"top\n{front.START}\n|  | OD of 200 tokens |")
    assert text.endswith(f"{front.END}\nbottom\n")
    assert "| ours fp32 | 3 s |" in text and "| transformers bf16 | 200 ms |" in text
    assert "old" not in text
    assert front.between_markers(text, front.fronttable(records)) == text
