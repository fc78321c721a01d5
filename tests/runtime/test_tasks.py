import copy
import pickle

import numpy as np
import pytest

from florence_onnx.errors import ImageError, RegionError, TaskError
from florence_onnx.prompts import build_prompt
from florence_onnx.tasks import AnswerKind, InputKind, Task, resolve_task

REGION = "<loc_52><loc_332><loc_932><loc_774>"
TAKING = {kind: [task for task in Task if task.input_kind is kind] for kind in InputKind}


def test_the_table_is_consistent() -> None:
    assert {kind: len(tasks) for kind, tasks in TAKING.items()} == {
        InputKind.NONE: 8,
        InputKind.TEXT: 3,
        InputKind.REGION: 4,
    }
    assert {task.answer_kind for task in Task} == set(AnswerKind)
    for task in Task:
        assert task.value == f"<{task.name}>"
        assert ("{input}" in task.prompt) == (task.input_kind is not InputKind.NONE)


@pytest.mark.parametrize("task", Task)
def test_every_spelling_of_a_name(task: Task) -> None:
    name = task.name
    for spelling in (task, name, name.lower(), f"<{name}>", f"<{name.lower()}>"):
        assert Task.parse(spelling) is task
        assert resolve_task(spelling) is task
    assert str(task) == f"{task}" == task.value
    assert copy.deepcopy(task) is task
    assert pickle.loads(pickle.dumps(task)) is task


@pytest.mark.parametrize(
    "typed",
    [
        *("od ", " od", "od\n", "od\r\n", "\tOD\t", " <OD>", "<od>\n", " Od "),
        *("od\u00a0", "\u3000od", "\ufeffod", "o\u200bd", "od\u200d", "o\u00add", "od\0"),
        *("\uff2f\uff24", "\uff1cOD\uff1e"),
    ],
)
def test_what_nobody_sees_does_not_change_a_name(typed: str) -> None:
    assert Task.parse(typed) is Task.OD
    assert resolve_task(typed) is Task.OD
    assert build_prompt(typed) == Task.OD.prompt


@pytest.mark.parametrize("name", ["odd", "<DocVQA>", "", "od>", None, 3])
def test_parse_lists_the_names(name: object) -> None:
    with pytest.raises(TaskError, match=r"is not a task: .*ocr, ocr_with_region, caption") as error:
        Task.parse(name)  # type: ignore[arg-type]
    assert all(task.name.lower() in str(error.value) for task in Task)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("odd", "od"),
        ("OCRR", "ocr"),
        ("captoin", "caption"),
        ("detaled_caption", "detailed_caption"),
        ("ocr-with-region", "ocr_with_region"),
        ("ocr_region", "ocr_with_region"),
        ("region_to_segment", "region_to_segmentation"),
        ("dense_caption", "dense_region_caption"),
        ("grounding", "caption_to_phrase_grounding"),
        ("object_detection", "open_vocabulary_detection"),
        ("segment", "referring_expression_segmentation"),
        # Blanks, hyphens or nothing between the words.
        ("dense region caption", "dense_region_caption"),
        ("Dense Region Caption", "dense_region_caption"),
        ("dense-region-caption", "dense_region_caption"),
        ("dense\u2013region\u2013caption", "dense_region_caption"),
        ("DenseRegionCaption", "dense_region_caption"),
        ("dense\nregion\ncaption", "dense_region_caption"),
        ("ocr with regions", "ocr_with_region"),
        ("region proposals", "region_proposal"),
        ("region-proposals", "region_proposal"),
        ("open vocab detection", "open_vocabulary_detection"),
        ("phrase grounding", "caption_to_phrase_grounding"),
        ("image caption", "caption"),
        ("image captioning", "caption"),
        ("object detection", "open_vocabulary_detection"),
        # The beginning of a name.
        ("open vocab", "open_vocabulary_detection"),
        ("<REGION_TO_DESC>", "region_to_description"),
        ("more detailed", "more_detailed_caption"),
        # Brackets, quotes and other marks around the name.
        *((mark, "od") for mark in ("<OD", "OD>", "< OD >", "<OD/>", "</OD>", "[OD]", "<O D>")),
        *(
            (mark, "od")
            for mark in ("'od'", '"od"', "`od`", "od:", "od,", "od.", "--od", "task=od")
        ),
        # Tags with an error.
        ("<OCR_WITH_REGIONS>", "ocr_with_region"),
        ("<OCR_WITH_REGIONS", "ocr_with_region"),
        ("<OCR WITH REGION>", "ocr_with_region"),
        ("<CAPTOIN>", "caption"),
        ("<caption-to-phrase-grounding>", "caption_to_phrase_grounding"),
        ("<DENSE_CAPTION>", "dense_region_caption"),
        ("<CAPTION_TO_PHRASE_GROUNDNG>a green car", "caption_to_phrase_grounding"),
        # Letters that look alike: Cyrillic O, Cyrillic o, zero.
        ("\u041eD", "od"),
        ("\u043ed", "od"),
        ("<\u041eD>", "od"),
        ("capti\u043en", "caption"),
        ("0D", "od"),
    ],
)
def test_mistyped_names_are_refused_with_a_suggestion(typed: str, meant: str) -> None:
    with pytest.raises(TaskError, match=f"did you mean '{meant}'"):
        resolve_task(typed)


@pytest.mark.parametrize(
    "prompt",
    [
        "<DocVQA>What is the date?",
        "<VQA>",
        "<ODD>",
        "Describe the defect",
        "What is the region <loc_1><loc_2><loc_3><loc_4>?",
        "detect the objects",
        "Caption.",
        "count",
        "defects",
        "NER",
        "od 1",
        "caption {input}",
        " leading space",
        "<GENERATE_TAGS>",
        "<MIXED_CAPTION>",
        "<MIXED_CAPTION_PLUS>",
        "<DETECTION>",
        "<OCR_JSON>",
        "detect cars",
        "Write a caption for this picture",
        "\u8868\u683c",
    ],
)
def test_prompts_of_fine_tunes_pass_unchanged(prompt: str) -> None:
    assert resolve_task(prompt) == prompt
    assert not isinstance(resolve_task(prompt), Task)
    assert build_prompt(prompt) == prompt
    with pytest.raises(TaskError, match=r"no text: write the whole prompt as prompt= \(--prompt\)"):
        build_prompt(prompt, text="a car")
    with pytest.raises(TaskError, match="takes no region"):
        build_prompt(prompt, region=REGION)


@pytest.mark.parametrize("task", ["", "  ", "\u200b", "\ufeff\n", None, 5, b"<OD>"])
def test_what_is_no_task_at_all(task: object) -> None:
    with pytest.raises(TaskError, match="is not a task"):
        build_prompt(task)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "task",
    [
        *("<OD>car", "find <OD>", "<REGION_TO_OCR>" + REGION),
        *("<od>car", "<Od>\ncar", "\uff1cOD\uff1ecar", "<OD><OD>"),
        *("region_to_ocr " + REGION, "OPEN_VOCABULARY_DETECTION: a car"),
    ],
)
def test_a_known_tag_stands_alone(task: str) -> None:
    with pytest.raises(TaskError, match="must stand alone"):
        resolve_task(task)


@pytest.mark.parametrize("task", TAKING[InputKind.NONE])
def test_tasks_without_input(task: Task) -> None:
    assert build_prompt(task) == task.prompt
    for unwanted in ({"text": "a car"}, {"text": ""}, {"region": (0, 0, 1, 1)}):
        with pytest.raises(TaskError, match=f"'{task}' takes no "):
            build_prompt(task, **unwanted)


@pytest.mark.parametrize(
    ("task", "prompt"),
    [
        ("caption_to_phrase_grounding", "Locate the phrases in the caption: a {red} car"),
        ("referring_expression_segmentation", "Locate a {red} car in the image with mask"),
        ("open_vocabulary_detection", "Locate a {red} car in the image."),
    ],
)
def test_tasks_with_text(task: str, prompt: str) -> None:
    assert build_prompt(task, "  a {red} car\n") == prompt
    for text in (None, "", " \t"):
        with pytest.raises(TaskError, match="needs text="):
            build_prompt(task, text)
    for wrong in (7, ["cat", "dog"], b"cat", np.array(["cat"])):
        with pytest.raises(TaskError, match=f"must be one str, got {type(wrong).__name__} "):
            build_prompt(task, wrong)  # type: ignore[arg-type]
    with pytest.raises(TaskError, match=r"takes no region; it takes text="):
        build_prompt(task, "a car", region=REGION)
    with pytest.raises(TaskError, match="must stand alone"):
        build_prompt(task, "<OD>")


@pytest.mark.parametrize(
    ("task", "prompt"),
    [
        ("region_to_segmentation", f"What is the polygon mask of region {REGION}"),
        ("region_to_category", f"What is the region {REGION}?"),
        ("region_to_description", f"What does the region {REGION} describe?"),
        ("region_to_ocr", f"What text is in the region {REGION}?"),
    ],
)
def test_tasks_with_a_region(task: str, prompt: str) -> None:
    assert build_prompt(task, region=REGION) == prompt
    assert build_prompt(task, region=f" {REGION}\n") == prompt
    box = (33.6, 159.6, 596.8, 371.76)
    assert build_prompt(task, region=box, image_size=(640, 480)) == prompt
    assert build_prompt(task, region=np.array(box), image_size=(640, 480)) == prompt
    with pytest.raises(TaskError, match="needs region="):
        build_prompt(task)
    for region in (None, REGION):
        with pytest.raises(TaskError, match="takes no text; it takes region="):
            build_prompt(task, text=REGION, region=region)


def test_the_edges_of_the_picture_belong_to_it() -> None:
    prompt = build_prompt("region_to_category", region=[0, 0, 640, 480], image_size=(640, 480))
    assert prompt == "What is the region <loc_0><loc_0><loc_999><loc_999>?"


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        ((-1, 0, 5, 5), "outside the picture of 100x50 pixels"),
        ((0, -0.5, 5, 5), "outside"),
        ((0, 0, 100.5, 5), "outside"),
        ((0, 0, 5, 51), "outside"),
        ((6, 0, 5, 5), "reversed"),
        ((0, 6, 5, 5), "reversed"),
        ((5, 0, 5, 5), "reversed or empty"),
        ((0, 0, float("nan"), 5), "not finite"),
        ((0, 0, float("inf"), 5), "not finite"),
        ((0, 0, 5), "four numbers"),
        ((0, 0, 5, 5, 5), "four numbers"),
        ((), "four numbers"),
        (7, "four numbers"),
        ((0, 0, "x", 5), "four numbers"),
        ((0, 0, None, 5), "four numbers"),
        (((0, 0), (5, 5)), "four numbers"),
        (("0", "0", "5", "5"), "four numbers"),
        ((False, False, True, True), "four numbers"),
        ((0, 0, 10**400, 5), "of type tuple is not a region"),
        (b"0055", "of type bytes is not a region: a region is four numbers"),
        ({0, 1, 5, 6}, "four numbers"),
        ({0: 1, 1: 1, 5: 1, 6: 1}, "four numbers"),
        ({"x1": 0, "y1": 0, "x2": 5, "y2": 5}, "of type dict is not a region"),
        (iter((0, 0, 5, 5)), "four numbers"),
        ("", "four location tokens"),
        ("0,0,5,5", "four location tokens"),
        ("<loc_1><loc_2><loc_3>", "four location tokens"),
        ("<loc_1><loc_2><loc_3><loc_4><loc_5>", "four location tokens"),
        ("<loc_1> <loc_2><loc_3><loc_4>", "four location tokens"),
        ("<loc_1><loc_2><loc_-3><loc_4>", "four location tokens"),
        ("car<loc_1><loc_2><loc_3><loc_4>", "four location tokens"),
        ("<loc_1><loc_2><loc_1000><loc_4>", "beyond <loc_999>"),
        (f"<loc_1><loc_2><loc_{'9' * 9999}><loc_4>", "beyond <loc_999>"),
        ("<loc_5><loc_2><loc_4><loc_4>", "reversed"),
        ("<loc_1><loc_5><loc_4><loc_4>", "reversed"),
    ],
)
def test_bad_regions(region: object, reason: str) -> None:
    with pytest.raises(RegionError, match=reason):
        build_prompt("region_to_ocr", region=region, image_size=(100, 50))  # type: ignore[arg-type]


def test_a_pixel_box_needs_the_size_of_the_picture() -> None:
    with pytest.raises(RegionError, match="image_size"):
        build_prompt("region_to_ocr", region=(0, 0, 1, 1))
    with pytest.raises(ImageError):
        build_prompt("region_to_ocr", region=(0, 0, 1, 1), image_size=(0, 0))
