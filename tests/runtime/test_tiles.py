"""Large pictures in tiles: where tiles are, and how what they show is put together."""

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from florence_onnx import (
    Detection,
    DetectionScores,
    Florence2,
    GenerationError,
    InputError,
    Request,
    Result,
    Task,
    Tiles,
)
from florence_onnx.merging import merge
from florence_onnx.requests import EncodedImage, EncodedTiles, Prepared
from florence_onnx.tiling import Frame
from tests.helpers.tiny import picture

SHORT: dict[str, Any] = {"max_new_tokens": 40}
LISTS = ["od", "dense_region_caption", "region_proposal", "ocr", "ocr_with_region"]


@pytest.fixture(scope="module")
def model() -> Florence2:
    return Florence2.load("demo", threads=1)


# Where tiles are


def test_tiles_cover_a_picture_and_overlap() -> None:
    draw = random.Random(0)
    for _ in range(500):
        longest = draw.choice([3, 60, 5000])
        size = draw.randint(1, longest), draw.randint(1, longest)
        check_tiles(size, draw.choice(["auto", (draw.randint(1, 32), draw.randint(1, 32))]))


def check_tiles(size: tuple[int, int], grid: Any) -> None:
    *tiles, whole = Tiles(grid).frames(size, (768, 768))
    assert whole == (0, 0, *size)
    for axis in (0, 1):
        spans = sorted({(frame[axis], frame[axis + 2]) for frame in tiles or [whole]})
        assert spans[0][0] == 0
        assert max(end for _, end in spans) == size[axis]
        assert all(start < end <= size[axis] for start, end in spans)
        for (_, end), (start, later) in pairwise(spans):
            assert start <= end <= later
            if size[axis] > 1000:
                assert (end - start) / (later - start) == pytest.approx(0.2, abs=0.1)


def test_auto_shrinks_no_tile_by_more_than_two() -> None:
    assert Tiles().frames((1536, 1536), (768, 768)) == ((0, 0, 1536, 1536),)
    assert len(Tiles().frames((4000, 3000), (768, 768))) == 4 * 3 + 1
    for size in [(1537, 100), (2000, 3000), (4000, 4000), (100, 9000)]:
        *tiles, _ = Tiles().frames(size, (768, 768))
        assert all(x2 - x1 <= 1537 and y2 - y1 <= 1537 for x1, y1, x2, y2 in tiles)
    assert len(Tiles().frames((10**6, 10), (768, 768))) == 16 + 1


def test_few_pixels_make_few_tiles() -> None:
    assert Tiles((8, 8)).frames((1, 1), (768, 768)) == ((0, 0, 1, 1),)
    assert len(Tiles((8, 8)).frames((1, 50), (768, 768))) == 8 + 1
    assert len(Tiles((32, 32)).frames((4, 3), (768, 768))) == 12 + 1


@pytest.mark.parametrize(
    "grid",
    [
        *[(0, 2), (2, 0), (33, 1), (-1, 1), (2,), (1, 2, 3), "3x2", "", 4, (1.5, 2), None, {}],
        *[{1, 2}, {2: 1, 1: 2}, b"\x02\x01", (True, 2)],
    ],
)
def test_what_is_no_grid_is_refused(model: Florence2, grid: Any) -> None:
    with pytest.raises(InputError, match='tiles= must be "auto" or \\(columns, rows\\), each from'):
        Tiles(grid)
    if grid is not None:
        with pytest.raises(InputError, match="tiles= must be"):
            model(picture(1), "od", tiles=grid)


@pytest.mark.parametrize("task", [task for task in Task if task.name.lower() not in LISTS])
def test_tasks_about_one_thing_refuse_tiles(model: Florence2, task: Task) -> None:
    region = (1, 2, 30, 40) if task.name.startswith("REGION_TO") else None
    text = "a car" if "{input}" in task.prompt and region is None else None
    with pytest.raises(InputError, match=f"list what there is.*{', '.join(LISTS[3:])}.*{task}"):
        model(picture(1), task, text, region=region, tiles=(2, 2))


def test_tiles_need_the_picture_itself(model: Florence2) -> None:
    encoded = model.encode(picture(1))
    with pytest.raises(InputError, match="tiles= needs the picture itself"):
        model(encoded, "od", tiles="auto")
    tiled = model.encode(picture(1, 90, 300), tiles=(3, 1))
    assert len(model(tiled, "od", **SHORT).tiles) == 4
    assert model(tiled, "caption", **SHORT).tiles == ()
    with pytest.raises(GenerationError, match="num_return_sequences is 2"):
        model(picture(1), "od", tiles=(2, 1), num_return_sequences=2, **SHORT)


# What they show


def found(label: str, box: Any, score: float = 0.9, is_quad: bool = False) -> Detection:
    x1, y1, x2, y2 = (float(value) for value in box)
    return Detection(
        label=label,
        box=(x1, y1, x2, y2),
        quad=(x1, y1, x2, y1, x2, y2, x1, y2) if is_quad else None,
        scores=DetectionScores(location=score, label=score, score=score),
    )


SIZE = (180, 100)
FRAMES: tuple[Frame, ...] = ((0, 0, 100, 100), (80, 0, 180, 100), (0, 0, *SIZE))


def merged(task: Task, *shown: list[Detection], per_label: bool = True) -> Result:
    """The answer of tiles that show this, in pixels of each."""
    parts = tuple(
        EncodedImage(np.zeros((5, 4), np.float32), (x2 - x1, y2 - y1)) for x1, y1, x2, y2 in FRAMES
    )
    tiles = EncodedTiles(
        parts[-1].image_features, SIZE, parts=parts, frames=FRAMES, per_label=per_label
    )
    answers = [
        Result(
            task=str(task),
            answer_kind=task.answer_kind,
            text="",
            detections=tuple(detections),
            generated="",
            token_ids=(),
            score=None,
            image_size=part.size,
        )
        for part, detections in zip(parts, shown, strict=True)
    ]
    return merge(Prepared(tiles, task, task.answer_kind, ()), tiles, answers)


def boxes(result: Result) -> list[tuple[str, tuple[float, ...]]]:
    return [(one.label, one.box) for one in result.detections]


def test_boxes_are_lifted_and_named_once() -> None:
    near, far = found("car", (5, 10, 15, 30)), found("car", (84, 9, 97, 31), 0.99)
    result = merged(Task.OD, [found("dog", (40, 40, 60, 60))], [near], [far])
    assert boxes(result) == [("dog", (40, 40, 60, 60)), ("car", (85, 10, 95, 30))]
    assert result.text == "dog<loc_222><loc_400><loc_333><loc_600>car<loc_472><loc_100>" + (
        "<loc_527><loc_300>"
    )
    assert result.tiles == FRAMES
    assert result.record()["tiles"] == [list(frame) for frame in FRAMES]


def test_a_thing_that_tiles_have_cut_becomes_one() -> None:
    left, right = found("car", (70, 10, 100, 30)), found("car", (0, 10, 40, 31), 0.8)
    assert boxes(merged(Task.OD, [left], [right], [])) == [("car", (70, 10, 120, 31))]
    whole = found("car", (71, 11, 119, 29), 0.2)
    assert boxes(merged(Task.OD, [left], [right], [whole])) == [("car", whole.box)]


def test_a_box_at_the_edge_of_the_picture_is_not_cut() -> None:
    at_edge, inner = found("car", (0, 10, 40, 30), 0.3), found("car", (2, 10, 30, 30), 0.9)
    assert boxes(merged(Task.OD, [at_edge], [], [inner])) == [("car", at_edge.box)]


def test_what_fits_no_tile_is_another_thing_than_what_a_tile_shows() -> None:
    large, small = found("car", (10, 0, 170, 100)), found("car", (20, 20, 40, 40))
    result = merged(Task.OD, [small, found("car", (10, 0, 100, 100), 0.99)], [], [large])
    assert boxes(result) == [("car", small.box), ("car", large.box)]


def test_two_things_of_one_tile_stay_two() -> None:
    one, other = found("car", (10, 10, 30, 30)), found("car", (12, 10, 32, 30))
    assert len(merged(Task.OD, [one, other], [], []).detections) == 2


@pytest.mark.parametrize("per_label", [True, False])
def test_labels_part_duplicates_unless_told_otherwise(per_label: bool) -> None:
    car, van = found("car", (85, 10, 95, 30), 0.5), found("van", (5, 10, 15, 30), 0.7)
    labels = [
        one.label for one in merged(Task.OD, [car], [van], [], per_label=per_label).detections
    ]
    assert labels == (["van", "car"] if per_label else ["van"])


def test_lines_that_tiles_have_cut_are_read_once_and_in_order() -> None:
    first = [found("The quick brow", (10, 10, 100, 20), is_quad=True)]
    second = [
        found("rown fox", (0, 11, 70, 21), is_quad=True),
        found("second", (30, 60, 70, 70), is_quad=True),
    ]
    first.append(found("line", (20, 41, 40, 51), is_quad=True))
    first.append(found("one", (2, 40, 16, 50), is_quad=True))
    second.append(found("right", (60, 43, 80, 53), is_quad=True))
    regions = merged(Task.OCR_WITH_REGION, first, second, [])
    labels = [one.label for one in regions.detections]
    assert labels == ["The quick brown fox", "one", "line", "right", "second"]
    assert regions.detections[0].quad == (10, 10, 150, 11, 150, 21, 10, 20)
    text = merged(Task.OCR, first, second, [])
    assert text.text == "The quick brown fox\none line right\nsecond"
    assert text.detections == ()
    assert text.to_dict() == {"<OCR>": text.text}


def test_a_line_over_three_tiles_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = ((0, 0, 100, 50), (80, 0, 180, 50), (160, 0, 260, 50), (0, 0, 260, 50))
    monkeypatch.setattr("tests.runtime.test_tiles.FRAMES", frames)
    shown = [
        [found("abcdefghij", (0, 10, 100, 20), is_quad=True)],
        [found("ijklmnopqr", (0, 10, 100, 20), 0.5, is_quad=True)],
        [found("qrstuvwxyz", (0, 10, 100, 20), is_quad=True)],
    ]
    result = merged(Task.OCR_WITH_REGION, *shown, [])
    assert [one.label for one in result.detections] == ["abcdefghijklmnopqrstuvwxyz"]


# Whole requests


@pytest.mark.parametrize("task", LISTS)
def test_tiles_are_those_of_the_picture(model: Florence2, task: str) -> None:
    image = picture(3, 200, 300)
    result = model(image, task, tiles=(2, 1), **SHORT)
    asked = "ocr_with_region" if task == "ocr" else task
    parts = [image[y1:y2, x1:x2] for x1, y1, x2, y2 in result.tiles]
    answers = model(parts, asked, **SHORT)
    assert result.generated == "".join(answer.generated for answer in answers)
    assert result.token_ids == tuple(id for answer in answers for id in answer.token_ids)
    assert [result.generated[slice(*token.span)] for token in result.tokens] == [
        token.text for token in result.tokens
    ]
    assert result.task == f"<{task.upper()}>"
    assert result.image_size == (300, 200)
    for one in result.detections:
        spelled = "".join(result.tokens[i].text for i in one.location_tokens)
        assert spelled.count("<loc_") == len(one.location_tokens) > 0


def test_a_picture_of_one_tile_is_asked_as_without(model: Florence2) -> None:
    for image in (picture(1), picture(2, 1, 1), picture(3, 256, 256)):
        assert model(image, "od", tiles="auto", **SHORT) == model(image, "od", **SHORT)
    assert model(picture(4), "ocr", tiles=(1, 1), **SHORT).tiles == ()


def test_batches_of_tiled_and_other_requests(model: Florence2, tmp_path: Path) -> None:
    image, path = picture(5, 90, 300), tmp_path / "rotated.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(path, exif=exif)
    requests = [
        Request(image, "od", tiles=(3, 1)),
        Request(image, "caption"),
        Request(path, "od", tiles=Tiles((1, 2), per_label=False)),
        Request(path, "od"),
        Request(image, prompt="find", answer="boxes", tiles=(2, 1)),
    ]
    results = model.run(requests, num_beams=2, **SHORT)
    alone = [model.answer(model.prepare(one), num_beams=2, **SHORT) for one in requests]
    assert [one.token_ids for one in results] == [one.token_ids for one in alone]
    assert [boxes(one) for one in results] == [boxes(one) for one in alone]
    assert [len(result.tiles) for result in results] == [4, 0, 3, 0, 3]
    assert results[2].image_size == (90, 300)


def test_rules_hold_in_every_tile(model: Florence2) -> None:
    image = picture(6, 300, 300)
    rules: Any = {"labels": ["red circle"], "min_score": 0.3, **SHORT}
    result = model(image, "od", tiles=(2, 2), **rules)
    every = model(image, "od", tiles=(2, 2), **{**rules, "min_score": 0.0})
    assert {one.label for one in every.detections} == {"red circle"}
    assert all(one.scores is not None and one.scores.score >= 0.3 for one in result.detections)
    assert len(result.detections) < len(every.detections)
    with pytest.raises(InputError, match="labels= is for tasks"):
        model(image, "ocr", tiles=(2, 2), labels=["a"])


def test_tiles_cut_off_by_the_length_are_told(model: Florence2) -> None:
    assert model(picture(7, 300, 300), "od", tiles=(2, 2), max_new_tokens=3).truncated
