"""What Florence-2 wrote in public and what was published as the answer to it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from florence_onnx.errors import FlorenceError
from florence_onnx.locating import (
    UNGROUNDED_WORDS,
    labelled_polygons,
    polygons,
)
from florence_onnx.locations import to_bins, to_integers, to_pixels
from florence_onnx.parsing import parse_answer
from florence_onnx.prompts import build_prompt
from florence_onnx.tasks import InputKind, Task, resolve_task

# Published entries that do not hold, and why. (OCR labels are compared without special tokens.)
PUBLISHED_EXCEPTIONS = {
    "zf-02": "Microsoft's processor keeps the space that the caption ends with, transformers' and "
    "ours remove it",
}
FLOAT32_STEP = 2.0**-23


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def split_prompt(prompt: str) -> tuple[str, str | None]:
    """A tag with its text, as the reference takes them in one string."""
    found = re.fullmatch(r"(<[A-Z_]+>)(.*)", prompt, re.DOTALL)
    return (found[1], found[2] or None) if found else (prompt, None)


def build(task: str, given: str | None) -> str:
    """The prompt of a task and its text or region."""
    asked = resolve_task(task)
    takes_region = isinstance(asked, Task) and asked.input_kind is InputKind.REGION
    return build_prompt(task, region=given) if takes_region else build_prompt(task, given)


def without_special_tokens(task: str, answer: Any) -> Any:
    if task != "<OCR_WITH_REGION>":
        return answer
    labels = [re.sub("</?s>|<pad>", "", label) for label in answer["labels"]]
    return answer | {"labels": labels}


def agrees(ours: Any, published: Any) -> bool:
    """Equal in everything but the rounding of published float32 numbers."""
    if isinstance(published, dict):
        return list(ours) == list(published) and all(
            agrees(ours[key], published[key]) for key in published
        )
    if isinstance(published, list):
        return len(ours) == len(published) and all(map(agrees, ours, published))
    if isinstance(published, float):
        # (bin + 0.5), its product and the size per bin are each rounded once: three half steps.
        return abs(ours - published) <= 1.5 * FLOAT32_STEP * abs(published)
    return bool(ours == published)


def holds_integers(answer: Any) -> bool:
    if isinstance(answer, dict):
        return all(map(holds_integers, answer.values()))
    if isinstance(answer, list):
        return all(map(holds_integers, answer))
    return not isinstance(answer, float)


def test_published_answers(shared: Path) -> None:
    entries = load(shared / "published_outputs.json")["entries"]
    differing = {}
    for entry in entries:
        task, published = entry["task"], entry["parsed"]
        assert entry["image"]["size_wh"], entry["id"]
        result = parse_answer(entry["raw_text"], task, tuple(entry["image"]["size_wh"]))
        ours = result.to_dict(integers=holds_integers(published))
        expected = {task: without_special_tokens(task, published[task])}
        if not agrees(ours, expected):
            differing[entry["id"]] = (ours, expected)
    assert differing.keys() == PUBLISHED_EXCEPTIONS.keys(), differing
    ours, expected = differing["zf-02"]
    assert ours == {task: answer.strip() for task, answer in expected.items()}
    assert len(entries) == 31


def test_published_prompts(shared: Path) -> None:
    tokenizer = Tokenizer.from_file(str(shared / "tokenizer" / "onnx-community" / "tokenizer.json"))
    expanded = 0
    for entry in load(shared / "published_outputs.json")["entries"]:
        given = entry["text_input"]
        takes_input = Task.parse(entry["task"]).input_kind is not InputKind.NONE
        # Parser-only vectors were published without the input of their task.
        prompt = build(entry["task"], given) if given or not takes_input else None
        if "expanded_prompt" in entry:
            assert prompt == entry["expanded_prompt"], entry["id"]
            assert prompt is not None
            assert len(tokenizer.encode(prompt).ids) == entry["prompt_token_count"], entry["id"]
            expanded += 1
    assert expanded > 0


def test_prompts_become_the_expected_ids(shared: Path) -> None:
    tokenizer = Tokenizer.from_file(str(shared / "tokenizer" / "onnx-community" / "tokenizer.json"))
    known = load(shared / "tokenizer" / "prompt_ids.json")["ids"]
    inputs: dict[InputKind, list[str | None]] = {
        InputKind.NONE: [None],
        InputKind.TEXT: ["A green car parked in front of a yellow building."],
        InputKind.REGION: [
            "<loc_702><loc_575><loc_866><loc_772>",
            "<loc_52><loc_332><loc_932><loc_774>",
        ],
    }
    built = {build(task, text) for task in Task for text in inputs[task.input_kind]}
    assert known.keys() <= built
    for prompt, ids in known.items():
        assert tokenizer.encode(prompt).ids == ids


def test_prompts_and_answers_of_the_reference_model_tests(shared: Path) -> None:
    tokenizer = Tokenizer.from_file(str(shared / "tokenizer" / "onnx-community" / "tokenizer.json"))
    padding = tokenizer.token_to_id("<pad>")
    entries = load(shared / "expected_by_transformers.json")["generation"]
    parsed = 0
    for entry in entries:
        task, text = split_prompt(entry["prompt"])
        ids = [token for token in entry["expected_text_input_ids"] if token != padding]
        assert tokenizer.encode(build(task, text)).ids == ids
        if entry["expected_parsed_answer"] is not None:
            result = parse_answer(
                entry["expected_generated_text"], entry["task"], tuple(entry["image_size_wh"])
            )
            assert result.to_dict(integers=True) == entry["expected_parsed_answer"]
            parsed += 1
    assert (len(entries), parsed) == (12, 8)


def run_processing_entry(name: str, args: dict[str, Any]) -> Any:
    """What our functions give for a call of transformers' processor tests."""
    if name == "processor._construct_prompts":
        texts = [args["text"]] if isinstance(args["text"], str) else args["text"]
        return [build(*split_prompt(text)) for text in texts]
    if name.startswith("post_processor.dequantize"):
        size = tuple(args["size"])
        return [
            to_integers(to_pixels(to_bins(points, size), size), size)
            for points in args.get("boxes") or args["points"]
        ]
    if name == "post_processor.quantize":
        return build_prompt("region_to_ocr", region=args["locations"][0], image_size=args["size"])
    if name == "processor.post_process_generation":
        size = args["image_size"] or (1, 1)
        return parse_answer(args["text"], args["task"], size).to_dict(integers=True)
    size = tuple(args["image_size"])
    if name.endswith("parse_description_with_polygons_from_text_and_spans"):
        find = polygons if args["allow_empty_phrase"] else labelled_polygons
        return [
            {
                "cat_name": found.label,
                "polygons": [to_integers(to_pixels(bins, size), size) for bins in found.bins()],
            }
            for found in find(args["text"])
        ]
    boxes_task = "region_proposal" if args.get("allow_empty_phrase") else "od"
    task, value, label = {
        "ocr": ("ocr_with_region", "quad_box", "text"),
        "phrase_grounding": ("caption_to_phrase_grounding", "bbox", "cat_name"),
        "description_with_bboxes": (boxes_task, "bbox", "cat_name"),
    }[name.removeprefix("post_processor.parse_").removesuffix("_from_text_and_spans")]
    (answer,) = parse_answer(args["text"], task, size).to_dict(integers=True).values()
    values = answer.get("bboxes", answer.get("quad_boxes"))
    return [{value: box, label: words} for box, words in zip(values, answer["labels"], strict=True)]


def ungrouped(found: Any) -> Any:
    """Phrases with one box each: the reference's inner function groups them by phrase."""
    if found and isinstance(found, list) and isinstance(found[0], dict) and "bbox" in found[0]:
        return [
            phrase | {"bbox": box}
            for phrase in found
            for box in (phrase["bbox"] if isinstance(phrase["bbox"][0], list) else [phrase["bbox"]])
        ]
    return found


def test_expectations_of_the_reference_processor_tests(shared: Path) -> None:
    entries = load(shared / "expected_by_transformers.json")["processing"]
    left_out = []
    for entry in entries:
        args, expected = entry["args"], entry["expected"]
        if args.get("area_threshold"):
            # A least area for OCR boxes, which no released checkpoint asks for.
            left_out.append(entry["args"]["text"])
        elif isinstance(expected, dict) and "raises" in expected:
            with pytest.raises(FlorenceError):
                run_processing_entry(entry["function"], args)
        else:
            assert run_processing_entry(entry["function"], args) == ungrouped(expected), entry
    assert left_out == ["Small<loc_1><loc_1><loc_2><loc_2><loc_2><loc_2><loc_1><loc_1>"]
    assert len(entries) == 18


def test_the_tables_of_the_released_processor(shared: Path) -> None:
    table = load(shared / "configs" / "onnx-community-base" / "preprocessor_config.json")
    kinds = {task.value: task.answer_kind.value for task in Task}
    assert kinds == table["tasks_answer_post_processing_type"]
    prompts = {task.value: task.prompt for task in Task}
    assert prompts == table["task_prompts_without_inputs"] | table["task_prompts_with_input"]
    native = load(shared / "configs" / "native" / "processor" / "processor_config.json")
    banned = native["post_processor_config"]["phrase_grounding"]["banned_grounding_tokens"]
    assert set(banned) == UNGROUNDED_WORDS
