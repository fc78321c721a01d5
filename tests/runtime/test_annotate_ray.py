"""Pictures in the rows of a Ray dataset, and a run by actors of a Ray cluster."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from florence_onnx.annotate import ray
from florence_onnx.annotate.output import ANNOTATIONS
from florence_onnx.annotate.questions import Plan, plan_questions
from florence_onnx.annotate.ray import Annotator, row_of
from florence_onnx.annotate.sources import Item, find_items
from florence_onnx.annotate.tries import TOGETHER, Tries
from florence_onnx.cli.program import main
from florence_onnx.errors import GenerationError, InputError, ModelFileError
from florence_onnx.images.bitmap import write_bitmap
from tests.helpers.tiny import TINY, picture

PLAN = Plan(plan_questions(["od", "caption"], None, None, None), {"max_new_tokens": 8})
OPTIONS = ["--task", "od", "caption", "--model", str(TINY), "--max-new-tokens", "8"]
Lines = list[dict[str, Any]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(12):
        Image.fromarray(picture(seed)).save(folder / f"{seed:02}.png")
    return folder


@pytest.fixture
def expected(photos: Path, tmp_path: Path) -> Lines:
    """What one process writes."""
    return annotate(photos, tmp_path / "one-process", "--threads", "1")


def annotate(photos: Path, out: Path, *arguments: str, status: int = 0) -> Lines:
    command = ["annotate", str(photos), *OPTIONS, "--out", str(out), *arguments]
    assert main(command) == status
    return lines(out)


def lines(out: Path, name: str = ANNOTATIONS) -> Lines:
    return comparable(json.loads(line) for line in (out / name).read_bytes().splitlines())


def comparable(found: Any, *without: str) -> Lines:
    """In one order, without what differs from run to run."""
    kept = ({k: v for k, v in line.items() if k not in ("seconds", *without)} for line in found)
    return sorted(kept, key=lambda line: (line["path"], str(line["task"])))


def texts(column: Any) -> Lines:
    """The lines of all rows of a column."""
    return [line for text in column for line in json.loads(text)]


# The class, in this process


@pytest.fixture(scope="module")
def annotator() -> Annotator:
    return Annotator(TINY, PLAN, threads=1)


def test_paths_bytes_and_arrays_have_the_lines_of_a_folder(
    photos: Path, expected: Lines, annotator: Annotator
) -> None:
    files = sorted(photos.iterdir())
    paths = np.array([str(file) for file in files])
    held = np.array([file.read_bytes() for file in files], dtype=object)
    arrays = np.stack([np.asarray(Image.open(file)) for file in files])
    with_folder = [line | {"path": f"{photos}/{line['path']}"} for line in expected]
    for batch, differs in (
        ({"path": paths, "number": np.arange(12)}, ()),
        ({"path": paths, "bytes": held, "number": np.arange(12)}, ()),
        ({"path": paths, "image": arrays, "number": np.arange(12)}, ("hash",)),
    ):
        answered = annotator(batch)
        assert answered.keys() == {"path", "number", "annotations", "errors"}
        assert answered["number"].tolist() == [*range(12)]
        found = texts(answered["annotations"])
        assert comparable(found, "source", *differs) == comparable(with_folder, "source", *differs)
        assert texts(answered["errors"]) == []


def test_pictures_without_names_have_their_content_as_path(annotator: Annotator) -> None:
    """Also of unlike sizes, and the same picture twice: rows do not share their answers."""
    pictures = np.empty(3, dtype=object)
    pictures[:] = [picture(0), picture(1, 40, 30), picture(0)]
    rows = [json.loads(text) for text in annotator({"image": pictures})["annotations"]]
    assert [len(row) for row in rows] == [2, 2, 2]
    assert all(line["path"] == line["hash"] for row in rows for line in row)
    assert comparable(rows[0]) == comparable(rows[2])
    assert rows[0][0]["hash"] != rows[1][0]["hash"]
    held = np.array([write_bitmap(picture(0))], dtype=object)
    assert comparable(texts(annotator({"bytes": held})["annotations"])) == comparable(rows[0])


def test_a_picture_that_fails_is_an_error_of_its_row(annotator: Annotator) -> None:
    held = np.empty(4, dtype=object)
    held[:] = [b"no picture", write_bitmap(picture(0)), None, b""]
    answered = annotator({"bytes": held})
    assert [len(json.loads(text)) for text in answered["annotations"]] == [0, 2, 0, 0]
    errors = [json.loads(text) for text in answered["errors"]]
    assert [len(of_row) for of_row in errors] == [1, 0, 1, 1]
    assert "cannot read a picture from builtins.NoneType" in errors[2][0]["error"]
    lost = annotator({"path": np.array(["/lost.png"])})
    (error,) = texts(lost["errors"])
    assert (error["path"], error["source"]) == ("/lost.png", "/lost.png")
    assert "No such file" in error["error"]


def test_a_row_of_the_command(photos: Path, expected: Lines, annotator: Annotator) -> None:
    """With what is answered already, a picture inside a shard, and a name that is no text."""
    content = expected[0]["hash"]
    path, source = "00.png", str(photos)
    file = f"{photos}/00.png"
    name = os.fsdecode(b"caf\xe9.png")
    items = [Item(path, source, file), Item(name, source, file, (0, Path(file).stat().st_size))]
    rows = [row_of(items[0], {content: [0]}), row_of(items[0], {"other": [0, 1]})]
    rows += [row_of(items[0], {content: [0, 1]}), row_of(items[1], {})]
    assert all(row.isascii() for row in rows)
    answered = annotator({"item": np.array(rows[:1])})
    assert answered.keys() == {"annotations", "errors"}
    assert [line["task"] for line in texts(answered["annotations"])] == ["caption"]
    found = [annotator({"item": np.array([row])})["annotations"][0] for row in rows[1:]]
    assert [len(json.loads(text)) for text in found] == [2, 0, 2]
    assert comparable(json.loads(found[0])) == comparable(expected[:2])
    assert {line["path"] for line in json.loads(found[2])} == {name}


class Killed(BaseException):
    """Signals the end of an actor, which a test survives."""


def test_a_picture_that_kills_its_actor_becomes_an_error(
    photos: Path, expected: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two tries with its batch and one alone; the others of the batch are answered."""
    read, deadly = Item.read, ["04.png", "09.png"]

    def reading(self: Item) -> bytes:
        if self.error is None and self.path in deadly:
            raise Killed
        return read(self)

    monkeypatch.setattr(Item, "read", reading)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda value: value))
    tries = Tries()
    remote = SimpleNamespace(
        begin=SimpleNamespace(remote=tries.begin), end=SimpleNamespace(remote=tries.end)
    )
    rows = [row_of(item, {}) for item in find_items([str(photos)])]
    kills = 0
    for _ in range(9):
        monkeypatch.setattr(ray, "_processors", lambda: 1)
        actor = Annotator(TINY, PLAN, tries=remote)
        try:
            answered = actor({"item": np.array(rows)})
            break
        except Killed:
            kills += 1
    assert kills == TOGETHER + len(deadly)
    errors = texts(answered["errors"])
    assert [line["path"] for line in errors] == deadly
    assert all("the actor has ended 3 times" in line["error"] for line in errors)
    assert comparable(texts(answered["annotations"])) == [
        line for line in expected if line["path"] not in deadly
    ]
    assert tries.begin("\n".join(rows)) == 0, "the next run starts anew"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"tasks": "od"}, InputError, "give a list of tasks, such as"),
        ({"tasks": ["odd"]}, InputError, "'odd' is not a task"),
        ({"tasks": Plan(PLAN.questions, {"num_beams": 0})}, GenerationError, "num_beams"),
        ({"tasks": ["od"], "digest": "0" * 64}, ModelFileError, "give all nodes the same files"),
    ],
)
def test_what_an_actor_refuses(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Annotator(TINY, threads=1, **arguments)


def test_a_dataset_without_pictures(annotator: Annotator) -> None:
    with pytest.raises(InputError, match="has the columns url, text; pictures are in bytes, image"):
        annotator({"url": np.array(["x"]), "text": np.array(["y"])})


def test_a_limit_is_not_that_of_an_actor() -> None:
    """The command's, which counts the pictures of all actors."""
    few = Annotator(TINY, Plan(PLAN.questions, PLAN.options, limit=1), threads=1)
    held = np.array([write_bitmap(picture(seed)) for seed in range(3)], dtype=object)
    assert [len(json.loads(text)) for text in few({"bytes": held})["annotations"]] == [2, 2, 2]


# The command, without a cluster


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--actors", "2"], "--actors is about --ray"),
        (["--gpus-per-actor", "0.5"], "--gpus-per-actor is about --ray"),
    ],
)
def test_options_that_need_ray(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert main(["annotate", str(photos), *OPTIONS, "--out", str(tmp_path / "o"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "x", "nan", "inf"])
def test_no_part_of_a_gpu(capsys: pytest.CaptureFixture[str], value: str) -> None:
    with pytest.raises(SystemExit):
        main(["annotate", "x", "--out", "null", "--ray", "local", "--gpus-per-actor", value])
    assert "is not a part of a GPU" in capsys.readouterr().err


def test_ray_is_named_where_it_is_missing(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    find_spec, lacking = importlib.util.find_spec, ("ray", "pyarrow")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in lacking else find_spec(name)
    )
    command = ["annotate", str(photos), *OPTIONS, "--out", str(tmp_path / "o"), "--ray", "local"]
    assert main(command) == 2
    assert (
        "--ray needs ray, pyarrow; run pip install 'florence-onnx[ray]'" in capsys.readouterr().err
    )
    assert not (tmp_path / "o").exists()
