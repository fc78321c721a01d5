"""The commands of docs/labelling.md run as they stand, and its tables name what there is."""

import argparse
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from florence_onnx.annotate.output import SCHEMA
from florence_onnx.cli import annotate, convert
from florence_onnx.cli.program import main
from tests.helpers.pages import DOCS, commands, copy_docs, page

PAGE = page("labelling.md")


def test_the_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    copy_docs(tmp_path)
    given = commands(PAGE)
    assert len(given) >= 7
    for words in given:
        assert words[0] == "florence-onnx"
        assert main(words[1:]) == 0, words
    assert "pictures: 2" in capsys.readouterr().out
    assert Path("texts/scene.txt").read_text().startswith("drawing, scene, ")
    assert Path("yolo/data.yaml").is_file()


def options(command: ModuleType) -> set[str]:
    parser = argparse.ArgumentParser(add_help=False)
    command.add_arguments(parser)
    return {name for action in parser._actions for name in action.option_strings}


def test_options_and_formats_are_those_that_there_are() -> None:
    ours = options(annotate) | options(convert)
    named = set(re.findall(r"`(--[a-z-]+)", PAGE))
    assert named <= ours
    assert options(convert) - {"--out"} <= named
    assert {"--every", "--limit", "--mode", "--batch-size", "--min-score", "--labels"} <= named
    rows = re.findall(r"^\| (`.*?`) \| an? (?:JSON )?(?:file|folder) \|", PAGE, re.MULTILINE)
    formats = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(formats) == sorted(convert.FORMATS)


def test_the_fields_are_those_of_a_line(tmp_path: Path) -> None:
    scene = str(DOCS / "scene.png")
    out = tmp_path / "out"
    cascades = ("caption+grounding", "od+region_to_description")
    command = ["annotate", scene, "--task", *cascades, "--model", "demo", "--out"]
    assert main([*command, str(out)]) == 0
    written = (out / "annotations.jsonl").read_text(encoding="utf-8").splitlines()
    grounded, described = map(json.loads, written)
    assert {"caption"} == grounded.keys() - described.keys()
    assert {"regions"} == described.keys() - grounded.keys()
    table = PAGE[PAGE.index("| `path`, `source` |") : PAGE.index("`labelled/errors.jsonl`")]
    first = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(first))) == sorted(grounded | described)
    assert grounded["schema"] == described["schema"] == SCHEMA
