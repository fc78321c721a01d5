"""Results as notebooks show them."""

import dataclasses
from html.parser import HTMLParser

import pytest

from florence_onnx import DetectionScores, Token, parse_answer

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
