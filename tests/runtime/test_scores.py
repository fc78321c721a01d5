"""Scores of tokens, detections and answers, and what the limit of the length does."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from florence_onnx import Detection, Florence2, Result, Task, parse_answer
from florence_onnx.generation.search import search
from florence_onnx.tasks import AnswerKind
from florence_onnx.tokenizer import Tokenizer
from tests.runtime.test_search import EOS, START, ToySteps, chain_model, policy, random_model

TINY = Path(__file__).parents[1] / "fixtures" / "tiny"
SIZE = (1000, 1000)
BOX = "<loc_100><loc_200><loc_300><loc_400>"


@pytest.fixture(scope="module")
def scored() -> Callable[..., Result]:
    """Reads a text whose tokens have the log-probabilities -0.01, -0.02, ..."""
    tokenizer = Tokenizer.from_file(TINY / "tokenizer.json")

    def read(text: str, task: Task | str) -> Result:
        ids = [2, *tokenizer.encode(text)]
        known = [None, None, *(-0.01 * place for place in range(1, len(ids) - 1))]
        return parse_answer(
            tokenizer.decode(ids),
            task,
            SIZE,
            token_ids=ids,
            token_spans=tokenizer.spans(ids),
            log_probabilities=known,
            score=-1.0,
        )

    return read


def mean(result: Result, indices: tuple[int, ...]) -> float:
    values = [result.tokens[i].log_probability for i in indices]
    return math.exp(sum(value for value in values if value is not None) / len(values))


PLACES = {
    "od": f"a car{BOX}{BOX}dog{BOX}",
    "dense_region_caption": f"a car on a road{BOX}",
    "caption_to_phrase_grounding": f"a dog{BOX}",
    "open_vocabulary_detection": f"car<poly>{BOX}</poly>",
    "ocr_with_region": f"STOP{BOX}{BOX}",
    "region_proposal": BOX,
    "referring_expression_segmentation": BOX + BOX,
}


@pytest.mark.parametrize(("task", "text"), PLACES.items(), ids=PLACES)
def test_every_detection_has_scores(scored: Callable[..., Result], task: str, text: str) -> None:
    result = scored(text, task)
    assert result.detections
    for found in result.detections:
        assert found.scores is not None
        assert found.scores.location == pytest.approx(mean(result, found.location_tokens))
        assert 0 < found.scores.score < 1
        if found.label:
            assert found.scores.label == pytest.approx(mean(result, found.label_tokens))
            assert found.scores.score == found.scores.label
        else:
            assert found.scores.label is None
            assert found.scores.score == found.scores.location


def test_tokens_spell_the_answer_and_text_has_one_score(scored: Callable[..., Result]) -> None:
    result = scored("a café 猫", "caption")
    assert [token.id for token in result.tokens] == list(result.token_ids)
    assert all(result.generated[slice(*token.span)] == token.text for token in result.tokens)
    known = [t.log_probability for t in result.tokens if t.log_probability is not None]
    assert len(known) == len(result.tokens) - 2
    assert result.confidence == pytest.approx(math.exp(sum(known) / len(known)))


def test_only_text_has_no_scores() -> None:
    result = parse_answer(f"car{BOX}", "od", SIZE)
    assert result.tokens == ()
    assert result.confidence is None
    assert [found.scores for found in result.detections] == [None]


def test_scores_are_part_of_the_record(scored: Callable[..., Result]) -> None:
    result = scored(PLACES["od"], "od")
    record = result.record()
    assert record["confidence"] == result.confidence
    scores = [found.scores for found in result.detections]
    assert [found["scores"] for found in record["detections"]] == [
        {"location": one.location, "label": one.label, "score": one.score} for one in scores if one
    ]


# A model's answers


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("task", [Task.OD, Task.CAPTION])
def test_scores_of_the_demo(beams: int, task: Task) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    model = Florence2.load("demo")
    result = model(picture, task, num_beams=beams, num_return_sequences=beams)
    for one in (result, *result.alternatives):
        known = [t.log_probability for t in one.tokens]
        assert known[:2] == [None, None], "the start token and the forced first token"
        chosen = [value for value in known if value is not None]
        assert one.score == pytest.approx(sum(chosen) / (len(one.tokens) - 1), rel=1e-4)
        assert all(found.scores is not None for found in one.detections)


# The limit of the length


@pytest.mark.parametrize("forced", [EOS, None])
@pytest.mark.parametrize("beams", [1, 3])
def test_what_the_limit_ends_is_truncated(forced: int | None, beams: int) -> None:
    model = random_model(0, vocabulary=30, end=-99)
    chosen = policy(num_beams=beams, max_new_tokens=5, forced_eos_token_id=forced)
    assert search(ToySteps(model), 1, chosen)[0][0].is_truncated


@pytest.mark.parametrize("most", [3, 8])
def test_an_end_that_was_chosen_is_no_truncation(most: int) -> None:
    """Also where it is the last token that the limit allows."""
    (found,) = search(ToySteps(chain_model(3)), 1, policy(max_new_tokens=most))
    assert found[0].token_ids == (START, 3, 4, EOS)
    assert not found[0].is_truncated


INCOMPLETE: list[tuple[str, str, list[str]]] = [
    ("od", f"car{BOX}dog<loc_1><loc_2><loc_3>", ["car"]),
    ("od", f"car{BOX}<loc_1><loc_2>", ["car"]),
    ("od", f"car{BOX}dog", ["car"]),
    ("dense_region_caption", f"a car{BOX}a dog<loc_1>", ["a car"]),
    ("caption_to_phrase_grounding", f"a car{BOX}a dog<loc_1><loc_2>", ["a car"]),
    ("open_vocabulary_detection", f"car{BOX}car<loc_1><loc_2><loc_3>", ["car"]),
    ("region_proposal", f"{BOX}<loc_1><loc_2><loc_3>", [""]),
    ("ocr_with_region", f"STOP{BOX}{BOX}GO{BOX}<loc_1>", ["STOP"]),
]


@pytest.mark.parametrize(("task", "text", "labels"), INCOMPLETE)
def test_an_incomplete_group_at_the_end_is_left_out(
    task: str, text: str, labels: list[str]
) -> None:
    result = parse_answer(text, task, SIZE, truncated=True)
    assert result.truncated
    assert result.record()["truncated"]
    assert [found.label for found in result.detections] == labels


@pytest.mark.parametrize(
    "task", [task for task in Task if task.answer_kind is AnswerKind.POLYGONS], ids=str
)
def test_an_outline_keeps_its_whole_points_at_the_end(task: Task) -> None:
    (found,) = parse_answer(f"{BOX}{BOX}<loc_1>", task, SIZE).detections
    assert found.polygons is not None
    assert [len(outline) for outline in found.polygons] == [8]


# Reversed boxes

BOXES = [task for task in Task if task.answer_kind in (AnswerKind.BOXES, AnswerKind.GROUNDING)]


@pytest.mark.parametrize("task", [*BOXES, Task.REGION_PROPOSAL, Task.OPEN_VOCABULARY_DETECTION])
@pytest.mark.parametrize("bins", [(3, 2, 1, 4), (1, 4, 3, 2), (3, 4, 1, 2)])
def test_a_reversed_box_is_put_right_and_flagged(task: Task, bins: tuple[int, ...]) -> None:
    text = "car" + "".join(f"<loc_{100 * number}>" for number in bins)
    result = parse_answer(text, task, SIZE)
    (found,) = result.detections
    assert found.box == (100.5, 200.5, 300.5, 400.5)
    given = tuple(100 * number + 0.5 for number in bins)
    assert found.reversed_box == given
    (answer,) = result.to_dict().values()
    assert answer["bboxes"] == [list(given)], "as the reference has it"
    (record,) = result.record()["detections"]
    assert record["reversed"] is True
    assert record["box"] == list(found.box)


@pytest.mark.parametrize("task", PLACES)
def test_other_places_are_not_flagged(task: str) -> None:
    def flags(found: Detection) -> tuple[Any, ...]:
        return found.reversed_box, found._record().get("reversed")

    result = parse_answer(PLACES[task], task, SIZE)
    assert {flags(found) for found in result.detections} == {(None, None)}
