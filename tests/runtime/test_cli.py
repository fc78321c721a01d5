"""The command line: answers on stdout, everything else on stderr, one line for known errors."""

import importlib.util
import json
import os
import shlex
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from florence_onnx import Florence2, Task, answering, encoding, streaming
from florence_onnx.cli.program import COMMANDS, build_parser, main
from florence_onnx.engine import contract
from florence_onnx.errors import FlorenceError
from florence_onnx.profiling import STAGES
from tests.helpers.hub import use_empty_cache, use_hub
from tests.helpers.tiny import (
    REGION,
    TEXT,
    TINY,
    change_json,
    copy_tiny,
    picture,
    run_python,
    without_notes,
)

MODEL = ("--model", str(TINY), "--threads", "1", "--max-new-tokens", "12")
CPU = "CPUExecutionProvider"


@pytest.fixture
def photo(tmp_path: Path) -> str:
    path = tmp_path / "photo.png"
    Image.fromarray(picture(1, 40, 60)).save(path)
    return str(path)


@pytest.fixture(scope="module")
def model() -> Florence2:
    return Florence2.load(TINY, threads=1)


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs a command that has to fail with one line, and returns the line."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 1, err
    return lines[0]


# run


def test_a_text_answer(photo: str, model: Florence2, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", photo, "--task", "caption", *MODEL]) == 0
    answer = model(photo, "caption", max_new_tokens=12).to_dict()["<CAPTION>"]
    note = f"note: {photo}: the limit of the length (--max-new-tokens) cut the answer\n"
    assert capsys.readouterr() == (answer + "\n", note)


@pytest.mark.parametrize("task", Task)
def test_json_is_what_python_gives(
    photo: str, model: Florence2, capsys: pytest.CaptureFixture[str], task: Task
) -> None:
    given: dict[str, list[str]] = {
        "none": [],
        "text": ["--text", TEXT],
        "region": ["--region", ",".join(map(str, REGION))],
    }
    inputs = given[task.input_kind.value]
    assert main(["run", photo, "--task", task.name.lower(), "--json", *inputs, *MODEL]) == 0
    out, err = capsys.readouterr()
    region = REGION if task.input_kind.value == "region" else None
    text = TEXT if task.input_kind.value == "text" else None
    result = model(photo, task, text, region=region, max_new_tokens=12)
    assert err == ""
    assert out.count("\n") == 1
    assert json.loads(out) == result.record(photo)
    assert json.loads(out)["size"] == [60, 40]


@pytest.mark.parametrize(
    ("task", "text", "lines"),
    [
        ("od", "cat<loc_0><loc_0><loc_499><loc_999>", ["cat: 0.0 0.0 30.0 40.0"]),
        ("region_proposal", "<loc_0><loc_0><loc_499><loc_999>", ["0.0 0.0 30.0 40.0"]),
        (
            "ocr_with_region",
            "SALE" + "<loc_0><loc_0><loc_999><loc_0><loc_999><loc_999><loc_0><loc_999>",
            ["SALE: 0.0 0.0 60.0 0.0 60.0 40.0 0.0 40.0"],
        ),
        (
            "referring_expression_segmentation",
            "<loc_0><loc_0><loc_999><loc_0><sep><loc_9><loc_9><loc_99><loc_99>",
            ["0.0 0.0 60.0 0.0", "0.6 0.4 6.0 4.0"],
        ),
        (
            "open_vocabulary_detection",
            "car<poly><loc_0><loc_0><loc_999><loc_0></poly>",
            ["car: 0.0 0.0 60.0 0.0"],
        ),
        (
            "open_vocabulary_detection",
            "car<loc_0><loc_0><loc_999><loc_0>",
            ["car: 0.0 0.0 60.0 0.0"],
        ),
        ("od", "", []),
    ],
)
def test_answers_for_people(
    photo: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    text: str,
    lines: list[str],
) -> None:
    """One label and its pixels per line."""
    monkeypatch.setattr("florence_onnx.tokenizer.Tokenizer.decode", lambda self, ids: text)
    taking_text = Task.parse(task).input_kind.value == "text"
    assert main(["run", photo, "--task", task, *["--text", TEXT] * taking_text, *MODEL]) == 0
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize("region", ["6,4,30,20", "<loc_100><loc_100><loc_500><loc_500>"])
def test_a_region_in_pixels_and_as_tokens(
    photo: str, model: Florence2, capsys: pytest.CaptureFixture[str], region: str
) -> None:
    command = ["run", photo, "--task", "region_to_category", "--region", region]
    assert main([*command, "--json", *MODEL]) == 0
    expected = model(photo, "region_to_category", region=(6, 4, 30, 20), max_new_tokens=12)
    assert json.loads(capsys.readouterr().out)["score"] == expected.score


def test_a_prompt_of_a_fine_tune(
    photo: str, model: Florence2, capsys: pytest.CaptureFixture[str]
) -> None:
    for prompt in ("<DocVQA>What is the date?", "detect"):
        assert main(["run", photo, "--prompt", prompt, "--json", *MODEL]) == 0
        expected = model(photo, prompt=prompt, max_new_tokens=12)
        assert json.loads(capsys.readouterr().out) == expected.record(photo)
        command = ["run", photo, "--prompt", prompt, "--answer", "boxes", "--json"]
        assert main([*command, *MODEL]) == 0
        expected = model(photo, prompt=prompt, answer="boxes", max_new_tokens=12)
        assert json.loads(capsys.readouterr().out) == expected.record(photo)
        assert expected.to_dict().keys() == {prompt}


def test_beams(photo: str, model: Florence2, capsys: pytest.CaptureFixture[str]) -> None:
    for beams in ("1", "5"):
        assert main(["run", photo, "--task", "od", "--beams", beams, "--json", *MODEL]) == 0
        expected = model(photo, "od", num_beams=int(beams), max_new_tokens=12)
        assert json.loads(capsys.readouterr().out)["generated"] == expected.generated


@pytest.mark.parametrize("as_json", [True, False])
def test_a_broken_picture_does_not_stop_the_others(
    tmp_path: Path, photo: str, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(photo).read_bytes()[:60])
    missing = str(tmp_path / "missing.png")
    images = [str(broken), photo, missing, photo]
    assert main(["run", *images, "--task", "caption", *["--json"] * as_json, *MODEL]) == 2
    out, err = capsys.readouterr()
    if as_json:
        assert [json.loads(line)["image"] for line in out.splitlines()] == [photo, photo]
    else:
        assert [line for line in out.splitlines() if line[:1] != " "] == [f"{photo}:"] * 2
    first, second = without_notes(err)
    assert first.startswith(f"florence-onnx: {broken}: ")
    assert second == (
        f"florence-onnx: {missing}: cannot read the picture '{missing}': No such file or directory"
    )


def test_many_pictures_are_answered_in_batches(
    photo: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine pictures, one of them broken, in batches of at most eight."""
    sizes: list[int] = []
    answer = answering.answer_batch

    def noted(assets: Any, graphs: Any, batch: Any, policy: Any) -> Any:
        sizes.append(len(batch))
        return answer(assets, graphs, batch, policy)

    monkeypatch.setattr(streaming, "answer_batch", noted)
    images = [photo] * 4 + ["missing.png"] + [photo] * 4
    assert main(["run", *images, "--task", "caption", *MODEL]) == 2
    out, err = capsys.readouterr()
    assert out.count(f"{photo}:\n") == 8
    assert [line for line in err.splitlines() if "missing.png" in line] == [
        "florence-onnx: missing.png: cannot read the picture 'missing.png': "
        "No such file or directory"
    ]
    assert sizes == [7, 1]


def test_an_engine_error_costs_one_picture_only(
    tmp_path: Path,
    photo: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = tmp_path / "other.png"
    Image.fromarray(picture(2, 10, 10)).save(other)
    encode = encoding.encode_pictures

    def failing(graphs: Any, found: Any) -> Any:
        if any(one.size == (10, 10) for one in found):
            raise RuntimeError("bad\nallocation")
        return encode(graphs, found)

    for module in (encoding, streaming):
        monkeypatch.setattr(module, "encode_pictures", failing)
    assert main(["run", str(other), photo, "--task", "caption", "--json", *MODEL]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["image"] == photo
    assert err == f"florence-onnx: {other}: RuntimeError: bad allocation\n"


@pytest.mark.skipif(os.name != "posix", reason="needs fifos and links")
def test_every_kind_of_unreadable_picture(
    tmp_path: Path, photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each costs a line; the pictures around it are answered."""
    names = ("empty", "text.png", "cut.jpg", "fifo.png", "loop.png", "dead.png", "zero", "secret")
    empty, text, cut, fifo, loop, dead, zero, secret = (tmp_path / name for name in names)
    empty.touch()
    text.write_text("<html>404</html>")
    Image.fromarray(picture(1)).save(cut)
    cut.write_bytes(cut.read_bytes()[:-300])
    os.mkfifo(fifo)
    loop.symlink_to(loop)
    dead.symlink_to(tmp_path / "nothing")
    zero.symlink_to("/dev/zero")
    secret.write_bytes(Path(photo).read_bytes()[:40])  # Root may read what nobody else may.
    secret.chmod(0)
    missing, long = tmp_path / "missing.png", "x" * 5000
    bad = [*map(str, (tmp_path, empty, text, cut, fifo, loop, dead, zero, secret, missing)), long]
    images = [photo, *(image for name in bad for image in (name, photo))]
    assert main(["run", *images, "--task", "od", "--json", *MODEL]) == 2
    out, err = capsys.readouterr()
    answered = [json.loads(line)["image"] for line in out.splitlines()]
    assert answered == [photo] * (len(bad) + 1)
    for line, name in zip(err.splitlines(), bad, strict=True):
        assert line.startswith(f"florence-onnx: {name}: ")


def test_a_picture_for_a_task(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = failure(capsys, "run", "od", "--task", photo, *MODEL)
    assert line.endswith(
        f"--task is '{photo}', which is a file; pictures are given without an option"
    )
    assert main(["run", photo, "--task", "Describe " + "it " * 2000, *MODEL]) == 2
    assert "positions" in capsys.readouterr().err


def test_home_in_an_option(
    tmp_path: Path, photo: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shell leaves it to programs in --draw=~/drawn.png."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert main(["run", photo, "--task", "od", "--draw=~/drawn.png", *MODEL]) == 0
    assert (tmp_path / "drawn.png").is_file()
    arguments = build_parser().parse_args(["export", "checkpoint", "~/out"])
    assert arguments.out == tmp_path / "out"


def test_a_region_that_fits_one_picture_only(
    tmp_path: Path, photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.png"
    Image.fromarray(picture(1, 10, 10)).save(small)
    command = ["run", str(small), photo, "--task", "region_to_ocr", "--region", "0,0,50,30"]
    assert main([*command, "--json", *MODEL]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["image"] == photo
    assert "is outside the picture of 10x10 pixels" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--task", "captoin"],
            "'captoin' is not a task: did you mean 'caption'? Choose one of ocr",
        ),
        (["--task", "od", "--text", "x"], "'<OD>' takes no text"),
        ([], "give task= (--task), one of ocr, ocr_with_region"),
        (["--task", "od", "--prompt", "detect"], "give task or prompt, not both"),
        (["--task", "od", "--answer", "boxes"], "that to <OD> is always read as boxes"),
        (["--prompt", "detect", "--answer", "box"], "must be one of text, boxes, proposals"),
        (["--prompt", ""], "prompt= must be a str with the fine-tune's words"),
        (["--prompt", "detect", "--text", "x"], "'detect' takes no text"),
        (["--task", "region_to_ocr", "--text", "x"], "takes no text; it takes region="),
        (["--task", "region_to_ocr", "--region", "1,2,3,4", "--text", "x"], "takes no text; it"),
        (
            ["--task", "open_vocabulary_detection", "--region", "<loc_1><loc_2><loc_3><loc_4>"],
            "takes no region; it takes text=",
        ),
        (["--task", "caption_to_phrase_grounding"], "needs text= (--text)"),
        (["--task", "region_to_ocr"], "needs region= (--region)"),
        (["--task", "region_to_ocr", "--region", "1,2,3"], "a region is four numbers"),
        (["--task", "region_to_ocr", "--region", "1,2,x,4"], "'1,2,x,4' is not a region"),
        (["--task", "region_to_ocr", "--region", "9,9,1,1"], "is reversed or empty"),
        (["--task", "od", "--beams", "0"], "num_beams is 0; it must be at least 1"),
        (["--task", "od", "--max-new-tokens", "2000"], "must be at most 160, the positions"),
        (["--task", "od", "--precision", "q4f16"], "no graphs of precision 'q4f16' in"),
        (["--task", "od", "--provider", "Nonsense"], "'Nonsense' is not in this build"),
        (["--task", "od", "--model", "/nowhere"], "'/nowhere' is not an existing folder"),
        (["--task", "od", "--model", "demo-2"], "'demo-2' is not an existing folder"),
    ],
)
def test_known_errors_are_one_line(
    photo: str, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    line = failure(capsys, "run", photo, *MODEL, *arguments)
    assert line.startswith("florence-onnx: ")
    assert message in line


@pytest.mark.parametrize("region", ["1,2,3", "1,2,x,4", "9,9,1,1", "<loc_1>"])
def test_a_malformed_region_is_told_once_before_a_model_is_opened(
    photo: str, capsys: pytest.CaptureFixture[str], region: str
) -> None:
    command = ("run", photo, photo, "--task", "region_to_ocr", "--region", region)
    line = failure(capsys, *command, "--model", "/nowhere")
    assert line.startswith("florence-onnx: error: ")
    assert "region" in line
    assert "/nowhere" not in line


def test_damaged_models_are_one_line(
    photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_tiny(tmp_path)
    command = ("run", photo, "--task", "od", "--model", str(folder))
    change_json(folder / "preprocessor_config.json", lambda content: content.pop("size"))
    assert "preprocessor_config.json: size is null" in failure(capsys, *command)
    graph = folder / contract.graph_file(contract.ENCODER, "fp32")
    change_json(
        folder / "preprocessor_config.json", lambda c: c.update(size={"height": 64, "width": 64})
    )
    graph.write_bytes(graph.read_bytes()[:999])
    assert "encoder_model.onnx is not a graph" in failure(capsys, *command)


def test_a_hub_that_cannot_be_reached(
    photo: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use_empty_cache(monkeypatch, tmp_path / "cache")
    use_hub(monkeypatch, "http://127.0.0.1:1")
    line = failure(capsys, "run", photo, "--task", "od", "--model", "someone/Florence-2-tiny")
    assert "'someone/Florence-2-tiny'" in line
    assert "cannot be reached" in line


# info


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(TINY), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    content = json.loads(out)
    assert content["folder"] == str(TINY)
    assert content["precisions"] == ["fp32"]
    assert content["bytes"] == {
        name: (TINY / contract.graph_file(name, "fp32")).stat().st_size for name in contract.GRAPHS
    }
    assert content["geometry"] == {
        "hidden_size": 32,
        "decoder_layers": 2,
        "decoder_heads": 2,
        "head_dim": 16,
        "vocabulary": 1424,
        "image_height": 64,
        "image_width": 64,
        "max_positions": 160,
    }
    assert content["generation"]["num_beams"] == 3
    assert content["providers"] == {name: [CPU] for name in contract.GRAPHS}


def test_info_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(TINY), "--provider", CPU]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{TINY}\nprecisions: fp32; shown: fp32\n")
    for name in (*contract.GRAPHS, "hidden_size", "no_repeat_ngram_size", "image_width"):
        assert f"\n  {name} " in out


def test_settings_that_are_not_supported_are_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_tiny(tmp_path)
    change_json(folder / "generation_config.json", lambda content: content.update(max_time=2.5))
    sentence = (
        "generation_config.json: max_time is 2.5, which is not supported: "
        "answers take the time that they take"
    )
    for _ in range(2):
        main(["bench", str(folder), "--tokens", "3", "--repeats", "1"])
        assert capsys.readouterr().err.splitlines() == [
            f"note: {sentence}",
            "timing 1 + 1 runs",
        ]
    assert main(["info", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out.endswith(f"\nnote: {sentence}\n")
    assert err == ""
    assert main(["info", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == [sentence]


# values that begin with a minus sign


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--region", "-5,0,10,10", "(-5.0, 0.0, 10.0, 10.0) is outside the picture"),
        ("--region", "-.5,0,10,10", "is outside the picture"),
        ("--region", "-inf,0,10,10", "holds a value that is not finite"),
        ("--min-score", "-1e-3", "min_score is -0.001"),
        ("--recall", "-1e1", "recall is -10"),
        ("--beams", "-1", "num_beams is -1"),
        ("--tiles", "-1x2", "'-1x2' is not auto, or columns and rows"),
        ("--image-size", "-64x64", "'-64x64' is not a number of pixels"),
        ("--threads", "-2", "'-2' is not a whole number of at least 1"),
    ],
)
def test_what_looks_negative_is_a_value(
    photo: str, option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    task = "region_to_category" if option == "--region" else "od"
    try:
        assert main(["run", photo, "--task", task, *MODEL, option, value]) == 2
    except SystemExit as exit_:
        assert exit_.code == 2
    err = capsys.readouterr().err
    assert message in err.splitlines()[-1]
    assert "expected one argument" not in err


# bench


def test_bench(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", str(TINY), "--tokens", "4", "--repeats", "1", "--warmup", "0"]
    assert main([*command, "--threads", "1", "--beams", "2", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == "timing 0 + 1 runs\n"
    content = json.loads(out)
    assert content["seconds"].keys() == {*STAGES, "total"}
    assert all(seconds >= 0 for seconds in content["seconds"].values())
    assert (content["tokens"], content["beams"], content["repeats"]) == (4, 2, 1)
    assert content["onnxruntime"] == onnxruntime.__version__


def test_bench_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(TINY), "--tokens", "3", "--repeats", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*STAGES, "total"]
    assert all(line.endswith(" ms") for line in lines)


@pytest.mark.parametrize("option", ["--tokens=2", "--repeats=0", "--warmup=-1", "--threads=x"])
def test_bench_counts(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["bench", str(TINY), option])
    assert exit_.value.code == 2
    name, _, value = option.partition("=")
    err = capsys.readouterr().err
    assert f"argument {name}: '{value}' is not a whole number of at least " in err


def test_bench_beyond_the_positions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(TINY), "--tokens", "161"]) == 2
    assert "max_new_tokens is 161" in capsys.readouterr().err.splitlines()[-1]


# export


def test_export_without_its_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = {"torch", "onnxscript"}
    find = importlib.util.find_spec

    def find_others(name: str, package: str | None = None) -> Any:
        return None if name in absent else find(name, package)

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is imported")

    monkeypatch.setattr(importlib.util, "find_spec", find_others)
    monkeypatch.setattr(importlib, "import_module", refuse)
    line = failure(capsys, "export", "checkpoint", str(tmp_path / "out"), "--with", "torch")
    assert "pip install 'florence-onnx[export]'" in line
    assert all(name in line for name in absent)
    assert not (tmp_path / "out").exists()


# The command as a process


def test_help_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], *([command.NAME, "--help"] for command in COMMANDS)):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert f"usage: florence-onnx {' '.join(arguments[:-1])}".strip() in out
        if len(arguments) == 2:
            assert f"examples:\n  florence-onnx {arguments[0]} " in out
        else:
            assert all(f"\n    {command.NAME} " in out for command in COMMANDS)


def test_examples_in_the_help_are_commands() -> None:
    parser = build_parser()
    for command in COMMANDS:
        examples = [line for line in command.EXAMPLES.splitlines() if line.startswith("  florence")]
        assert examples
        for example in examples:
            words = shlex.split(example.partition(" > ")[0])
            assert parser.parse_args(words[1:]).execute is command.execute


def test_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([])
    assert exit_.value.code == 2
    assert "usage: florence-onnx" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"florence-onnx {metadata.version('florence-onnx')}\n"


@pytest.mark.parametrize(("typed", "meant"), [("runn", "run"), ("qantize", "quantize"), ("x", "")])
def test_mistyped_command(typed: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([typed, "photo.jpg"])
    assert exit_.value.code == 2
    hint = f"did you mean {meant}? " if meant else ""
    last = capsys.readouterr().err.splitlines()[-1]
    listed = ", ".join(command.NAME for command in COMMANDS)
    assert last.endswith(f"error: {typed!r} is not a command; {hint}commands: {listed}")


def test_folders_that_are_not_there_or_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "nowhere"
    for command in ("verify", "pull"):
        line = failure(capsys, command, str(nowhere))
        assert "is not an existing folder" in line
        assert str(nowhere) in line
    line = failure(capsys, "pull", str(TINY))
    assert line.endswith(f"'{TINY}' is a folder here, so nothing is fetched")


def test_an_error_of_the_system_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied", "config.json")

    monkeypatch.setattr("florence_onnx.cli.info.locate", fail)
    assert "Permission denied: 'config.json'" in failure(capsys, "info", str(TINY))


def test_an_unknown_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise KeyError("a bug")

    monkeypatch.setattr("florence_onnx.cli.info.locate", fail)
    with pytest.raises(KeyError, match="a bug"):
        main(["info", str(TINY)])


def test_an_interrupt_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("florence_onnx.cli.info.locate", interrupt)
    assert main(["info", str(TINY)]) == 130
    assert capsys.readouterr() == ("", "")


def test_messages_of_several_lines_become_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise FlorenceError("first\n  second")

    monkeypatch.setattr("florence_onnx.cli.info.locate", fail)
    assert failure(capsys, "info", str(TINY)) == "florence-onnx: error: first second"


def test_the_module_is_the_command_line(photo: str) -> None:
    result = run_python("-m", "florence_onnx", "run", photo, "--task", "od", "--json", *MODEL)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["image"] == photo
    result = run_python("-m", "florence_onnx", "run", "nothing.png", "--task", "od", *MODEL)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("package", "hint"),
    [
        ("PIL", "pip install 'florence-onnx[cli]'"),
        ("tqdm", "pip install 'florence-onnx[cli]'"),
        ("onnxruntime", "pip install 'florence-onnx[cpu]'"),
    ],
)
def test_a_missing_package_is_named_with_its_command(photo: str, package: str, hint: str) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from florence_onnx.cli.program import main; sys.exit(main())"
    )
    result = run_python("-c", program, "run", photo, "--task", "od", *MODEL)
    assert (result.returncode, result.stdout) == (2, "")
    assert hint in result.stderr
    assert result.stderr.count("\n") == 1


COMMANDS_THAT_PRINT = [
    ["info", str(TINY)],
    ["info", str(TINY), "--json"],
    ["bench", str(TINY), "--tokens", "3", "--repeats", "1", "--warmup", "0"],
    ["run", "PHOTO", "PHOTO", "--task", "od", *MODEL],
]


@pytest.mark.parametrize("command", [*COMMANDS_THAT_PRINT, ["run", "--help"]], ids=" ".join)
def test_a_closed_pipe_leaves_no_traceback(photo: str, command: list[str]) -> None:
    """As in ``florence-onnx info MODEL | head -1``, with a reader that is gone from the start."""
    reader, writer = os.pipe()
    os.close(reader)
    words = [photo if word == "PHOTO" else word for word in command]
    result = run_python("-m", "florence_onnx", *words, stdout=writer)
    os.close(writer)
    assert result.returncode == 0
    assert result.stderr.replace("timing 0 + 1 runs\n", "") == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("command", COMMANDS_THAT_PRINT, ids=" ".join)
def test_output_that_cannot_be_written(photo: str, command: list[str]) -> None:
    words = [photo if word == "PHOTO" else word for word in command]
    with Path("/dev/full").open("wb") as full:
        result = run_python("-m", "florence_onnx", *words, stdout=full)
    assert result.returncode == 2
    assert result.stderr.replace("timing 0 + 1 runs\n", "").splitlines() == [
        "florence-onnx: error: [Errno 28] No space left on device"
    ]


def test_letters_the_terminal_does_not_have(tmp_path: Path) -> None:
    path = tmp_path / "\u732b.png"
    Image.fromarray(picture(1)).save(path)
    result = run_python(
        *("-m", "florence_onnx", "run", str(path), str(path), "--task", "od", *MODEL),
        env={"PYTHONIOENCODING": "ascii"},
    )
    assert (result.returncode, without_notes(result.stderr)) == (0, [])
    assert "\\u732b.png:" in result.stdout


def test_arrays_of_a_picture_are_the_files(photo: str) -> None:
    """What the tests above compare with is the picture they have written."""
    np.testing.assert_array_equal(np.asarray(Image.open(photo)), picture(1, 40, 60))
