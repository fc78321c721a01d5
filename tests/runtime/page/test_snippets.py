"""Programs and commands of the page ask what the page has asked."""

import ast
import contextlib
import io
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from florence_onnx import Florence2
from florence_onnx.cli.demo import source_of
from florence_onnx.cli.program import build_parser, main
from florence_onnx.page.form import CASCADES, PROMPT
from florence_onnx.page.showing import show
from florence_onnx.page.snippets import Source, as_command, as_python
from florence_onnx.tasks import Task
from tests.helpers.page import asked
from tests.helpers.tiny import TINY, picture

FIELDS = {"text": 'a "green"\ncar \u8eca', "region": "3,5,20,17.5", "tokens": 12}
SOURCE = Source(str(TINY), {"threads": 1}, ["--threads", "1"])

CASES: dict[str, dict[str, Any]] = {
    **{task.name: {"tasks": [task.name.lower()]} for task in Task},
    "prompt": {"tasks": [PROMPT], "prompt": "-detect 'it'", "answer": "boxes"},
    "prompt of text": {"tasks": [PROMPT], "prompt": "<DocVQA>What?"},
    "rules": {"labels": "car,a dog", "recall": 2, "min_score": 0.01, "beams": 2},
    "share": {"recall": 0.5, "constrain": True},
    "tokens": {"tasks": ["region_to_ocr"], "region": "<loc_1><loc_2><loc_30><loc_40>"},
    "dash": {"tasks": ["open_vocabulary_detection"], "text": "--model"},
    **{name: {"tasks": [name]} for name in CASCADES},
    "rules of a cascade": {"tasks": ["od+category"], "labels": "car", "min_score": 0.01},
    "several": {"tasks": ["od", "caption", "region_to_ocr", PROMPT], "prompt": "it", "labels": "a"},
    "several with a cascade": {"tasks": ["od", "caption+grounding"]},
}


@pytest.fixture(scope="module")
def model() -> Florence2:
    return Florence2.load(TINY, threads=1)


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture with a name that shells and Python read otherwise."""
    path = tmp_path / "-a 'b $c.png"
    Image.fromarray(picture(1, 60, 80)).save(path)
    monkeypatch.chdir(tmp_path)
    return path


def printed_by(program: str) -> list[Any]:
    """The records that a program prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(program, "page", "exec"), {})  # noqa: S102
    return [ast.literal_eval(line) for line in printed.getvalue().splitlines()]


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES)
def test_the_same_records(
    model: Florence2, photo: Path, fields: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    questions = asked(model.policy, photo, **{**FIELDS, **fields})
    records = list(show(model, questions).records)
    assert printed_by(as_python(questions, SOURCE)) == records
    commands = split_commands(as_command(questions, SOURCE))
    assert len(commands) == len(records)
    for command, record in zip(commands, records, strict=True):
        assert command[0] == "florence-onnx"
        assert main(command[1:]) == 0
        found = json.loads(capsys.readouterr().out)
        assert Path(found.pop("image")).name == photo.name
        assert found == record


def split_commands(text: str) -> list[list[str]]:
    """The words of every command, as a shell has them."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " ", True, ""
    commands: list[list[str]] = [[]]
    for word in lexer:
        if word == "\n":
            commands.append([])
        else:
            commands[-1].append(word)
    return [command for command in commands if command]


def test_programs_are_short() -> None:
    (question,) = questions = asked(Florence2.load(TINY, threads=1).policy, "/tmp/x/scene.png")  # noqa: S108
    source = Source("demo", {}, [])
    assert as_python(questions, source) == (
        "from florence_onnx import Florence2\n\n"
        'model = Florence2.load("demo")\n'
        'result = model("scene.png", "od")\n'
        "print(result.record())\n"
    )
    assert as_command(questions, source) == (
        "florence-onnx run scene.png --task od --model demo --json\n"
    )
    assert as_python([question, question], source).count('model(encoded, "od")') == 2


def opened_by(flags: list[str], precision: str = "fp32", is_chosen: bool = False) -> Source:
    """How the command opens a model."""
    arguments = build_parser().parse_args(["demo", "--model", "org/name", *flags])
    return source_of(arguments, precision, is_chosen)


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ([], {}),
        (["--threads", "2"], {"threads": 2}),
        (["--revision", "v1", "--local-files-only"], {"revision": "v1", "local_files_only": True}),
        (["--cache-dir", "cache"], {"cache_dir": "cache"}),
        (["--provider", "A", "--provider", "vision_encoder=B"], None),
    ],
)
def test_the_model_is_opened_as_on_the_page(
    flags: list[str], options: dict[str, Any] | None
) -> None:
    source = opened_by(flags)
    providers = {"providers": {"*": ["A"], "vision_encoder": ["B"]}}
    assert source.options == (providers if options is None else options)
    parsed = build_parser().parse_args(["run", "a.png", "--model", source.model, *source.flags])
    given = build_parser().parse_args(["run", "a.png", "--model", "org/name", *flags])
    assert parsed == given


def test_the_precision_is_told_where_another_could_be_taken() -> None:
    assert opened_by([]).flags == []
    assert opened_by([], "fp32", is_chosen=True).flags == ["--precision", "fp32"]
    source = opened_by([], "q8")
    assert (source.options, source.flags) == ({"precision": "q8"}, ["--precision", "q8"])
    mixed = opened_by([], "vision_encoder=fp16,*=q4")
    assert mixed.options == {"precision": {"vision_encoder": "fp16", "*": "q4"}}
    assert mixed.flags == ["--precision", "vision_encoder=fp16,*=q4"]
    questions = asked(Florence2.load(TINY, threads=1).policy, "a.png")
    program = as_python(questions, mixed)
    assert 'Florence2.load("org/name", precision={"vision_encoder": "fp16", "*": "q4"})' in program
