"""The commands and snippets of pages about the demo model run as they stand."""

import re
from pathlib import Path

import pytest
from PIL import Image

from florence_onnx import Florence2, Result
from florence_onnx.cli.program import build_parser, main
from tests.helpers.pages import blocks, commands, copy_docs, page, run_snippet
from tests.helpers.tiny import picture


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with what the pages name."""
    copy_docs(tmp_path)
    Image.fromarray(picture(7, 200, 240)).save(tmp_path / "photo.jpg")
    Image.fromarray(picture(8, 300, 280)).save(tmp_path / "page.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLORENCE_ONNX_MODEL", "demo")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", ["index.md", "python.md", "answers.md", "tasks.md"])
def test_the_snippets_run(name: str) -> None:
    snippets = blocks(page(name), "python")
    assert snippets
    variables: dict[str, object] = {}
    for snippet in snippets:
        run_snippet(snippet, name, variables)
    assert isinstance(variables["model"], Florence2)


def without_numbers(text: str) -> str:
    return re.sub(r"[\d.]+", "0", text)


@pytest.mark.usefixtures("place")
def test_the_first_commands(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = commands(page("index.md"))
    assert main(first[1:]) == 0
    # The last bin may be another on another processor.
    (told,) = blocks(page("index.md"), "console")
    assert without_numbers(capsys.readouterr().out) == without_numbers(told)
    assert Path("drawn.png").is_file()
    assert "--model" not in second
    assert main(second[1:]) == 0


@pytest.mark.usefixtures("place")
def test_options_of_the_search_are_those_that_a_call_takes() -> None:
    section = page("python.md").partition("## Options of the search")[2].partition("\n\n")[2]
    listed = section.partition("A fine-tune that answers")[0]
    names = [word for word in listed.split("`")[1::2] if word != "model.policy"]
    assert len(names) > 15
    policy = Florence2.load("demo").policy
    for name in names:
        policy.replace(**{name: getattr(policy, name, 10)})


@pytest.mark.usefixtures("place")
def test_the_parser_alone() -> None:
    snippet = next(one for one in blocks(page("python.md"), "python") if "parse_answer(" in one)
    head, call = snippet.rstrip().rsplit("\n", 1)
    variables: dict[str, object] = {}
    run_snippet(f"{head}\nanswer = {call}", "python.md", variables)
    answer = variables["answer"]
    assert isinstance(answer, Result)
    assert [found.label for found in answer.detections] == ["car"]


def test_the_command_for_the_demo_is_one_that_there_is() -> None:
    """The page itself is opened by the tests in page/."""
    (words,) = (words for words in commands(page("demo.md")) if words[0] == "florence-onnx")
    arguments = build_parser().parse_args(words[1:])
    assert (words[1], arguments.model) == ("demo", "demo")
