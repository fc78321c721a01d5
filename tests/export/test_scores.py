"""The log-probabilities of tokens are those of transformers' ``compute_transition_scores``."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch

from florence_onnx.generation.search import Hypothesis, search
from tests.helpers.exports import SEED, SQUARE, Exported
from tests.helpers.onnx_runner import OnnxRunner
from tests.helpers.parity import Case, cases, transition_scores, with_settings
from tests.helpers.random_models import SMALL
from tests.helpers.torch_steps import TorchSteps

TOLERANCE = 1e-4
"""Both sides add up the same float32 numbers in another order; measured differences are 1e-5."""


@torch.no_grad()
def over_torch(case: Case) -> list[list[Hypothesis]]:
    steps = TorchSteps(case.model(), case.inputs())
    return search(steps, len(case.prompt_lengths), case.policy(), case.encoder_ids())


def compared(
    chosen: Iterable[Case], run: Callable[[Case], list[list[Hypothesis]]]
) -> tuple[int, int]:
    """How many tokens were compared, and how many sequences were not, as their tokens differ.

    That the sequences are the same is what test_decoding_reference.py shows.
    """
    tokens = differ = 0
    for case in chosen:
        pairs = zip(run(case), transition_scores(case), strict=True)
        for one, (ids, gains) in [pair for both in pairs for pair in zip(*both, strict=True)]:
            if one.token_ids != ids:
                differ += 1
                continue
            assert one.log_probs == pytest.approx(gains, abs=TOLERANCE)
            chosen_gains = [gain for gain in one.log_probs if gain is not None]
            if one.score > -1e9:
                length = len(ids) - 1
                total = sum(chosen_gains) / length ** case.options["length_penalty"]
                assert one.score == pytest.approx(total, rel=1e-4, abs=1e-4)
            tokens += len(chosen_gains)
    return tokens, differ


def test_log_probabilities_are_the_transition_scores() -> None:
    tokens, differ = compared(cases(200, seed=21, longest=24), over_torch)
    assert tokens > 2500
    assert differ <= 6


def test_settings_that_change_scores_are_part_of_them() -> None:
    tokens, differ = compared(with_settings(cases(30, seed=22, longest=24), seed=22), over_torch)
    assert tokens > 400
    assert differ <= 3


def test_log_probabilities_through_exported_graphs(
    native: Exported, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("scores")
    (folder / f"{SQUARE.name}-{SEED}").symlink_to(native.folder)
    chosen = [
        dataclasses.replace(case, geometry=SQUARE, model_seed=SEED)
        for case in cases(300, seed=23, longest=40)
        if case.geometry is SMALL[0] and case.model_seed == 0
    ]
    tokens, differ = compared(chosen[:20], OnnxRunner(folder).search)
    assert tokens > 400
    assert differ <= 1


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_ban_makes_no_token_likelier(beams: int, size: int) -> None:
    """The log-probability is the model's own, over the whole vocabulary."""
    options: dict[str, Any] = {"num_beams": beams, "no_repeat_ngram_size": size}
    case = next(iter(cases(1, seed=24, longest=30))).with_options(
        **options, num_return_sequences=1, forced_bos_token_id=None, max_new_tokens=12
    )
    for (found,), inputs in zip(over_torch(case), range(len(case.prompt_lengths)), strict=True):
        given = {name: value[inputs : inputs + 1] for name, value in case.inputs().items()}
        with torch.no_grad():
            logits = case.model()(**given, decoder_input_ids=torch.tensor([found.token_ids])).logits
        log_probs = torch.log_softmax(logits[0], dim=-1)
        for place, gain in enumerate(found.log_probs[1:]):
            if gain is not None:
                token = found.token_ids[place + 1]
                assert gain == pytest.approx(float(log_probs[place, token]), abs=TOLERANCE)
