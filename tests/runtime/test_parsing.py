"""What the texts mean, case by case; ``tests/export`` compares with the reference at large."""

from typing import Any

import pytest

from florence_onnx.errors import ImageError, TaskError
from florence_onnx.parsing import UNGROUNDED_WORDS, parse_answer
from florence_onnx.results import (
    BoxesOrPolygonsResult,
    BoxesResult,
    PolygonsResult,
    QuadBoxesResult,
    TextResult,
)
from florence_onnx.tasks import AnswerKind, Task

SIZE = (1000, 1000)
FOUR = "<loc_1><loc_2><loc_3><loc_4>"
BOX = (1.5, 2.5, 3.5, 4.5)


def parse(text: str, task: str, size: tuple[int, int] = SIZE) -> Any:
    return parse_answer(text, task, size)


@pytest.mark.parametrize("task", Task)
def test_each_answer_kind_has_its_class(task: Task) -> None:
    classes = {
        AnswerKind.TEXT: TextResult,
        AnswerKind.BOXES: BoxesResult,
        AnswerKind.PROPOSALS: BoxesResult,
        AnswerKind.GROUNDING: BoxesResult,
        AnswerKind.POLYGONS: PolygonsResult,
        AnswerKind.BOXES_OR_POLYGONS: BoxesOrPolygonsResult,
        AnswerKind.QUAD_BOXES: QuadBoxesResult,
    }
    result = parse_answer("</s><s></s>", task, (3, 4), token_ids=[2, 0, 2], score=-0.5)
    assert type(result) is classes[task.answer_kind]
    assert result.task == task.value
    assert result.text == "</s><s></s>"
    assert result.token_ids == (2, 0, 2)
    assert result.score == -0.5
    assert result.image_size == (3, 4)


def test_task_may_be_given_by_name_or_as_a_prompt() -> None:
    assert parse("car" + FOUR, "od").task == "<OD>"
    result = parse("<s>12 May</s>", "<DocVQA>What is the date?")
    assert result.answer == "12 May"
    assert result.to_dict() == {"<DocVQA>What is the date?": "12 May"}
    with pytest.raises(TaskError):
        parse("car", "odd")
    with pytest.raises(ImageError):
        parse("car", "od", (0, 5))


def test_text_loses_special_tokens_and_outer_space_only() -> None:
    text = "</s><s><s> two  words\n<loc_5> </s><pad><pad>"
    assert parse(text, "caption").answer == "two  words\n<loc_5>"


def test_boxes_repeat_the_label_and_drop_leftover_locations() -> None:
    result = parse(f"</s><s>car{FOUR} wheel {FOUR}{FOUR}<loc_5></s>", "od")
    assert result.labels == ("car", "wheel", "wheel")
    assert result.boxes == (BOX, BOX, BOX)


def test_boxes_scale_with_the_picture() -> None:
    assert parse("car" + FOUR, "od", (2000, 100)).boxes == ((3.0, 0.25, 7.0, 0.45),)


def test_box_labels_keep_all_letters() -> None:
    result = parse(f"café{FOUR}猫{FOUR}", "dense_region_caption")
    assert result.labels == ("café", "猫")
    assert result.to_dict()["<DENSE_REGION_CAPTION>"]["labels"] == ["caf", ""]


def test_short_runs_and_labels_over_a_line_give_no_box() -> None:
    assert parse("car<loc_1><loc_2><loc_3>", "od").boxes == ()
    assert parse(f"a\nb{FOUR}", "od").boxes == ()
    assert parse(f"a\n{FOUR}", "od").boxes == ()
    assert parse(f"\n a{FOUR}", "od").labels == ("a",)


def test_boxes_without_words_as_the_reference_misreads_them() -> None:
    assert parse(FOUR, "od").boxes == ()
    result = parse(f"<loc_9>{FOUR}", "od")
    assert (result.labels, result.boxes) == (("loc_9>",), (BOX,))


def test_proposals_ignore_words() -> None:
    result = parse(f"<s>{FOUR}<loc_9>car{FOUR}{FOUR}<loc_1></s>", "region_proposal")
    assert result.labels == ("", "", "")
    assert result.boxes == (BOX, BOX, BOX)


def test_grounding_ignores_words_that_name_nothing() -> None:
    result = parse(f"the image{FOUR}it{FOUR} a truck{FOUR}It{FOUR}", "caption_to_phrase_grounding")
    assert result.labels == ("a truck", "It")
    assert {"each other", "the image", "a set", "it", "theirs", "which"} <= UNGROUNDED_WORDS


def test_separators_split_outlines_and_odd_coordinates_drop() -> None:
    result = parse(f"<s>{FOUR}<sep><loc_5><loc_6><loc_7></s>", "region_to_segmentation")
    assert result.polygons == ((BOX, (5.5, 6.5)),)
    assert result.labels == ("",)


def test_poly_tags_make_instances() -> None:
    text = f"<poly>{FOUR}<sep><loc_5><loc_6></poly><poly>{FOUR}</poly><poly><loc_7>"
    result = parse(text, "referring_expression_segmentation")
    assert result.polygons == ((BOX, (5.5, 6.5)), (BOX,))
    assert result.labels == ("", "")


def test_words_between_outlines_make_instances_too() -> None:
    result = parse(f"{FOUR}and{FOUR}<loc_9>", "referring_expression_segmentation")
    assert result.polygons == ((BOX,), (BOX,))


def test_open_vocabulary_answers_with_polygons_where_they_are_tagged() -> None:
    text = f"</s><s>a café<poly>{FOUR}</poly><poly>{FOUR}</poly>dog{FOUR}</s>"
    result = parse(text, "open_vocabulary_detection")
    assert result.polygon_labels == ("a café", "a café", "dog")
    assert result.polygons == ((BOX,), (BOX,), (BOX,))
    assert result.boxes == result.box_labels == ()


def test_open_vocabulary_answers_with_boxes_otherwise() -> None:
    result = parse(f"car{FOUR}", "open_vocabulary_detection")
    assert (result.boxes, result.box_labels) == ((BOX,), ("car",))
    assert result.polygons == result.polygon_labels == ()


def test_ocr_reads_eight_locations_a_label() -> None:
    quad = FOUR + FOUR
    result = parse(f"</s><s>STOP{quad} 中文 {quad}x<loc_1>y{quad}", "ocr_with_region")
    assert result.labels == ("STOP", "中文", "x<loc_1>y")
    assert result.quad_boxes == (BOX + BOX,) * 3


def test_ocr_reads_line_by_line_and_needs_a_label() -> None:
    quad = FOUR + FOUR
    assert parse(quad, "ocr_with_region").quad_boxes == ()
    assert parse(f"lost\nkept{quad}", "ocr_with_region").labels == ("kept",)
    assert parse(f"\n{quad}", "ocr_with_region").labels == ()
    assert parse(f"<loc_9>{quad}", "ocr_with_region").labels == ("<loc_9>",)
    assert parse("A" + quad[:-7], "ocr_with_region").labels == ()


def test_locations_beyond_the_vocabulary() -> None:
    assert parse("car<loc_1><loc_2><loc_3><loc_1000>", "od").boxes[0][3] == 1000.5
    endless = f"car<loc_1><loc_2><loc_3><loc_{'9' * 5000}>"
    assert parse(endless, "od").boxes == ()


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
    assert parse(("car" + FOUR) * count, "od").boxes == (BOX,) * count
    count = MEGABYTE // len("a" + FOUR + FOUR)
    assert parse(("a" + FOUR + FOUR) * count, "ocr_with_region").labels == ("a",) * count
    count = MEGABYTE // len(FOUR + "<sep>")
    polygons = parse((FOUR + "<sep>") * count, "region_to_segmentation").polygons
    assert polygons == ((BOX,) * count,)
