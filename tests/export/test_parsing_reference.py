"""Prompts, parsing and locations against transformers' own Florence-2 processor."""

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Florence2Processor
from transformers.processing_utils import ProcessorMixin

from florence_onnx.errors import TaskError
from florence_onnx.locating import UNGROUNDED_WORDS
from florence_onnx.locations import to_bins, to_integers, to_pixels
from florence_onnx.parsing import parse_answer
from florence_onnx.prompts import build_prompt
from florence_onnx.tasks import AnswerKind, InputKind, Task

TEXTS = 3000
SIZES = [(640, 480), (1000, 1000), (1300, 876), (144, 1152), (1, 5000), (4032, 3024)]
TASK_OF_KIND = {task.answer_kind: task for task in Task}


@pytest.fixture(scope="module")
def reference() -> Any:
    """The reference's processor around a stand-in for the tokenizer, whose words it never needs."""
    settings: dict[str, dict[str, Any]] = {kind.value: {} for kind in AnswerKind}
    settings["phrase_grounding"]["banned_grounding_tokens"] = sorted(UNGROUNDED_WORDS)
    tokenizer = SimpleNamespace(
        image_token="<image>",  # noqa: S106
        image_token_id=51289,
        bos_token_id=0,
        all_special_tokens=["<s>", "</s>", "<pad>", "<unk>", "<mask>"],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProcessorMixin, "__init__", lambda self, *args, **kwargs: None)
        return Florence2Processor(
            SimpleNamespace(image_seq_length=577), tokenizer, post_processor_config=settings
        )


def test_the_task_table(reference: Any) -> None:
    kinds = {task.value: task.answer_kind.value for task in Task}
    assert kinds == reference.tasks_answer_post_processing_type
    prompts = {task.value: task.prompt for task in Task}
    assert prompts == reference.task_prompts_without_inputs | reference.task_prompts_with_input
    alone = {task.value for task in Task if task.input_kind is InputKind.NONE}
    assert alone == set(reference.task_prompts_without_inputs)


@pytest.mark.parametrize("task", Task)
def test_prompts(reference: Any, task: Task) -> None:
    if task.input_kind is InputKind.NONE:
        assert [build_prompt(task)] == reference._construct_prompts(task.value)
        with pytest.raises(ValueError, match="only content"):
            reference._construct_prompts(f"{task.value} more")
        with pytest.raises(TaskError):
            build_prompt(f"{task.value} more")
        return
    region = "<loc_52><loc_332><loc_932><loc_774>"
    words = [f" {region}\n"]
    if task.input_kind is InputKind.TEXT:
        words += ["a green car", " {input} 50% {0}", "猫 \t"]
    name = task.input_kind.value
    for text in words:
        given: dict[str, Any] = {name: text}
        assert [build_prompt(task, **given)] == reference._construct_prompts(task.value + text)


@pytest.mark.parametrize("prompt", ["<DocVQA>What is the date?", "Describe the defect", "<VQA>"])
def test_prompts_of_fine_tunes(reference: Any, prompt: str) -> None:
    assert [build_prompt(prompt)] == reference._construct_prompts(prompt)


def test_integers_for_every_bin(reference: Any) -> None:
    bins = list(range(1001))
    points = torch.tensor(bins).repeat_interleave(2).reshape(-1, 2)
    flat = points.flatten().tolist()
    truncated_below = 0
    for width in (*range(1, 300), *range(300, 5000, 37), 2304, 4608):
        size = (width, 2 * width + 1)
        expected = reference.post_processor.dequantize(points, size).flatten().tolist()
        pixels = to_pixels(flat, size)
        assert to_integers(pixels, size) == expected
        truncated_below += sum(
            int(ours) != theirs for ours, theirs in zip(pixels, expected, strict=True)
        )
    assert truncated_below > 0, "no size in this list shows the float32 rounding"


def test_quantised_pixels(reference: Any) -> None:
    rng = random.Random(1)
    for _ in range(300):
        size = rng.randint(1, 5000), rng.randint(1, 5000)
        points = [
            rng.choice([rng.uniform(-9, side + 9), float(rng.randint(0, side))])
            for side in size * 8
        ]
        grid = torch.tensor(points, dtype=torch.float64).reshape(-1, 2)
        expected = reference.post_processor.quantize(grid, size).flatten().tolist()
        assert list(to_bins(points, size)) == expected


SPACES = ["", " ", "\n", "\t", "\r\n", "\u2003", "\x1f"]
FRAGMENTS = ["<", ">", "<<", "</", "<loc_", "<loc_>", "loc_3>", "<loc_12", "<loc_-1>", "<LOC_5>"]
NUMBERS = ["<loc_1000>", "<loc_007>", "<loc_\u0663>", "<loc_\u00b2>"]
TAGS = ["<od>", "</od>", "<box>", "<ground>", "<obj>", "<image>", "<and>", "<unk>"]
SPECIALS = ["<s>", "</s>", "<pad>", "<<s>s>", "</<pad>s>", "<po<s>ly>", "<se</s>p>"]
DEBRIS = [*SPACES, *FRAGMENTS, *NUMBERS, *TAGS, *SPECIALS]


def random_text(rng: random.Random) -> str:
    """Text that looks like the model's, more or less broken."""
    sane = rng.random() < 0.4

    def locations() -> str:
        usual = rng.choice([4, 8, 12, 16, 6])
        count = usual if sane or rng.random() < 0.6 else rng.randint(0, 20)
        return "".join(f"<loc_{rng.randint(0, 999)}>" for _ in range(count))

    def words() -> str:
        known = ["car", "a red car", "café", "猫", "x>y", " door handle ", "R$ 5,00", "É"]
        return rng.choice([*known, rng.choice(sorted(UNGROUNDED_WORDS))])

    def debris() -> str:
        return rng.choice(DEBRIS)

    def outlines() -> str:
        parts = [locations() for _ in range(rng.randint(1, 3))]
        text = rng.choice(["<sep>", "<sep><sep>" if not sane else "<sep>"]).join(parts)
        if rng.random() < 0.6:
            text = f"<poly>{text}</poly>"
        return text

    def tag() -> str:
        return rng.choice(["<sep>", "<poly>", "</poly>", "<sep>" * 4])

    makers = [words, locations, outlines] if sane else [words, locations, outlines, tag, debris]
    text = "".join(rng.choice(makers)() for _ in range(rng.randint(0, 12)))
    return f"</s><s>{text}</s><pad>" if rng.random() < 0.5 else text


def test_parsing_of_random_texts(reference: Any) -> None:
    rng = random.Random(20240615)
    filled: Counter[AnswerKind] = Counter()
    for _ in range(TEXTS):
        text = random_text(rng)
        size = rng.choice(SIZES)
        for kind, task in TASK_OF_KIND.items():
            expected = reference.post_process_generation(
                text=text, task=task.value, image_size=size
            )
            if kind is AnswerKind.TEXT:
                # The reference leaves padding in text answers, where it can only be in the way.
                expected = {task.value: expected[task.value].replace("<pad>", "").strip()}
            ours = parse_answer(text, task, size).to_dict(integers=True)
            assert ours == expected, (text, task)
            answer = expected[task.value]
            filled[kind] += any(answer.values() if isinstance(answer, dict) else answer)
    # An answer without content would agree however it was read.
    assert all(filled[kind] > TEXTS // 4 for kind in AnswerKind), filled


def test_unknown_tasks_answer_with_text(reference: Any) -> None:
    prompt = "<DocVQA>What is the date?"
    for text in ("</s><s> 12 May </s>", "12<loc_5>", ""):
        expected = reference.post_process_generation(text=text, task=prompt, image_size=(2, 2))
        assert parse_answer(text, prompt, (2, 2)).to_dict() == expected
