from dataclasses import replace
from typing import Any

import pytest
import torch

from florence_onnx.generation.search import search
from tests.helpers.parity import (
    SETTINGS,
    Case,
    Found,
    cases,
    compare,
    reference,
    with_settings,
)
from tests.helpers.random_models import BOS, EOS, SMALL, Geometry
from tests.helpers.torch_steps import TorchSteps


@torch.no_grad()
def run(case: Case) -> list[Found]:
    steps = TorchSteps(case.model(), case.inputs())
    found = search(steps, len(case.prompt_lengths), case.policy(), case.encoder_ids())
    return [[(h.token_ids, h.score) for h in hypotheses] for hypotheses in found]


def test_equals_generate() -> None:
    """The wide comparison: it also proves that its cases are not dull."""
    report = compare(cases(60, seed=1, longest=60), run)
    print("\n".join(report.lines()))
    assert not report.failures
    assert len(report.excused) <= 2
    assert report.cases == 60
    assert report.beams_differ_from_greedy >= 40
    assert report.end_early >= 20
    assert report.ngram_rule >= 20


def test_seldom_settings_equal_generate() -> None:
    report = compare(with_settings(cases(40, seed=3, longest=40), seed=3), run)
    print("\n".join(report.lines()))
    assert not report.failures
    assert len(report.excused) <= 2
    assert report.settings.keys() == SETTINGS.keys()
    assert sum(report.settings.values()) >= 30
    assert all(report.settings.values())


@pytest.mark.parametrize("beams", [64, 65, 110, 129, 200])
def test_many_beams_equal_generate(beams: int) -> None:
    many = case(num_beams=beams, num_return_sequences=beams, max_new_tokens=9)
    report = compare([many], run)
    assert not report.failures
    assert len(report.excused) <= 1


@pytest.mark.parametrize("beams", [5, 11, 20, 100])
@pytest.mark.parametrize("forced", [BOS, None])
def test_a_vocabulary_smaller_than_the_candidates(beams: int, forced: int | None) -> None:
    few = Geometry("few-tokens", vocab_size=12, image_token_id=11)
    options = {"num_beams": beams, "forced_bos_token_id": forced, "max_new_tokens": 7}
    report = compare([replace(case(**options), geometry=few)], run)
    assert not report.failures
    assert not report.excused


def case(**options: Any) -> Case:
    usual = {
        "num_beams": 3,
        "early_stopping": True,
        "length_penalty": 1.0,
        "no_repeat_ngram_size": 3,
        "forced_bos_token_id": BOS,
        "forced_eos_token_id": EOS,
        "max_new_tokens": 20,
        "min_new_tokens": 0,
        "num_return_sequences": 1,
    }
    return Case(0, SMALL[0], 0, (3, 7), usual | options)


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
def test_past_200_tokens(early_stopping: bool | str) -> None:
    long = case(early_stopping=early_stopping, max_new_tokens=230, min_new_tokens=205)
    report = compare([long], run)
    assert report.past_200_tokens == 1
    assert not report.failures


@pytest.mark.parametrize("most", [1, 2, 3])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("forced", [BOS, EOS, None])
def test_hardly_a_token(most: int, beams: int, forced: int | None) -> None:
    """With nothing but forced tokens there are fewer sequences than beams.

    What fills up is not compared where its score, -1e9, is the same for all.
    """
    short = case(
        num_beams=beams,
        num_return_sequences=beams,
        forced_bos_token_id=forced,
        max_new_tokens=most,
        min_new_tokens=min(most, 2),
    )
    for ours, theirs in zip(run(short), reference(short), strict=True):
        real: list[Any] = [
            (ids, pytest.approx(score, rel=1e-5)) for ids, score in theirs if score > -1e9
        ]
        assert ours[: len(real)] == real
        assert all(score <= -1e9 for _, score in ours[len(real) :])


@pytest.mark.parametrize("penalty", [-4.0, -8.0, 8.0])
@pytest.mark.parametrize("beams", [1, 3])
def test_extreme_length_penalties(penalty: float, beams: int) -> None:
    """Far below 0 the scores of unfinished beams fall below what an empty one has."""
    extreme = case(length_penalty=penalty, num_beams=beams, max_new_tokens=40, min_new_tokens=30)
    assert [one[0][0] for one in run(extreme)] == [one[0][0] for one in reference(extreme)]


def test_a_wrong_answer_is_a_failure_and_not_excused() -> None:
    """Greedy answers instead of the beams': none of them is a matter of rounding."""
    wanted = case(no_repeat_ngram_size=0, max_new_tokens=12)
    report = compare([wanted], lambda one: run(one.with_options(num_beams=1)))
    assert report.failures
    assert not report.excused
