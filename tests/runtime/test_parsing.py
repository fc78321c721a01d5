"""What the texts mean, case by case; ``tests/export`` compares with the reference at large."""

from collections.abc import Callable
from typing import Any

import pytest

from florence_onnx.errors import ImageError, InputError, TaskError
from florence_onnx.locating import UNGROUNDED_WORDS
from florence_onnx.parsing import parse_answer
from florence_onnx.results import Result
from florence_onnx.tasks import AnswerKind, Task
from florence_onnx.tokenizer import Tokenizer
from tests.helpers.tiny import TINY

SIZE = (1000, 1000)
FOUR = "<loc_1><loc_2><loc_3><loc_4>"
BOX = (1.5, 2.5, 3.5, 4.5)


def parse(text: str, task: str, size: tuple[int, int] = SIZE) -> Result:
    return parse_answer(text, task, size)


def labels(result: Result) -> list[str]:
    return [found.label for found in result.detections]


def boxes(result: Result) -> list[tuple[float, ...]]:
    return [found.box for found in result.detections]


def outlines(result: Result) -> list[Any]:
    return [found.polygons for found in result.detections]


@pytest.mark.parametrize("task", Task)
def test_what_every_result_carries(task: Task) -> None:
    result = parse_answer("</s><s></s>", task, (3, 4), token_ids=[2, 0, 2], score=-0.5)
    assert result.task == task.value
    assert result.answer_kind is task.answer_kind
    assert (result.generated, result.text, result.detections) == ("</s><s></s>", "", ())
    assert result.token_ids == (2, 0, 2)
    assert result.score == -0.5
    assert result.image_size == (3, 4)


def test_task_may_be_given_by_name_or_as_a_prompt() -> None:
    assert parse("car" + FOUR, "od").task == "<OD>"
    result = parse("<s>12 May</s>", "<DocVQA>What is the date?")
    assert result.text == "12 May"
    assert result.to_dict() == {"<DocVQA>What is the date?": "12 May"}
    with pytest.raises(TaskError):
        parse("car", "odd")
    with pytest.raises(ImageError):
        parse("car", "od", (0, 5))


def test_text_loses_special_tokens_and_outer_space_only() -> None:
    text = "</s><s><s> two  words\n<loc_5> </s><pad><pad>"
    assert parse(text, "caption").text == "two  words\n<loc_5>"


def test_boxes_repeat_the_label_and_drop_leftover_locations() -> None:
    result = parse(f"</s><s>car{FOUR} wheel {FOUR}{FOUR}<loc_5></s>", "od")
    assert labels(result) == ["car", "wheel", "wheel"]
    assert boxes(result) == [BOX, BOX, BOX]


def test_boxes_scale_with_the_picture() -> None:
    assert boxes(parse("car" + FOUR, "od", (2000, 100))) == [(3.0, 0.25, 7.0, 0.45)]


def test_box_labels_keep_all_letters() -> None:
    result = parse(f"café{FOUR}猫{FOUR}", "dense_region_caption")
    assert labels(result) == ["café", "猫"]
    assert result.to_dict()["<DENSE_REGION_CAPTION>"]["labels"] == ["caf", ""]


def test_short_runs_and_labels_over_a_line_give_no_box() -> None:
    assert parse("car<loc_1><loc_2><loc_3>", "od").detections == ()
    assert parse(f"a\nb{FOUR}", "od").detections == ()
    assert parse(f"a\n{FOUR}", "od").detections == ()
    assert labels(parse(f"\n a{FOUR}", "od")) == ["a"]


def test_boxes_without_words_as_the_reference_misreads_them() -> None:
    assert parse(FOUR, "od").detections == ()
    result = parse(f"<loc_9>{FOUR}", "od")
    assert (labels(result), boxes(result)) == (["loc_9>"], [BOX])


def test_proposals_ignore_words() -> None:
    result = parse(f"<s>{FOUR}<loc_9>car{FOUR}{FOUR}<loc_1></s>", "region_proposal")
    assert labels(result) == ["", "", ""]
    assert boxes(result) == [BOX, BOX, BOX]


def test_grounding_ignores_words_that_name_nothing() -> None:
    result = parse(f"the image{FOUR}it{FOUR} a truck{FOUR}It{FOUR}", "caption_to_phrase_grounding")
    assert labels(result) == ["a truck", "It"]
    assert {"each other", "the image", "a set", "it", "theirs", "which"} <= UNGROUNDED_WORDS


def test_separators_split_outlines_and_odd_coordinates_drop() -> None:
    result = parse(f"<s>{FOUR}<sep><loc_5><loc_6><loc_7></s>", "region_to_segmentation")
    assert outlines(result) == [(BOX, (5.5, 6.5))]
    assert labels(result) == [""]


def test_poly_tags_make_instances() -> None:
    text = f"<poly>{FOUR}<sep><loc_5><loc_6></poly><poly>{FOUR}</poly><poly><loc_7>"
    result = parse(text, "referring_expression_segmentation")
    assert outlines(result) == [(BOX, (5.5, 6.5)), (BOX,)]
    assert labels(result) == ["", ""]


def test_words_between_outlines_make_instances_too() -> None:
    result = parse(f"{FOUR}and{FOUR}<loc_9>", "referring_expression_segmentation")
    assert outlines(result) == [(BOX,), (BOX,)]


def test_open_vocabulary_answers_with_polygons_where_they_are_tagged() -> None:
    text = f"</s><s>a café<poly>{FOUR}</poly><poly>{FOUR}</poly>dog{FOUR}</s>"
    result = parse(text, "open_vocabulary_detection")
    assert labels(result) == ["a café", "a café", "dog"]
    assert outlines(result) == [(BOX,), (BOX,), (BOX,)]


def test_open_vocabulary_answers_with_boxes_otherwise() -> None:
    result = parse(f"car{FOUR}", "open_vocabulary_detection")
    assert (boxes(result), labels(result)) == ([BOX], ["car"])
    assert outlines(result) == [None]


def test_ocr_reads_eight_locations_a_label() -> None:
    quad = FOUR + FOUR
    result = parse(f"</s><s>STOP{quad} 中文 {quad}x<loc_1>y{quad}", "ocr_with_region")
    assert labels(result) == ["STOP", "中文", "x<loc_1>y"]
    assert [found.quad for found in result.detections] == [BOX + BOX] * 3


def test_ocr_reads_line_by_line_and_needs_a_label() -> None:
    quad = FOUR + FOUR
    assert parse(quad, "ocr_with_region").detections == ()
    assert labels(parse(f"lost\nkept{quad}", "ocr_with_region")) == ["kept"]
    assert parse(f"\n{quad}", "ocr_with_region").detections == ()
    assert labels(parse(f"<loc_9>{quad}", "ocr_with_region")) == ["<loc_9>"]
    assert parse("A" + quad[:-7], "ocr_with_region").detections == ()


def test_locations_beyond_the_vocabulary() -> None:
    assert boxes(parse("car<loc_1><loc_2><loc_3><loc_1000>", "od"))[0][3] == 1000.5
    endless = f"car<loc_1><loc_2><loc_3><loc_{'9' * 5000}>"
    assert parse(endless, "od").detections == ()


# The fine-tune's own prompts


@pytest.mark.parametrize("task", [Task.OD, Task.OCR_WITH_REGION, Task.REGION_TO_SEGMENTATION])
def test_the_answer_to_a_prompt_is_read_as_it_is_told(task: Task) -> None:
    text = f"</s><s>car{FOUR}{FOUR}</s>"
    expected = parse_answer(text, task, SIZE)
    kind = task.answer_kind
    for answer in (kind, kind.name, kind.name.lower(), f" {kind.name.title()}\n"):
        result = parse_answer(text, None, SIZE, prompt="detect", answer=answer)
        assert result.task == "detect"
        assert result.answer_kind is kind
        assert result.detections == expected.detections != ()
        assert result.to_dict() == {"detect": expected.to_dict()[task.value]}
    assert parse_answer(text, "<DocVQA>?", SIZE, answer=kind).detections == expected.detections


@pytest.mark.parametrize("answer", ["ocr", "box", "", 3, ["boxes"], "description_with_bboxes"])
def test_an_answer_kind_that_there_is_not(answer: Any) -> None:
    names = "text, boxes, proposals, grounding, polygons, boxes_or_polygons, quadrilaterals"
    with pytest.raises(TaskError, match=f"it must be one of {names}"):
        parse_answer("car", None, SIZE, prompt="detect", answer=answer)


def test_what_is_no_text() -> None:
    for text in (None, b"car", ["car"], 5):
        with pytest.raises(InputError, match=f"a str, not {type(text).__name__}"):
            parse_answer(text, "od", SIZE)  # type: ignore[arg-type]


def test_parts_of_unlike_length() -> None:
    for given, message in (
        ({"token_ids": [1, 2], "token_spans": [(0, 1)]}, "token_spans has 1 items, token_ids 2"),
        (
            {"token_ids": [1], "token_spans": [(0, 3)], "log_probabilities": [-1.0, -2.0]},
            "log_probabilities has 2 items, token_spans 1",
        ),
    ):
        with pytest.raises(InputError, match=message):
            parse_answer("car", "od", SIZE, **given)  # type: ignore[arg-type]


# Which tokens spell what


def spelled(result: Result, tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """The tokens of every label and of its locations, as text."""

    def text(indices: tuple[int, ...]) -> str:
        return tokenizer.decode([result.token_ids[i] for i in indices])

    return [(text(one.label_tokens), text(one.location_tokens)) for one in result.detections]


@pytest.fixture(scope="module")
def parse_tokens() -> Callable[..., tuple[Result, Tokenizer]]:
    """Reads a text by way of its tokens."""
    tokenizer = Tokenizer.from_file(TINY / "tokenizer.json")

    def parse(text: str, task: str) -> tuple[Result, Tokenizer]:
        ids = [2, *tokenizer.encode(text)]
        generated = tokenizer.decode(ids)
        assert generated == f"</s><s>{text}</s>"
        spans = tokenizer.spans(ids)
        return parse_answer(generated, task, SIZE, token_ids=ids, token_spans=spans), tokenizer

    return parse


EIGHT = FOUR + FOUR


@pytest.mark.parametrize(
    ("task", "text", "expected"),
    [
        ("od", f"a green car{FOUR}{FOUR}x{FOUR}", [("a green car", FOUR)] * 2 + [("x", FOUR)]),
        ("od", f"  car {FOUR}<loc_5>", [("car", FOUR)]),
        ("dense_region_caption", f"café 猫{FOUR}", [("café 猫", FOUR)]),
        ("region_proposal", f"car{FOUR}{FOUR}", [("", FOUR)] * 2),
        ("caption_to_phrase_grounding", f"the image{FOUR}a dog{FOUR}", [("a dog", FOUR)]),
        ("ocr_with_region", f"STOP{EIGHT} sign{EIGHT}", [("STOP", EIGHT), ("sign", EIGHT)]),
        ("ocr_with_region", f"lost\nkept{EIGHT}", [("kept", EIGHT)]),
        ("region_to_segmentation", f"<poly>{FOUR}<sep>{FOUR}<loc_9></poly>", [("", EIGHT)]),
        (
            "open_vocabulary_detection",
            f"car<poly>{FOUR}</poly><poly>{FOUR}</poly>",
            [("car", FOUR)] * 2,
        ),
    ],
)
def test_every_detection_knows_its_tokens(
    parse_tokens: Callable[..., tuple[Result, Tokenizer]],
    task: str,
    text: str,
    expected: list[tuple[str, str]],
) -> None:
    result, tokenizer = parse_tokens(text, task)
    # A token may begin with the space before a label, or hold the one behind it.
    found = [(label.strip(), locations) for label, locations in spelled(result, tokenizer)]
    assert found == expected
    assert [found.label for found in result.detections] == [label for label, _ in expected]


def test_only_text_has_no_tokens() -> None:
    (found,) = parse("car" + FOUR, "od").detections
    assert found.label_tokens == found.location_tokens == ()


MEGABYTE = 2**20
HOSTILE = {
    "letters": "a" * MEGABYTE,
    "letters and an end": "a" * MEGABYTE + FOUR + FOUR,
    "spaces": " " * MEGABYTE,
    "spaces in a label": "a" + " " * MEGABYTE + "b" + FOUR,
    "lines": "\n" * MEGABYTE,
    "opening brackets": "<" * MEGABYTE,
    "half locations": "<loc_" * (MEGABYTE // 5),
    "digits": "<loc_" + "9" * MEGABYTE,
    "locations": "<loc_1>" * (MEGABYTE // 7),
    "short runs": "a<loc_1><loc_2><loc_3>" * (MEGABYTE // 22),
    "odd separators": "<loc_1><sep>" * (MEGABYTE // 12),
    "unclosed polygons": "<poly><loc_1>" * (MEGABYTE // 13),
    "closed polygons": "<poly></poly>" * (MEGABYTE // 13),
    "closing polygons": "</poly><loc_1><loc_2>" * (MEGABYTE // 21),
    "one label": "a" + "<sep>" * (MEGABYTE // 5) + "<poly>",
    "special tokens": "<<s>s>" * (MEGABYTE // 6),
}


@pytest.mark.parametrize("kind", AnswerKind)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_megabyte_of_hostile_text_is_read_in_one_pass(text: str, kind: AnswerKind) -> None:
    """Anything quadratic would take hours here."""
    task = next(task for task in Task if task.answer_kind is kind)
    view = parse_answer(text, task, SIZE).to_dict(integers=True)
    assert list(view) == [task.value]


def test_a_megabyte_of_sound_text_is_read_whole() -> None:
    count = MEGABYTE // len("car" + FOUR)
    assert boxes(parse(("car" + FOUR) * count, "od")) == [BOX] * count
    count = MEGABYTE // len("a" + FOUR + FOUR)
    assert labels(parse(("a" + FOUR + FOUR) * count, "ocr_with_region")) == ["a"] * count
    count = MEGABYTE // len(FOUR + "<sep>")
    result = parse((FOUR + "<sep>") * count, "region_to_segmentation")
    assert outlines(result) == [(BOX,) * count]
