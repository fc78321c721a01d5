"""Many pictures and tasks into JSON lines: what is asked, what is written, what goes on."""

import errno
import hashlib
import importlib.util
import io
import json
import os
import shutil
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from florence_onnx import Failure, Florence2, GenerationOptions, answering, encoding, streaming
from florence_onnx.annotate import pipeline
from florence_onnx.annotate.output import ANNOTATIONS, ERRORS, MODES, PREVIOUS, open_output
from florence_onnx.annotate.questions import Plan, plan_questions
from florence_onnx.annotate.sources import find_items
from florence_onnx.cli.program import main
from florence_onnx.engine.sessions import Graphs
from florence_onnx.errors import GraphRunError, ImageError, InputError
from florence_onnx.tiling import Tiles
from tests.helpers.kills import posix
from tests.helpers.tiny import TEXT, TINY, change_json, copy_tiny, picture

MODEL = ("--model", str(TINY), "--threads", "1", "--max-new-tokens", "8")
DEMO = ("--model", "demo", "--threads", "1", "--max-new-tokens", "50")
Lines = list[dict[str, Any]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five pictures in folders, and what is no picture."""
    folder = tmp_path / "photos"
    for index, name in enumerate(("b.png", "a/b.png", "a/deep/c.jpg", "z/a.WEBP", "a/b2.png")):
        save(folder / name, index)
    save(folder / ".hidden/d.png", 7)
    (folder / "notes.txt").write_text("x")
    return folder


NAMES = ["b.png", "a/b.png", "a/b2.png", "a/deep/c.jpg", "z/a.WEBP"]
"""In the order of a folder."""


def save(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path)
    return path


def annotate(*arguments: object, status: int = 0) -> None:
    assert main(["annotate", *map(str, arguments), *MODEL]) == status


def lines(out: Path, name: str = ANNOTATIONS) -> Lines:
    content = (out / name).read_bytes()
    assert content == b"" or content.endswith(b"\n")
    return [json.loads(line) for line in content.splitlines()]


def without_times(found: Lines) -> Lines:
    return [{name: line[name] for name in line if name != "seconds"} for line in found]


def asked(found: Lines) -> list[tuple[str, str]]:
    return [(line["path"], line["task"]) for line in found]


def test_a_line_per_picture_and_task(photos: Path, tmp_path: Path) -> None:
    annotate(photos, "--task", "od", "caption", "--out", tmp_path / "out")
    found = lines(tmp_path / "out")
    assert asked(found) == [(name, task) for task in ("od", "caption") for name in NAMES]
    assert lines(tmp_path / "out", ERRORS) == []
    model = Florence2.load(TINY, threads=1)
    for line in found:
        file = photos / line["path"]
        expected = model(file, line["task"], max_new_tokens=8)
        assert line["record"]["generated"] == expected.generated
        assert line["record"].keys() == expected.record().keys()
        assert line["text"] == expected.text
        assert line["hash"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert line["size"] == [32, 24]
        assert line["source"] == str(photos)
        assert (line["schema"], line["input"]) == (1, None)
        assert line["options"] == {"max_new_tokens": 8}
        assert line["seconds"] > 0
    assert len({line["model"] for line in found}) == 1


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 64])
def test_a_picture_is_encoded_once_for_all_tasks(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    """Also for a task whose text is the answer to another."""
    calls: list[None] = []
    monkeypatch.setattr(Graphs, "image_features", counting(calls, Graphs.image_features))
    tasks = ("od", "caption+grounding", "ocr")
    annotate(photos, "--task", *tasks, "--out", tmp_path / "out", "--batch-size", batch_size)
    found = lines(tmp_path / "out")
    assert sorted(asked(found)) == sorted((name, task) for name in NAMES for task in tasks)
    assert len(calls) == len(NAMES)


def counting(calls: list[None], function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*arguments: Any) -> Any:
        calls.append(None)
        return function(*arguments)

    return counted


def test_the_caption_is_what_is_grounded(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"<CAPTION>": "a car"}
    requests: list[tuple[str, str | None]] = []

    def watched(assets: Any, graphs: Any, asked: Any, policy: Any) -> Any:
        requests.extend((str(request.task), request.text) for request, _ in asked)
        for answer in streaming.answer_or_fail(assets, graphs, asked, policy):
            object.__setattr__(answer, "text", texts.get(getattr(answer, "task", ""), "found"))
            yield answer

    monkeypatch.setattr(pipeline, "answer_or_fail", watched)
    annotate(photos / "b.png", "--task", "caption+grounding", "--out", tmp_path / "out")
    assert requests == [("<CAPTION>", None), ("<CAPTION_TO_PHRASE_GROUNDING>", "a car")]
    (line,) = lines(tmp_path / "out")
    assert (line["task"], line["caption"]) == ("caption+grounding", "a car")
    assert line["record"]["task"] == "<CAPTION_TO_PHRASE_GROUNDING>"


def test_every_box_is_asked_about(photos: Path, tmp_path: Path) -> None:
    task, model = "od+region_to_category", Florence2.load("demo", threads=1)
    command = [str(photos), "--task", task, "caption", "--batch-size", "2", "--image-size", "96"]
    assert main(["annotate", *command, "--out", str(tmp_path / "out"), *DEMO]) == 0
    found = [line for line in lines(tmp_path / "out") if line["task"] == task]
    assert len(found) == len(NAMES)
    assert any(line["regions"] for line in found)
    for line in found:
        image = (photos / line["path"]).read_bytes()
        expected = model.cascade(image, task, image_size=96, max_new_tokens=50)
        assert line["record"]["text"] == expected.first.text
        texts = [one["text"] for one in line["regions"]]
        assert texts == [one.text for one in expected.then]
        assert line["options"]["image_size"] == [96, 96]


def test_a_region_that_fails_costs_one_line(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = streaming.answer_or_fail

    def failing(assets: Any, graphs: Any, asked: Any, policy: Any) -> Any:
        for (request, _), answer in zip(asked, answers(assets, graphs, asked, policy), strict=True):
            yield Failure(request, ValueError("no")) if request.region else answer

    monkeypatch.setattr(pipeline, "answer_or_fail", failing)
    task, out = "od+region_to_category", tmp_path / "out"
    status = main(["annotate", str(photos), "--task", task, "od", "--out", str(out), *DEMO])
    found, failed = lines(out), lines(out, ERRORS)
    assert status == 2
    assert len([line for line in found if line["task"] == "od"]) == len(NAMES)
    assert len(failed) + len([line for line in found if line["task"] == task]) == len(NAMES)
    assert len({line["path"] for line in failed}) == len(failed) > 0


def test_large_pictures_in_tiles(tmp_path: Path) -> None:
    """Those tasks that take tiles; the others see the whole picture, which is encoded once."""
    photos, image = tmp_path / "photos", picture(3, 200, 300)
    photos.mkdir()
    Image.fromarray(image).save(photos / "a.png")
    command = ["annotate", str(photos), "--task", "od", "caption", "--tiles", "2x1"]
    assert main([*command, "--out", str(tmp_path / "out"), *DEMO]) == 0
    model = Florence2.load("demo", threads=1)
    od, caption = lines(tmp_path / "out")
    assert od["record"] == model(image, "od", tiles=(2, 1), max_new_tokens=50).record()
    assert caption["text"] == model(image, "caption", max_new_tokens=50).text
    assert od["options"]["tiles"] == {"grid": [2, 1], "per_label": True}


def test_text_and_prompts(photos: Path, tmp_path: Path) -> None:
    command = (photos / "b.png", "--out", tmp_path / "out")
    grounding = ("--task", "caption_to_phrase_grounding", "--text")
    annotate(*command, *grounding, TEXT)
    annotate(*command, *grounding, "a tree", "--prompt", "detect", "--answer", "boxes")
    found = lines(tmp_path / "out")
    assert [(line["task"], line["input"]) for line in found] == [
        ("caption_to_phrase_grounding", TEXT),
        ("caption_to_phrase_grounding", "a tree"),
        ("detect", None),
    ]
    assert "bboxes" in found[2]["record"]["answer"]["detect"]


def test_labels_are_replaced_and_left_out(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = "<loc_0><loc_0><loc_9><loc_9>"
    text = f"cat{box}dog{box}cow{box}"
    monkeypatch.setattr("florence_onnx.tokenizer.Tokenizer.decode", lambda self, ids: text)
    labels = tmp_path / "labels.json"
    labels.write_text('{"cat": "animal", "dog": null}')
    command = (photos / "b.png", "--task", "od", "--labels", labels)
    annotate(*command, "--out", tmp_path / "out")
    (line,) = lines(tmp_path / "out")
    assert [one["label"] for one in line["record"]["detections"]] == ["animal", "cow"]
    assert line["record"]["answer"]["<OD>"]["labels"] == ["animal", "cow"]
    labels.write_text('{"cat": 1}')
    annotate(*command, "--out", tmp_path / "other", status=2)
    assert not (tmp_path / "other").exists()


def test_what_scores_less_is_left_out(tmp_path: Path) -> None:
    scene = Path(__file__).parents[2] / "docs" / "scene.png"
    command = ["annotate", str(scene), "--task", "od", "--model", "demo", "--out"]
    assert main([*command, str(tmp_path / "all")]) == 0
    scores = score_of(*lines(tmp_path / "all"))
    least = sorted(scores)[2]
    assert main([*command, str(tmp_path / "some"), "--min-score", str(least)]) == 0
    (line,) = lines(tmp_path / "some")
    assert score_of(line) == [score for score in scores if score >= least]
    assert len(score_of(line)) < len(scores)
    assert line["options"] == {"min_score": least}


def score_of(line: dict[str, Any]) -> list[float]:
    return [one["scores"]["score"] for one in line["record"]["detections"]]


# Sources


def shard_of(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as shard:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    return path


def test_every_kind_of_source(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    png = (photos / "b.png").read_bytes()
    shard_of(tmp_path / "s.tar", {"0.png": png, "0.txt": b"label", "d/1.PNG": png})
    (tmp_path / "list.txt").write_text("photos/b.png\r\n\nphotos/a/b.png\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("photos/z/a.WEBP\n"))
    sources = ("photos/a/deep/c.jpg", "photos/**/b*.png", "list.txt", "s.tar", "-", "photos/a")
    annotate(*sources, "--task", "ocr", "--out", "out")
    assert [line["path"] for line in lines(tmp_path / "out")] == [
        "photos/a/deep/c.jpg",
        *("photos/a/b.png", "photos/a/b2.png", "photos/b.png"),
        *("s.tar/0.png", "s.tar/d/1.PNG"),  # What the list names is there already.
        "photos/z/a.WEBP",
        *("b.png", "b2.png", "deep/c.jpg"),
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("lost", "lost does not exist"),
        ("lost/*.png", "lost/*.png holds no pictures"),
        ("empty", "empty holds no pictures"),
        ("bad.tar", "bad.tar cannot be read"),
        ("photos.tar.gz", "is compressed; decompress it"),
        ("latin.txt", "latin.txt cannot be read"),
    ],
)
def test_sources_that_hold_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("bad.tar").write_bytes(b"no shard")
    Path("photos.tar.gz").touch()
    Path("latin.txt").write_bytes(b"\xe9t\xe9.png")
    annotate(source, "--task", "od", "--out", "out", status=2)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert not Path("out").exists()


def test_a_shard_that_is_cut_off(tmp_path: Path) -> None:
    shard = shard_of(tmp_path / "s.tar", {"0.png": b"x" * 9999})
    (item,) = find_items([str(shard)])
    assert item.read() == b"x" * 9999
    os.truncate(shard, 1000)
    with pytest.raises(ImageError, match="ends after 488 of 9999 bytes"):
        item.read()
    with pytest.raises(InputError, match=r"s.tar cannot be read"):
        find_items([str(shard)])


@pytest.mark.skipif(os.name != "posix", reason="names are text elsewhere")
def test_a_name_that_is_no_text(photos: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        shutil.copy(photos / "b.png", tmp_path / name)
    except OSError:
        pytest.skip("this file system takes no such name")
    for _ in range(2):
        annotate(tmp_path / name, "--task", "od", "--out", tmp_path / "out")
    (line,) = lines(tmp_path / "out")
    assert line["path"] == str(tmp_path / name)


# Failures


def test_what_fails_is_written_and_asked_again(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "a/b.png").write_bytes(b"no picture")
    (tmp_path / "list.txt").write_text(f"{photos}/lost.png")
    shard = shard_of(tmp_path / "s.tar", {"0.png": b"x" * 9999})
    command = (photos, tmp_path / "list.txt", shard, "--task", "od", "--out", tmp_path / "out")
    annotate(*command, "--json", status=2)
    summary = json.loads(capsys.readouterr().out)
    assert {name: summary[name] for name in ("pictures", "answers", "errors", "skipped")} == {
        "pictures": 7,
        "answers": 4,
        "errors": 3,
        "skipped": 0,
    }
    errors = lines(tmp_path / "out", ERRORS)
    assert [(line["path"], line["task"]) for line in errors] == [
        ("a/b.png", None),
        (f"{photos}/lost.png", None),
        (f"{shard}/0.png", None),
    ]
    for line, reason in zip(errors, ("not a pic", "No such file", "not a pic"), strict=True):
        assert reason in line["error"]
    save(photos / "a/b.png", 9)
    annotate(photos, "--task", "od", "--out", tmp_path / "out")
    assert sorted(asked(lines(tmp_path / "out"))) == sorted((name, "od") for name in NAMES)
    assert lines(tmp_path / "out", ERRORS) == []


@pytest.mark.parametrize("kind", ["folder", "list", "shard"])
def test_a_source_that_vanishes_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What is gone is an error for each picture; it is asked when the source is back."""
    photos, out, names = tmp_path / "photos", tmp_path / "out", [f"{n:02}.png" for n in range(30)]
    for seed, name in enumerate(names):
        save(photos / name, seed)
    (tmp_path / "list.txt").write_text("".join(f"{photos}/{name}\n" for name in names))
    files = {name: (photos / name).read_bytes() for name in names}
    shard = shard_of(photos / "s.tar", files)
    source = {"folder": photos, "list": tmp_path / "list.txt", "shard": shard}[kind]
    encode, away = encoding.encode, tmp_path / "away"

    def vanishing(*arguments: Any) -> Any:
        if photos.exists():
            photos.rename(away)
        return encode(*arguments)

    command = (source, "--task", "od", "--out", out)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "encode", vanishing)
        annotate(*command, status=2)
    found, errors = lines(out), lines(out, ERRORS)
    assert {"No such file" in line["error"] for line in errors} == {True}
    assert 0 < len(found) < len(names)
    assert len({line["path"] for line in [*found, *errors]}) == len(found) + len(errors) == 30
    away.rename(photos)
    annotate(*command)
    assert lines(out)[: len(found)] == found
    assert len({line["path"] for line in lines(out)}) == len(lines(out)) == 30
    assert lines(out, ERRORS) == []


def test_a_batch_that_fails_is_answered_one_by_one(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_batch = answering.answer_batch

    def failing(assets: Any, graphs: Any, batch: Any, policy: Any) -> Any:
        if len(batch) > 1 or batch[0].asked == "<OCR>":
            raise GraphRunError("the engine has failed")
        return answer_batch(assets, graphs, batch, policy)

    monkeypatch.setattr(streaming, "answer_batch", failing)
    annotate(photos, "--task", "od", "ocr", "--out", tmp_path / "out", status=2)
    assert asked(lines(tmp_path / "out")) == [(name, "od") for name in NAMES]
    errors = lines(tmp_path / "out", ERRORS)
    assert asked(errors) == [(name, "ocr") for name in NAMES]
    assert {line["error"] for line in errors} == {"the engine has failed"}
    assert all(line["hash"] for line in errors)


def test_a_full_disk_leaves_whole_lines_and_the_next_run_goes_on(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write, room = os.write, [2000]

    def until_full(file: int, data: Any) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(file, data[: room[0]])
        room[0] -= written
        return written

    command = (photos, "--task", "od", "--out", tmp_path / "out", "--batch-size", "1")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", until_full)
        annotate(*command, status=2)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"No space left on device: '{tmp_path / 'out' / 'annotations.jsonl'}'" in err
    first = lines(tmp_path / "out")
    assert 0 < len(first) < len(NAMES)
    annotate(*command)
    assert lines(tmp_path / "out")[: len(first)] == first
    assert asked(lines(tmp_path / "out")) == [(name, "od") for name in NAMES]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "odd"), "'odd' is not a task"),
        (("--task", "region_to_ocr"), "takes a region"),
        (("--task", "od+caption"), "one that takes a region"),
        (("--task", "caption", "--tiles", "2x2"), "tiles= is for tasks that list"),
        (("--task", "od", "--tiles", "0x2"), "tiles= must be"),
        (("--task", "od", "--any-label"), "--any-label is about tiles"),
        (("--task", "od", "--image-size", "1000"), "this model takes squares from 1 to"),
        (("--task", "caption+lost"), "'lost' is not a task"),
        (("--task", "caption_to_phrase_grounding"), "needs text"),
        (("--task", "od", "--text", "x"), "no task takes text"),
        (("--task", "od", "--answer", "boxes"), "--prompt"),
        ((), "give --task"),
        (("--task", "od", "--beams", "0"), "num_beams"),
        (("--task", "od", "--min-score", "2"), "min_score"),
        (("--task", "od", "--labels", "lost.json"), "lost.json is missing; --labels takes"),
        (("--task", "od", "--every", "2"), "--every is about videos, and no source is a video"),
        (("--task", "od", "--out", "null", "--mode", "replace"), "--mode is about an output"),
        (("--task", "caption", "ocr", "--min-score", "0.5"), "--min-score is for tasks that"),
    ],
)
def test_wrong_options_are_told_before_anything_is_written(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    annotate(photos, "--out", tmp_path / "out", *arguments, status=2)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert not (tmp_path / "out").exists()


def test_labels_that_no_task_gives(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "map.json").write_text('{"car": null}')
    labels = ("--labels", tmp_path / "map.json", "--out", "null")
    annotate(photos, "--task", "caption", *labels, status=2)
    assert "--labels is for tasks that locate things" in capsys.readouterr().err
    annotate(photos, "--task", "caption+grounding", "--limit", "1", *labels)


def test_text_in_tiles_has_scores() -> None:
    """Tiles are asked for text with places."""
    questions, options = plan_questions(["ocr"], None, None, None), GenerationOptions(min_score=0.5)
    assert Plan(questions, options, tiles=Tiles()).options == options
    with pytest.raises(InputError, match="--min-score is for tasks that locate things"):
        Plan(questions, options)


def test_a_missing_package_is_named_before_anything_is_written(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "PIL" else find_spec(name)
    )
    annotate(photos, "--task", "od", "--out", tmp_path / "out", status=2)
    assert (
        "annotate needs pillow; run pip install 'florence-onnx[annotate]'"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


# Going on


def test_only_what_is_new_is_asked(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    annotate(photos, "--task", "od", "--out", out)
    first = lines(out)
    capsys.readouterr()
    annotate(photos, "--task", "od", "--out", out, "--json")
    summary = json.loads(capsys.readouterr().out)
    assert (summary["skipped"], summary["answers"]) == (5, 0)
    save(photos / "b.png", 20)
    save(photos / "new.png", 21)
    annotate(photos, "--task", "od", "--out", out)
    annotate(photos, "--task", "caption", "od", "--out", out)
    found = lines(out)
    assert found[:5] == first
    assert asked(found[5:7]) == [("b.png", "od"), ("new.png", "od")]
    assert sorted(asked(found[7:])) == sorted((name, "caption") for name in [*NAMES, "new.png"])


def test_one_file_under_two_names_and_one_name_twice(photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "b.png", photos / "c.png")
    out = tmp_path / "out"
    annotate(photos, photos, "--task", "od", "--out", out)
    assert sorted(asked(lines(out))) == sorted((name, "od") for name in [*NAMES, "c.png"])


def test_a_limit_and_then_the_rest(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for expected in (2, 4, 5, 5):
        annotate(photos, "--task", "od", "caption+grounding", "--out", out, "--limit", "2")
        assert len({line["path"] for line in lines(out)}) == expected
        assert len(lines(out)) == 2 * expected


def test_other_options_and_another_model_are_refused_or_appended(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["annotate", str(photos), "--task", "od", "--out", str(out), "--threads", "1"]
    other = copy_tiny(tmp_path)
    change_json(other / "generation_config.json", lambda content: content.update(num_beams=2))
    short, long = ["--max-new-tokens", "8"], ["--max-new-tokens", "9"]
    assert main([*command, "--model", str(TINY), *short]) == 0
    capsys.readouterr()
    for model, options, reason in (
        (TINY, long, "line 1 has other options"),
        (other, short, "line 1 has another model"),
    ):
        changed = [*command, "--model", str(model), *options]
        before = (out / ANNOTATIONS).read_bytes()
        assert main(changed) == 2
        assert reason in capsys.readouterr().err
        assert (out / ANNOTATIONS).read_bytes() == before
        for _ in range(2):
            assert main([*changed, "--mode", "append"]) == 0
        assert (out / ANNOTATIONS).read_bytes().startswith(before)
    capsys.readouterr()
    assert len(lines(out)) == 15
    before = (out / ANNOTATIONS).read_bytes()
    assert main([*command, "--model", str(TINY), *long, "--mode", "replace"]) == 0
    assert len(lines(out)) == 5
    assert (out / PREVIOUS).read_bytes() == before


@pytest.mark.parametrize("end", ["\n", ""])
@pytest.mark.parametrize("foreign", ['{"path": "a.png"}', "[1]", "text"])
@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *((ANNOTATIONS, mode) for mode in MODES),
        (PREVIOUS, "replace"),
        *((ERRORS, mode) for mode in MODES),
    ],
)
def test_a_file_of_another_tool_is_left_alone(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    foreign: str,
    end: str,
    name: str,
    mode: str,
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text(foreign + end)
    annotate(photos, "--task", "od", "--out", out, "--mode", mode, status=2)
    assert "line 1" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in out.iterdir()} == {name: foreign + end}


@posix
@pytest.mark.parametrize(
    ("name", "told"),
    [("list.txt", "Not a regular file"), ("s.tar", "Not a regular file"), ("a.png", "errors: 1")],
)
def test_a_source_that_is_no_regular_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, told: str
) -> None:
    """Opening it would block."""
    os.mkfifo(tmp_path / name)
    annotate(tmp_path / name, "--task", "od", "--out", "null", status=2)
    out, err = capsys.readouterr()
    assert told in out + err


@pytest.mark.parametrize("length", [1, 700, -1])
def test_a_torn_last_line_is_repaired_and_said(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], length: int
) -> None:
    """Its beginning, or all but the end of the line."""
    out = tmp_path / "out"
    annotate(photos, "--task", "od", "--out", out)
    whole = lines(out)
    content = (out / ANNOTATIONS).read_bytes()
    *rest, last = content.splitlines(keepends=True)
    (out / ANNOTATIONS).write_bytes(b"".join([*rest, last[:length]]))
    capsys.readouterr()
    annotate(photos, "--task", "od", "--out", out)
    assert "the last line " in capsys.readouterr().err
    assert without_times(lines(out)) == without_times(whole)


def test_a_second_process_is_told(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with open_output(out, "fill", "model", {}):
        annotate(photos, "--task", "od", "--out", out, status=2)
    assert "another process is writing to" in capsys.readouterr().err
    annotate(photos, "--task", "od", "--out", out)
    assert {path.name for path in out.iterdir()} == {ANNOTATIONS, ERRORS}


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_finishes_the_batch_and_the_next_run_goes_on(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    command = (photos, "--task", "od", "caption+grounding", "--batch-size", "2")
    annotate(*command, "--out", whole)
    capsys.readouterr()
    encode = encoding.encode

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), number)
        return encode(*arguments)

    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    for _ in range(12):
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, "encode", interrupted)
            status = main(["annotate", *map(str, command), "--out", str(out), *MODEL, "--json"])
        assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
        summary = json.loads(capsys.readouterr().out)
        assert (status, summary["interrupted"]) in ((130, True), (0, False))
        if status == 0:
            break
        assert 0 < summary["answers"] <= 3
    assert status == 0
    by_question = sorted(without_times(lines(out)), key=str)
    assert by_question == sorted(without_times(lines(whole)), key=str)


@posix
def test_a_second_interrupt_ends_at_once_and_tears_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    encode, calls = encoding.encode, iter(range(99))

    def interrupted(*arguments: Any) -> Any:
        if next(calls) == 2:
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
        return encode(*arguments)

    command = (photos, "--task", "od", "--out", out, "--batch-size", "1")
    # Jobs in the background begin with an interrupt that is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "encode", interrupted)
        annotate(*command, status=130)
    signal.signal(signal.SIGINT, before)
    assert asked(lines(out)) == [(name, "od") for name in NAMES[:2]]
    annotate(*command)
    assert asked(lines(out)) == [(name, "od") for name in NAMES]


def test_a_size_of_batches_that_is_found(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (photos, "--task", "od", "caption+grounding", "--json", "--out")
    annotate(*command, tmp_path / "found", "--batch-size", "auto")
    sizes = json.loads(capsys.readouterr().out)["batch_sizes"]
    assert sizes.keys() == {"od", "caption+grounding"}
    annotate(*command, tmp_path / "given", "--batch-size", "3")
    assert json.loads(capsys.readouterr().out)["batch_sizes"] == dict.fromkeys(sizes, 3)
    found, given = (
        sorted(without_times(lines(tmp_path / name)), key=str) for name in ("found", "given")
    )
    assert found == given


def test_a_caption_that_cannot_be_grounded_fails_alone(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is empty, or longer than the positions of the model."""
    texts = iter(["", "a car", "a " * 9999, "a car", "a car"])

    def watched(*arguments: Any) -> Any:
        for answer in streaming.answer_or_fail(*arguments):
            if getattr(answer, "task", "") == "<CAPTION>":
                object.__setattr__(answer, "text", next(texts))
            yield answer

    monkeypatch.setattr(pipeline, "answer_or_fail", watched)
    annotate(photos, "--task", "caption+grounding", "--out", tmp_path / "out", status=2)
    assert [line["path"] for line in lines(tmp_path / "out", ERRORS)] == [NAMES[0], NAMES[2]]
    assert [line["path"] for line in lines(tmp_path / "out")] == [NAMES[1], *NAMES[3:]]


# Output


def test_nothing_is_written_without_an_output_and_in_a_dry_run(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    annotate(photos, "--task", "od", "--out", "null", "--json")
    assert json.loads(capsys.readouterr().out)["answers"] == 5
    monkeypatch.setattr(Florence2, "load", None)
    annotate(photos, "--task", "od", "--out", "out", "--dry-run", "--json")
    assert json.loads(capsys.readouterr().out) == {"pictures": 5, "tasks": ["od"]}
    annotate(photos, "--task", "od", "--out", "out", "--dry-run", "--json", "--limit", "2")
    assert json.loads(capsys.readouterr().out) == {"pictures": 2, "tasks": ["od"]}
    assert sorted(tmp_path.rglob("*")) == before
