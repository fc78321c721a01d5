import itertools
import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from florence_onnx.generation.ngrams import repeating_tokens
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.generation.search import search
from tests.helpers.plain_search import lost_by, plain_search

START, EOS = 2, 2
Sequence = tuple[int, ...]
Model = Callable[[int, Sequence], npt.NDArray[np.float64]]
"""(request, sequence so far) -> log-probabilities of the next token [V]."""


def only(model: Model, request: int) -> Model:
    """The same for a batch of nothing but ``request``."""
    return lambda _, ids: model(request, ids)


def policy(**options: Any) -> GenerationPolicy:
    ids: dict[str, Any] = {"decoder_start_token_id": START, "bos_token_id": 0, "eos_token_id": EOS}
    return GenerationPolicy(
        **{"max_new_tokens": 8} | options, **ids, pad_token_id=1, max_positions=64
    )


class ToyScores:
    def __init__(self, log_probs: npt.NDArray[np.float64], asked: list[int]) -> None:
        self._log_probs = log_probs.astype(np.float32)
        self._asked = asked

    def top(self, k: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        self._asked.append(k)
        ids = np.argsort(-self._log_probs, axis=1, kind="stable")[:, :k]
        log_probs = np.take_along_axis(self._log_probs, ids, axis=1)
        log_probs.setflags(write=False)
        ids.setflags(write=False)
        return log_probs, ids

    def logits(self) -> npt.NDArray[np.float32]:
        logits = self._log_probs.copy()
        logits.setflags(write=False)
        return logits


class ToySteps:
    """A decoder whose cache is the sequence itself, gathered by row as a real one is."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._cache: list[tuple[int, Sequence]] = []
        self.requests: list[list[int]] = []
        """Of every call."""
        self.rows: list[list[int]] = []
        self.asked: list[int] = []
        """The k of every call of top."""

    def __call__(
        self, token_ids: npt.NDArray[Any], rows: npt.NDArray[Any], requests: npt.NDArray[Any]
    ) -> ToyScores:
        for array in (token_ids, rows, requests):
            assert array.dtype == np.int64
            assert array.ndim == 1
            assert array.flags.c_contiguous
        assert len(rows) == len(token_ids)
        if not self.requests:
            assert rows.tolist() == requests.tolist()
            self._cache = [(request, ()) for request in requests.tolist()]
        self._cache = [
            (self._cache[row][0], (*self._cache[row][1], token))
            for row, token in zip(rows.tolist(), token_ids.tolist(), strict=True)
        ]
        width = len(rows) // len(requests)
        owners = [request for request, _ in self._cache]
        assert owners == np.repeat(requests, width).tolist()
        self.requests.append(requests.tolist())
        self.rows.append(rows.tolist())
        return ToyScores(np.stack([self._model(*cached) for cached in self._cache]), self.asked)


def random_model(seed: int, vocabulary: int, end: float = 0.0) -> Model:
    """Log-probabilities that depend on the whole sequence; ``end`` is added to the end's logit."""

    def model(request: int, sequence: Sequence) -> npt.NDArray[np.float64]:
        logits = np.random.default_rng((seed, request, *sequence)).normal(0, 2, vocabulary)
        logits[EOS] += end
        return np.asarray(logits - np.log(np.exp(logits).sum()))

    return model


def chain_model(*ends: int) -> Model:
    """Counts 3, 4, 5...; request i prefers to end after ``ends[i]`` tokens."""

    def model(request: int, sequence: Sequence) -> npt.NDArray[np.float64]:
        length = len(sequence)
        logits = -np.abs(np.arange(40.0) - 2 - length)
        logits[EOS] = 5 if length == ends[request] else -50
        return np.asarray(logits - np.log(np.exp(logits).sum()))

    return model


def random_policy(draw: random.Random) -> GenerationPolicy:
    beams = draw.randint(1, 5)
    most = draw.randint(1, 24)
    return policy(
        num_beams=beams,
        num_return_sequences=draw.randint(1, beams),
        early_stopping=draw.choice([True, False, False, "never", "never"]),
        length_penalty=draw.choice([-1.0, -0.3, 0.0, 0.5, 1.0, 2.0]),
        no_repeat_ngram_size=draw.randint(0, 4),
        forced_bos_token_id=draw.choice([0, None]) if most > 2 else None,
        forced_eos_token_id=draw.choice([EOS, None]) if most > 2 else None,
        max_new_tokens=most,
        min_new_tokens=draw.choice([0, draw.randint(0, most)]),
    )


def random_tokens(draw: random.Random, most: int) -> list[int]:
    return draw.sample(range(3, 30), draw.randint(1, most))


SELDOM: dict[str, Callable[[random.Random], Any]] = {
    "repetition_penalty": lambda draw: draw.choice([0.6, 1.2, 2]),
    "encoder_repetition_penalty": lambda draw: draw.choice([0.5, 1.7]),
    "encoder_no_repeat_ngram_size": lambda draw: draw.randint(1, 3),
    "exponential_decay_length_penalty": lambda draw: (draw.randint(0, 6), draw.choice([0.9, 1.3])),
    "bad_words_ids": lambda draw: [random_tokens(draw, 2) for _ in range(25)] + [[EOS]],
    "suppress_tokens": lambda draw: random_tokens(draw, 12),
    "begin_suppress_tokens": lambda draw: random_tokens(draw, 12),
    "sequence_bias": lambda draw: [
        (random_tokens(draw, 2), draw.uniform(-4, 4)) for _ in range(25)
    ],
    "renormalize_logits": lambda draw: True,
    "eos_token_id": lambda draw: [EOS, *random_tokens(draw, 2)],
    "forced_eos_token_id": lambda draw: [EOS, *random_tokens(draw, 2)],
    "forced_bos_token_id": lambda draw: random_tokens(draw, 3),
}
"""Settings that checkpoints seldom have."""


@pytest.mark.parametrize("seed", range(300))
def test_equals_the_plain_search(seed: int) -> None:
    draw = random.Random(seed)
    chosen = random_policy(draw)
    model = random_model(seed, vocabulary=40, end=draw.choice([0.0, 2.0, 4.0]))
    assert_equals_plain_search(model, chosen, batch=draw.randint(1, 4))


@pytest.mark.parametrize("name", SELDOM)
@pytest.mark.parametrize("seed", range(8))
def test_seldom_settings_equal_the_plain_search(seed: int, name: str) -> None:
    """Each of them together with up to two others."""
    draw = random.Random(f"{seed} {name}")
    chosen = random_policy(draw)
    if chosen.max_new_tokens < 3:
        chosen = chosen.replace(max_new_tokens=draw.randint(3, 24))
    names = {name, *draw.sample(sorted(SELDOM), 2)}
    options = {name: SELDOM[name](draw) for name in sorted(names)}
    if "suppress_tokens" in options:
        options |= {"forced_bos_token_id": None, "forced_eos_token_id": None}
    model = random_model(seed, vocabulary=40, end=draw.choice([0.0, 2.0, 4.0]))
    batch = draw.randint(1, 4)
    read = [draw.choices(range(45), k=draw.randint(0, 60)) for _ in range(batch)]
    # Where a bias or a penalty nearly cancels a log-probability, the roundings of both are left.
    assert_equals_plain_search(model, chosen.replace(**options), batch, read, tolerance=1e-6)


def assert_equals_plain_search(
    model: Model,
    chosen: GenerationPolicy,
    batch: int,
    read: list[list[int]] | None = None,
    tolerance: float | None = None,
) -> None:
    steps = ToySteps(model)
    found = search(steps, batch, chosen, read or ())
    assert len(found) == batch
    for request, hypotheses in enumerate(found):
        expected, plain_steps = plain_search(
            partial(model, request),
            chosen,
            tuple(read[request]) if read else (),
        )
        is_longest = len(plain_steps) == chosen.max_new_tokens
        needed = len(plain_steps) - (is_longest and chosen.forced_eos_token_id is not None)
        assert sum(request in active for active in steps.requests) == needed
        assert [h.token_ids for h in hypotheses] == [ids for ids, _ in expected]
        assert [h.score for h in hypotheses] == pytest.approx(
            [score for _, score in expected], rel=1e-5, abs=tolerance
        )


def test_enough_beams_find_the_best_of_all_sequences() -> None:
    vocabulary, most = 4, 4
    model = random_model(5, vocabulary)
    scored: list[tuple[float, Sequence]] = []
    for length in range(1, most + 1):
        for tokens in itertools.product(range(vocabulary), repeat=length):
            if EOS in tokens[:-1] or (length < most and tokens[-1] != EOS):
                continue
            ids = (START, *tokens)
            score = sum(model(0, ids[:i])[ids[i]] for i in range(1, len(ids)))
            scored.append((score / length**0.7, ids))
    scored.sort(reverse=True)
    chosen = policy(
        num_beams=vocabulary**most,
        num_return_sequences=10,
        early_stopping="never",
        length_penalty=0.7,
        max_new_tokens=most,
    )
    (found,) = search(ToySteps(model), 1, chosen)
    assert [h.token_ids for h in found] == [ids for _, ids in scored[:10]]
    assert [h.score for h in found] == pytest.approx([s for s, _ in scored[:10]], rel=1e-5)


def trap(request: int, sequence: Sequence) -> npt.NDArray[np.float64]:
    """3 is the likelier start, but only 4 leads on to a likely end."""
    probabilities = {
        (START,): {3: 0.55, 4: 0.4},
        (START, 3): {5: 0.26, 6: 0.25, 7: 0.24},
        (START, 4): {EOS: 0.9},
    }.get(sequence, {EOS: 0.9})
    full = np.full(10, (1 - sum(probabilities.values())) / (10 - len(probabilities)))
    for token, probability in probabilities.items():
        full[token] = probability
    return np.log(full)


def test_beams_avoid_the_trap_that_greedy_search_takes() -> None:
    (greedy,) = search(ToySteps(trap), 1, policy(length_penalty=0.0))
    (best,) = search(ToySteps(trap), 1, policy(length_penalty=0.0, num_beams=2))
    assert greedy[0].token_ids == (START, 3, 5, EOS)
    assert greedy[0].score == pytest.approx(math.log(0.55 * 0.26 * 0.9), rel=1e-6)
    assert best[0].token_ids == (START, 4, EOS)
    assert best[0].score == pytest.approx(math.log(0.4 * 0.9), rel=1e-6)


def test_a_request_that_ends_leaves_the_batch() -> None:
    steps = ToySteps(chain_model(5, 2, 4))
    found = search(steps, 3, policy())
    assert [h[0].token_ids for h in found] == [
        (START, 3, 4, 5, 6, EOS),
        (START, 3, EOS),
        (START, 3, 4, 5, EOS),
    ]
    assert steps.requests == [[0, 1, 2], [0, 1, 2], [0, 2], [0, 2], [0]]
    assert steps.rows[1:] == [[0, 1, 2], [0, 2], [0, 1], [0]]


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
def test_a_request_is_answered_as_if_it_were_alone(early_stopping: bool | str) -> None:
    chosen = policy(
        num_beams=3, early_stopping=early_stopping, no_repeat_ngram_size=2, max_new_tokens=20
    )
    model = random_model(3, vocabulary=30, end=2.5)
    found = search(ToySteps(model), 6, chosen)
    assert len({len(hypotheses[0].token_ids) for hypotheses in found}) > 2
    for request, hypotheses in enumerate(found):
        alone = search(ToySteps(only(model, request)), 1, chosen)
        assert alone == [hypotheses]


def test_early_stopping_saves_steps_and_may_cost_score() -> None:
    model = random_model(11, vocabulary=30, end=3.0)
    lengths, scores = [], []
    for early_stopping in (True, False, "never"):
        steps = ToySteps(model)
        chosen = policy(num_beams=4, early_stopping=early_stopping, max_new_tokens=30)
        scores.append(search(steps, 1, chosen)[0][0].score)
        lengths.append(len(steps.requests))
    assert lengths[0] < lengths[1] < lengths[2]
    assert scores[0] < scores[1] <= scores[2]


def test_forced_tokens_need_no_scores_and_the_last_no_step() -> None:
    steps = ToySteps(random_model(0, vocabulary=30, end=-99))
    chosen = policy(num_beams=3, forced_bos_token_id=7, forced_eos_token_id=EOS, max_new_tokens=5)
    (found,) = search(steps, 1, chosen)
    assert found[0].token_ids[:2] == (START, 7)
    assert found[0].token_ids[-1] == EOS
    assert len(found[0].token_ids) == 6
    assert len(steps.requests) == 4
    assert len(steps.asked) == 3


def test_nothing_is_run_for_a_single_forced_token() -> None:
    steps = ToySteps(random_model(0, vocabulary=30))
    chosen = policy(forced_bos_token_id=7, forced_eos_token_id=EOS, max_new_tokens=1)
    assert [h[0].token_ids for h in search(steps, 2, chosen)] == [(START, EOS)] * 2
    assert steps.requests == []


@pytest.mark.parametrize(("forced", "widths"), [(None, [1, 3, 3]), (7, [1, 1, 3])])
def test_one_row_per_request_up_to_the_first_choice(forced: int | None, widths: list[int]) -> None:
    steps = ToySteps(random_model(0, vocabulary=30, end=-99))
    search(steps, 2, policy(num_beams=3, forced_bos_token_id=forced, max_new_tokens=3))
    assert [len(rows) for rows in steps.rows] == [2 * width for width in widths]
    assert steps.rows[widths.index(3)] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({}, [1, 1, 1]),
        ({"num_beams": 3}, [6, 6, 6]),
        ({"min_new_tokens": 2}, [2, 2, 1]),
        # The start token, then one more token each step, may not come again.
        ({"num_beams": 2, "no_repeat_ngram_size": 1}, [5, 6, 7]),
    ],
)
def test_no_more_scores_are_asked_for_than_needed(
    options: dict[str, Any], asked: list[int]
) -> None:
    steps = ToySteps(random_model(0, vocabulary=30, end=-9))
    search(steps, 1, policy(max_new_tokens=3, **options))
    assert steps.asked == asked


def test_min_new_tokens_keeps_a_sequence_from_ending() -> None:
    (found,) = search(ToySteps(chain_model(1)), 1, policy(min_new_tokens=3, max_new_tokens=5))
    assert EOS not in found[0].token_ids[1:4]
    (free,) = search(ToySteps(chain_model(1)), 1, policy(max_new_tokens=5))
    assert free[0].token_ids == (START, EOS)


def test_a_vocabulary_smaller_than_the_candidates() -> None:
    chosen = policy(num_beams=4, no_repeat_ngram_size=1, max_new_tokens=6, num_return_sequences=4)
    (found,) = search(ToySteps(random_model(1, vocabulary=4)), 1, chosen)
    # The start token is the end token and may not come again; three tokens are left.
    assert len(found) == 4
    assert all(h.token_ids == (START,) for h in found if h.score <= -1e9)


def test_a_strong_penalty_of_length_does_not_stop_greedy_search() -> None:
    model = random_model(2, vocabulary=30, end=-99)
    free = search(ToySteps(model), 1, policy(max_new_tokens=50))
    (found,) = search(ToySteps(model), 1, policy(max_new_tokens=50, length_penalty=-8.0))
    assert found[0].token_ids == free[0][0].token_ids
    assert len(found[0].token_ids) == 51


def test_equal_scores_keep_the_order_of_top() -> None:
    uniform = np.full(10, math.log(0.1))
    steps = ToySteps(lambda request, ids: uniform)
    (found,) = search(steps, 1, policy(num_beams=2, max_new_tokens=2, num_return_sequences=2))
    assert [h.token_ids for h in found] == [(START, 0, 0), (START, 0, 1)]


@pytest.mark.parametrize("size", range(1, 6))
def test_repeating_tokens_are_those_of_the_definition(size: int) -> None:
    draw = np.random.default_rng(size)
    seen = 0
    for length in range(1, 30):
        history = draw.integers(0, 2, size=(4, length))
        rows, tokens = repeating_tokens(history, size)
        assert rows.tolist() == sorted(rows.tolist())
        for row, ids in enumerate(history.tolist()):
            grams = [ids[i : i + size] for i in range(length - size + 1)]
            repeated = {token for token in range(2) if ([*ids, token])[-size:] in grams}
            assert set(tokens[rows == row].tolist()) == repeated
            seen += len(repeated)
    assert seen > 20


def test_lost_by_tells_the_gap_that_decided() -> None:
    def log_probs(ids: Sequence) -> npt.NDArray[np.float64]:
        return trap(0, ids)

    chosen = policy(length_penalty=0.0)
    _, steps = plain_search(log_probs, chosen)
    assert lost_by(log_probs, chosen, steps, (START, 4, EOS)) == pytest.approx(math.log(0.55 / 0.4))
    chosen = policy(length_penalty=0.0, num_beams=2, early_stopping="never")
    _, steps = plain_search(log_probs, chosen)
    assert lost_by(log_probs, chosen, steps, (START, 3, 5, EOS)) == pytest.approx(
        math.log(0.4 * 0.9 / (0.55 * 0.26 * 0.9))
    )
    assert lost_by(log_probs, chosen, steps, (START, 3, 7, EOS)) == pytest.approx(
        math.log(0.25 / 0.24)
    )
