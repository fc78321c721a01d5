"""Choosing among timed precisions and providers; the seconds here are made up."""

import json
import shutil
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from florence_onnx import Florence2, Prepared, Request, Result, answering, profiling
from florence_onnx.cli.program import main
from florence_onnx.engine import contract
from florence_onnx.engine.providers import CPU, CUDA
from florence_onnx.errors import ProviderError
from florence_onnx.profiling import Placement, Trial, attempt, choose, load_line, placements
from tests.helpers.tiny import TINY, copy_tiny, picture

OPENVINO = "OpenVINOExecutionProvider"
MIXED: Placement = {"vision_encoder": [OPENVINO], "*": [CPU]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with fp32 graphs and, by another name, the same as q8."""
    folder = copy_tiny(tmp_path)
    for graph in contract.GRAPHS:
        files = (folder / contract.graph_file(graph, precision) for precision in ("fp32", "q8"))
        shutil.copy(*files)
    return folder


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Has q8 take half of the time of fp32; returns what was asked for."""
    asked: list[dict[str, Any]] = []

    def time_stages(model: Florence2, image: Any, **options: Any) -> dict[str, float]:
        asked.append(options)
        total = {"fp32": 2.0, "q8": 1.0}[model.precision]
        return {"vision": 0.5, "first_token": 0.03, "per_token": 0.01, "total": total}

    monkeypatch.setattr("florence_onnx.profiling.time_stages", time_stages)
    return asked


def trial(precision: str, total: float | None, providers: Placement | None = None) -> Trial:
    seconds = None if total is None else {"total": total}
    return Trial(precision, providers or [CPU], seconds, None if seconds else "out of memory")


@pytest.mark.parametrize(
    ("trials", "best"),
    [
        ([trial("fp32", 2.0), trial("q8", 1.0), trial("q4", 1.5)], 1),
        ([trial("q8", 1.0), trial("fp32", 1.0)], 1),
        ([trial("q4", 1.0), trial("q8", 1.02), trial("fp32", 1.04)], 1),
        ([trial("fp16", 1.0), trial("q8", 0.99), trial("fp16", 0.98)], 2),
        ([trial("fp32", None), trial("q4", 9.0)], 1),
    ],
)
def test_the_fastest_and_in_a_tie_the_most_exact(trials: list[Trial], best: int) -> None:
    assert choose(trials) is trials[best]


def test_nothing_to_choose_from() -> None:
    with pytest.raises(ProviderError, match=r"nothing could be timed; .* failure: out of memory"):
        choose([trial("fp32", None), trial("q8", None)])


def test_where_a_model_may_be_placed() -> None:
    assert placements([CPU]) == placements(["AzureExecutionProvider", CPU]) == [[CPU]]
    assert placements([OPENVINO, CPU]) == [[CPU], [OPENVINO], MIXED]
    both = placements([CUDA, OPENVINO, CPU])
    assert both == [[CPU], [CUDA], [OPENVINO], {"vision_encoder": [CUDA], "*": [CPU]}, MIXED]


@pytest.mark.parametrize("source", ["base", 'a "quoted" \\ folder', "mod\u00e8le \U0001f600"])
@pytest.mark.parametrize("providers", [[CPU], MIXED])
def test_the_line_that_opens_the_choice(source: str, providers: Placement) -> None:
    """It is Python, and says what was tried."""

    class Called:
        @staticmethod
        def load(*arguments: Any, **options: Any) -> Any:
            return arguments, options

    line = load_line(source, trial("q8", 1.0, providers))
    called = eval(line, {"Florence2": Called})  # noqa: S307
    assert called == ((source,), {"precision": "q8", "providers": providers})


def test_a_failure_is_part_of_the_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = attempt(TINY, "fp32", ["NoProvider"], repeats=1)
    assert absent.seconds is None
    assert absent.error is not None
    assert absent.error.startswith("provider 'NoProvider' is not in this build")
    (folder / contract.graph_file(contract.DECODER, "q8")).write_bytes(b"")
    assert "is not a graph ONNX Runtime can run" in str(attempt(folder, "q8", [CPU], 1).error)

    def fail(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("not implemented\n at file.cc")

    monkeypatch.setattr("florence_onnx.profiling.time_stages", fail)
    assert attempt(TINY, "fp32", [CPU], 1) == Trial("fp32", [CPU], None, "not implemented")


def test_what_is_timed_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two verbs, once per run, and every stage of them."""
    calls: list[tuple[str, ...]] = []
    prepare, answer = Florence2.prepare, answering.answer_batch

    def noted_prepare(model: Florence2, request: Request) -> Prepared:
        calls.append(("prepare",))
        return prepare(model, request)

    def noted_answer(a: Any, b: Any, c: Any, d: Any, *, watch: Any) -> list[Result]:
        stages: list[str] = []

        def noted_watch(stage: str) -> None:
            stages.append(stage)
            watch(stage)

        results = answer(a, b, c, d, watch=noted_watch)
        calls.append(tuple(stages))
        (result,) = results
        assert result == model(picture(1), "od", min_new_tokens=5, max_new_tokens=5, num_beams=2)
        return results

    monkeypatch.setattr(Florence2, "prepare", noted_prepare)
    monkeypatch.setattr(profiling, "answer_batch", noted_answer)
    model = Florence2.load(TINY, threads=1)
    image = picture(1)
    seconds = profiling.time_stages(model, image, tokens=5, repeats=2, warmup=1, num_beams=2)
    steps = ("step",) * 4  # The last token is forced and needs none.
    stages = ("vision", "embed_encoder", *steps, "search", "parse")
    assert [call for call in calls if call != ("prepare",)] == [stages] * 3
    assert calls.count(("prepare",)) == 2 * 3, "one by the profiler, one by the comparison"
    assert seconds.keys() == {*profiling.STAGES, "total"}


def test_a_caption_is_timed(timed: list[dict[str, Any]]) -> None:
    assert attempt(TINY, "fp32", [CPU], repeats=5).seconds is not None
    assert timed == [{"tokens": 20, "repeats": 5}]


def test_tune(
    folder: Path,
    timed: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A provider that cannot start has rows of its own and stops nothing."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["LostExecutionProvider", CPU])
    monkeypatch.setattr(
        "florence_onnx.engine.providers.start_failure",
        lambda provider: None if provider == CPU else "no such device",
    )
    assert main(["tune", str(folder)]) == 0
    out, err = capsys.readouterr()
    mixed = f"vision_encoder=LostExecutionProvider, {CPU}"
    failure = "LostExecutionProvider cannot start: no such device"
    assert err.splitlines() == [
        f"timing {precision} on {place}"
        for precision in ("fp32", "q8")
        for place in (CPU, "LostExecutionProvider", mixed)
    ]
    assert [line.split() for line in out.splitlines()] == [
        ["precision", "vision", "first", "token", "per", "token", "20", "tokens", "providers"],
        ["fp32", "500.0", "ms", "30.0", "ms", "10.0", "ms", "2000.0", "ms", CPU],
        ["fp32", "LostExecutionProvider:", *failure.split()],
        ["fp32", *f"{mixed}: {failure}".split()],
        ["q8", "500.0", "ms", "30.0", "ms", "10.0", "ms", "1000.0", "ms", CPU],
        ["q8", "LostExecutionProvider:", *failure.split()],
        ["q8", *f"{mixed}: {failure}".split()],
        [],
        ["fastest:", "q8", "on", CPU],
        [f"Florence2.load({json.dumps(str(folder))},", 'precision="q8",', f'providers=["{CPU}"])'],
    ]


def test_tune_for_programs(
    folder: Path, timed: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", str(folder), "--json", "--repeats", "2"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["tokens"] == 20
    assert content["choice"] in content["trials"]
    assert (content["choice"]["precision"], content["choice"]["providers"]) == ("q8", [CPU])
    assert content["choice"]["seconds"]["total"] == 1.0
    assert content["choice"]["error"] is None
    assert content["load"].startswith("Florence2.load(")
    assert {tuple(options.items()) for options in timed} == {(("tokens", 20), ("repeats", 2))}


def test_tune_with_a_real_clock(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", str(TINY), "--repeats", "1", "--json"]) == 0
    trials = json.loads(capsys.readouterr().out)["trials"]
    assert {trial["precision"] for trial in trials} == {"fp32"}
    assert all(seconds >= 0 for seconds in trials[0]["seconds"].values())


def test_tune_without_complete_graphs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(folder / "onnx")
    assert main(["tune", str(folder)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"florence-onnx: error: {folder} holds the graphs of no precision completely\n"
