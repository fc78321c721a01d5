"""Results as notebooks show them."""

import base64
import copy
import dataclasses
import gc
import io
import pickle
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from florence_onnx import DetectionScores, Florence2, Request, Result, Token, parse_answer
from florence_onnx.drawing import draw
from tests.helpers.tiny import TINY, picture

BOX = "<loc_100><loc_200><loc_600><loc_800>"
SCORES = DetectionScores(location=0.5, label=0.5, score=0.93)
HOSTILE = "<script>alert(1)</script>&amp;\"'"


class Words(HTMLParser):
    """The tags and the texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_table_of_detections() -> None:
    result = parse_answer(f"cat{BOX}dog{BOX}", "<OD>", (200, 100))
    first, second = result.detections
    scored = dataclasses.replace(first, scores=SCORES)
    result = dataclasses.replace(result, detections=(scored, second), truncated=True)
    page = Words(result._repr_html_())
    assert page.tags.count("tr") == 3
    assert page.texts == [
        "<OD>, 200x100 pixels, cut off by the limit of the length",
        *("label", "score", "box: x1, y1, x2, y2"),
        *("cat", "0.93", "20.1, 20.1, 120.1, 80.0"),
        *("dog", "20.1, 20.1, 120.1, 80.0"),
    ]


def test_a_text_with_its_confidence() -> None:
    result = parse_answer("a car\nin a street", "<CAPTION>", (200, 100))
    result = dataclasses.replace(result, tokens=(Token(5, "a", (0, 1), 0.0),))
    page = Words(result._repr_html_())
    assert page.texts == [
        "<CAPTION>, 200x100 pixels, confidence 1.00",
        "a car\nin a street",
    ]
    assert "table" not in page.tags


@pytest.mark.parametrize("task", ["<OD>", "<CAPTION>", "<OCR_WITH_REGION>"])
def test_words_of_an_answer_are_never_html(task: str) -> None:
    quad = "<loc_1><loc_1><loc_9><loc_1>" if task == "<OCR_WITH_REGION>" else ""
    result = parse_answer(f"cat{quad}{BOX}", task, (200, 100))
    words = f"{HOSTILE}\u202e"
    found = tuple(dataclasses.replace(one, label=words) for one in result.detections)
    result = dataclasses.replace(result, task=words, text=words, detections=found)
    page = Words(result._repr_html_())
    assert {*page.tags} <= {"div", "p", "pre", "table", "tr", "th", "td"}
    assert sum(HOSTILE + "\\u202e" in text for text in page.texts) == 2


# Pictures

SHORT: Any = {"max_new_tokens": 12, "num_beams": 1}


@pytest.fixture(scope="module")
def model() -> Florence2:
    return Florence2.load(TINY, threads=1)


def shown(result: Result) -> Image.Image | None:
    """The picture inside the page of a result."""
    page = result._repr_html_()
    if "<img" not in page:
        return None
    data = page.split("base64,")[1].split('"')[0]
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def is_drawn(result: Result, image: Any) -> bool:
    """Tells whether the page shows what `draw` draws, which JPEG changes a little."""
    found = shown(result)
    if found is None:
        return False
    ours, drawn = np.asarray(found).astype(int), np.asarray(draw(image, result)).astype(int)
    return ours.shape == drawn.shape and bool(np.abs(ours - drawn).mean() < 12)


def test_every_way_to_ask_shows_the_drawn_picture(model: Florence2, tmp_path: Path) -> None:
    array = picture(3, 60, 80)
    file = tmp_path / "a.png"
    Image.fromarray(array).save(file)
    encoded = model.encode(array)
    images: list[Any] = [array, Image.fromarray(array), file, str(file)]
    for image in images:
        requests = [Request(image, "region_proposal")]
        found = [
            model(image, "region_proposal", **SHORT),
            *model([image, image], "region_proposal", **SHORT),
            *model.run(requests, **SHORT),
            model.answer(model.prepare(requests[0]), **SHORT),
            model(image, "region_proposal", tiles=(2, 1), **SHORT),
        ]
        for result in found:
            assert is_drawn(result, image)
    assert is_drawn(model(encoded, "region_proposal", **SHORT), array)
    assert shown(model(array, "caption", **SHORT)) is None


def test_a_result_keeps_no_picture(model: Florence2, tmp_path: Path) -> None:
    array = picture(3, 60, 80)
    result = model(array, "region_proposal", **SHORT)
    assert shown(result) is not None
    for other in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        assert other == result
        assert "<table>" in other._repr_html_()
    del array
    gc.collect()
    assert shown(result) is None
    assert "<table>" in result._repr_html_()
    file = tmp_path / "a.png"
    Image.fromarray(picture(3, 60, 80)).save(file)
    content = file.read_bytes()
    kept = pickle.loads(pickle.dumps(model(file, "region_proposal", **SHORT)))
    assert is_drawn(kept, file)
    Image.fromarray(picture(3, 90, 80)).save(file)
    assert shown(kept) is None, "another picture has the place of the picture"
    file.unlink()
    assert shown(kept) is None
    assert shown(model(content, "region_proposal", **SHORT)) is None


def test_large_pictures_are_shown_smaller(model: Florence2) -> None:
    array = picture(3, 700, 2100)
    found = shown(model(array, "region_proposal", **SHORT))
    assert found is not None
    assert found.size == (1024, 341)


def test_a_cascade_shows_both_answers() -> None:
    demo, image = Florence2.load("demo", threads=1), picture(3, 120, 160)
    cascade = demo.cascade(image, "caption+grounding")
    page = Words(cascade._repr_html_())
    assert page.tags.count("pre") == page.tags.count("img") == page.tags.count("table") == 1
    assert cascade.first.text in page.texts
    for then in ("region_to_category", "region_to_segmentation"):
        cascade = demo.cascade(image, f"od+{then}")
        assert cascade.then
        page = Words(cascade._repr_html_())
        assert page.tags.count("img") == page.tags.count("table") == 1
        assert page.tags.count("tr") == 1 + len(cascade.then)
        assert page.tags.count("th") == 4
        assert page.tags.count("td") == 4 * len(cascade.then)
    nothing = demo.cascade(image, "od+region_to_category", min_score=1.0)
    assert Words(nothing._repr_html_()).tags.count("tr") == 1
