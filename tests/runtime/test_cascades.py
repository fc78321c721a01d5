"""Two tasks on one run of the vision encoder, in Python and on the command line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from florence_onnx import (
    Florence2,
    GenerationError,
    InputError,
    Request,
    Result,
    Task,
    TaskError,
)
from florence_onnx.cascading import Cascade
from florence_onnx.cli.program import main
from florence_onnx.engine.contract import VISION_ENCODER
from florence_onnx.locations import to_bins, to_pixels, to_text
from florence_onnx.requests import EncodedImage
from tests.helpers.tiny import counted, picture

SHORT: dict[str, Any] = {"max_new_tokens": 60}
LENGTHS = ["caption", "detailed_caption", "more_detailed_caption"]
LOCATING = ["od", "dense_region_caption", "region_proposal", "ocr_with_region"]
OF_REGIONS = [task.name.lower() for task in Task if task.name.startswith("REGION_TO")]


@pytest.fixture(scope="module")
def model() -> Florence2:
    return Florence2.load("demo", threads=1)


@pytest.fixture(scope="module")
def image() -> Any:
    return picture(3, 120, 160)


@pytest.mark.parametrize("name", LENGTHS)
def test_captions_of_all_lengths_are_grounded(model: Florence2, image: Any, name: str) -> None:
    seen = counted(model)
    result = seen.cascade(image, f"{name}+grounding", **SHORT)
    vision: Any = seen.graphs.sessions[VISION_ENCODER]
    assert vision.rows == 1
    assert result.name == f"{name}+grounding"
    assert result.first == model(image, name, **SHORT)
    grounded = model(image, "caption_to_phrase_grounding", result.first.text, **SHORT)
    assert result.then == (grounded,)
    assert result.located == grounded


@pytest.mark.parametrize("first", LOCATING)
def test_every_box_is_asked_about(model: Florence2, image: Any, first: str) -> None:
    found = model(image, first, **SHORT)
    for then in OF_REGIONS:
        result = model.cascade(image, f"{first}+{then}", batch_size=2, **SHORT)
        assert result.first == result.located == found
        regions = [to_text(to_bins(one.box, found.image_size)) for one in found.detections]
        alone = [model(image, then, region=region, **SHORT) for region in regions]
        assert [one.token_ids for one in result.then] == [one.token_ids for one in alone]


def test_there_is_something_to_ask_about(model: Florence2, image: Any) -> None:
    assert len(model(image, "od", **SHORT).detections) > 1


def test_outlines_are_drawn_with_the_labels_of_their_boxes(model: Florence2, image: Any) -> None:
    result = model.cascade(image, "od+segmentation", **SHORT)
    outlines = [
        tuple(line for one in about.detections for line in one.polygons or ())
        for about in result.then
    ]
    assert any(outlines)
    for drawn, found, lines in zip(
        result.drawn.detections, result.first.detections, outlines, strict=True
    ):
        assert (drawn.label, drawn.scores, drawn.box) == (found.label, found.scores, found.box)
        assert drawn.polygons == (lines or None)
    for name in ("od+category", "caption+grounding"):
        other = model.cascade(image, name, **SHORT)
        assert other.drawn == other.located


def test_short_names_and_blanks() -> None:
    for short, task in (
        ("caption+grounding", Task.CAPTION_TO_PHRASE_GROUNDING),
        ("od+segmentation", Task.REGION_TO_SEGMENTATION),
        ("OD+Category", Task.REGION_TO_CATEGORY),
        (" <OD> + <REGION_TO_DESCRIPTION> ", Task.REGION_TO_DESCRIPTION),
        ("caption+open_vocabulary_detection", Task.OPEN_VOCABULARY_DETECTION),
    ):
        assert Cascade.parse(short).then is task


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        (" Caption + Grounding ", "caption+grounding"),
        ("<CAPTION>+<GROUNDING>", "caption+grounding"),
        ("OD+<region_to_OCR>", "od+region_to_ocr"),
        ("<CAPTION>+<CAPTION_TO_PHRASE_GROUNDING>", "caption+caption_to_phrase_grounding"),
        ("Caption\u200b+\u200bGrounding", "caption+grounding"),
    ],
)
def test_every_spelling_gives_the_same_name(name: str, plain: str) -> None:
    assert Cascade.parse(name) == Cascade.parse(plain)
    assert Cascade.parse(name).name == plain


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("od", "is no cascade"),
        ("", "is no cascade"),
        (3, "is no cascade"),
        ("+", "is not a task"),
        ("caption+", "is not a task"),
        ("+grounding", "is not a task"),
        ("caption+grounding+od", "is not a task"),
        ("caption+od", "stands one that takes text"),
        ("caption+region_to_category", "stands one that takes text"),
        ("od+grounding", "one that takes a region"),
        ("od+od", "one that takes a region"),
        ("region_to_category+grounding", "takes a region, which is another"),
    ],
)
def test_tasks_that_do_not_go_together(model: Florence2, name: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        model.cascade(picture(1), name)


def test_locations_of_boxes_are_the_models_own() -> None:
    """They come back from pixels, whatever the size of the picture."""
    for size in [(1, 1), (7, 4096), (640, 480), (768, 768), (3, 10_007)]:
        for start in range(0, 999, 2):
            bins = (start, start + 1, start + 1, start)
            assert to_bins(to_pixels(bins, size), size) == bins


def test_rules_go_to_the_task_that_they_are_for(model: Florence2, image: Any) -> None:
    labels = ["red circle"]
    result = model.cascade(image, "od+region_to_category", labels=labels, recall=4, **SHORT)
    assert result.first == model(image, "od", labels=labels, recall=4, **SHORT)
    grounded = model.cascade(image, "caption+grounding", labels=labels, **SHORT)
    assert {one.label for one in grounded.then[0].detections} <= {"red circle"}
    for name in ("caption+grounding", "ocr+grounding"):
        every = model.cascade(image, name, **SHORT)
        sure = model.cascade(image, name, min_score=1.0, **SHORT)
        assert sure.first == every.first
        assert [one.detections for one in sure.then] == [()]
    with pytest.raises(TaskError, match="recall= is for tasks that list boxes"):
        model.cascade(image, "caption+grounding", recall=4)
    with pytest.raises(TaskError, match="labels= is for tasks that label"):
        model.cascade(image, "ocr_with_region+region_to_ocr", labels=labels)
    with pytest.raises(TaskError, match="labels= has 'image': <CAPTION_TO_PHRASE_GROUNDING>"):
        model.cascade(image, "caption+grounding", labels=["circle", "image"])
    with pytest.raises(GenerationError, match="min_score is 2"):
        model.cascade(image, "caption+grounding", min_score=2)


def test_a_text_tiles_and_a_size(model: Florence2) -> None:
    image = picture(3, 200, 300)
    result = model.cascade(image, "od+region_to_category", tiles=(2, 1), **SHORT)
    assert len(result.first.tiles) == 3
    assert [len(one.tiles) for one in result.then] == [0] * len(result.first.detections)
    asked = "open_vocabulary_detection+region_to_segmentation"
    result = model.cascade(image, asked, "circle", image_size=64, **SHORT)
    first = model(image, "open_vocabulary_detection", "circle", image_size=64, **SHORT)
    assert result.first == first
    with pytest.raises(InputError, match="tiles= is for tasks that list what there is"):
        model.cascade(image, "caption+grounding", tiles=(2, 1))
    with pytest.raises(TaskError, match="needs text="):
        model.cascade(image, asked)


def test_nothing_found_is_nothing_asked(model: Florence2, image: Any) -> None:
    result = model.cascade(image, "od+region_to_category", min_score=1.0, **SHORT)
    assert (result.first.detections, result.then) == ((), ())
    empty = model.cascade(image, "caption+grounding", max_new_tokens=1)
    assert (empty.first.text, empty.then, empty.located) == ("", (), empty.first)


def test_records(model: Florence2, image: Any) -> None:
    result = model.cascade(image, "caption+grounding", **SHORT)
    assert json.loads(json.dumps(result.record("a.png"))) == {
        "image": "a.png",
        "schema": 1,
        "cascade": "caption+grounding",
        "first": result.first.record(),
        "then": [result.then[0].record()],
    }


def test_names_may_be_paths(model: Florence2, image: Any) -> None:
    result = model.cascade(image, "caption+grounding", **SHORT)
    assert json.loads(json.dumps(result.record(Path("a.png"))))["image"] == "a.png"


def test_the_command_line(
    model: Florence2, image: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, drawn = tmp_path / "a.png", tmp_path / "drawn.png"
    Image.fromarray(image).save(file)
    command = ["run", str(file), "--model", "demo", "--max-new-tokens", "60", "--task"]
    assert main([*command, "caption+grounding", "--json", "--draw", str(drawn)]) == 0
    expected = model.cascade(image, "caption+grounding", **SHORT)
    record = json.loads(capsys.readouterr().out)
    assert record["first"]["text"] == expected.first.text
    assert record["then"][0]["text"] == expected.then[0].text
    with Image.open(drawn) as opened:
        assert opened.size == (160, 120)
    assert main([*command, "od+region_to_category"]) == 0
    expected = model.cascade(image, "od+region_to_category", **SHORT)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1::2] == [f"  {one.text}" for one in expected.then]
    broken = tmp_path / "b.png"
    broken.write_bytes(file.read_bytes()[:200])
    assert main([*command[:2], str(broken), *command[2:], "caption+grounding", "--json"]) == 2
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert str(broken) in err


def test_words_of_one_picture_do_not_end_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caption may hold a tag, which no task takes as text."""
    files = [tmp_path / f"{name}.png" for name in "abc"]
    for seed, file in enumerate(files):
        Image.fromarray(picture(seed, 120, 160)).save(file)
    follow_up, answered = Cascade.follow_up, iter([False, True, False])

    def with_a_tag(cascade: Cascade, image: EncodedImage, answer: Result) -> list[Request]:
        return follow_up(
            cascade, image, replace(answer, text="a <OD> sign") if next(answered) else answer
        )

    monkeypatch.setattr(Cascade, "follow_up", with_a_tag)
    command = ["run", *map(str, files), "--model", "demo", "--json", "--max-new-tokens", "20"]
    assert main([*command, "--task", "caption+grounding"]) == 2
    out, err = capsys.readouterr()
    named = [json.loads(line)["image"] for line in out.splitlines()]
    assert named == [str(files[0]), str(files[2])]
    (line,) = err.splitlines()
    assert line.startswith(f"florence-onnx: {files[1]}: the tag <OD> must stand alone")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "caption+od"], "stands one that takes text"),
        (["--task", "caption+grounding", "--text", "x"], "takes no text"),
        (["--task", "caption+grounding", "--prompt", "x"], "are not for two tasks"),
        (["--task", "caption+grounding", "--tiles", "2x2"], "tiles= is for tasks that list"),
        (["--task", "caption+grounding", "--recall", "5"], "recall= is for tasks"),
        (["--task", "ocr+grounding", "--region", "1,2,3,4"], "takes no region"),
    ],
)
def test_wrong_command_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(picture(1)).save(file)
    assert main(["run", str(file), "--model", "demo", *options]) == 2
    assert message in capsys.readouterr().err
