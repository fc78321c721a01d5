"""Generation cases for comparing any implementation of the search with transformers' generate.

A runner is a callable ``run(case)`` that returns, for each request of the case, a list of
``(token_ids, score)``: the ids from the start token to the end, without padding. ``compare`` runs
it beside the reference and counts; ``Report.lines`` is what a script prints.
"""

import functools
import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import Florence2ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from florence_onnx.generation.policy import GenerationPolicy
from tests.helpers.plain_search import lost_by, plain_search
from tests.helpers.random_models import BOS, EOS, PAD, REAL_VOCABULARY, SMALL, Geometry, make_model

Found = list[tuple[tuple[int, ...], float]]
"""The returned sequences of one request with their scores, best first."""

LEAST_MARGIN = 1e-4
"""Below it, rounding may turn one of the reference's decisions."""
SCORE_TOLERANCE = 1e-3
"""Relative to 1 + |score|: sums of up to 300 float32 log-probabilities, each right to about 1e-6
of a logit; measured differences are below 1e-5."""


@dataclass(frozen=True)
class Case:
    """A batch of requests to one model, searched with one policy."""

    number: int
    geometry: Geometry
    model_seed: int
    prompt_lengths: tuple[int, ...]
    """Text tokens of each request."""
    options: dict[str, Any]
    """Under transformers' names; complete but for the token ids that never differ."""

    def policy(self) -> GenerationPolicy:
        return GenerationPolicy(
            decoder_start_token_id=EOS,
            bos_token_id=BOS,
            pad_token_id=PAD,
            max_positions=self.geometry.max_positions,
            **({"eos_token_id": EOS} | self.options),
        )

    def with_options(self, **options: Any) -> "Case":
        return replace(self, options=self.options | options)

    def model(self) -> Florence2ForConditionalGeneration:
        return _model(self.geometry, self.model_seed)

    def pixel_values(self) -> npt.NDArray[np.float32]:
        """A picture per request, float32 [B,3,H,W]."""
        shape = (len(self.prompt_lengths), 3, *self.geometry.image_size)
        return np.random.default_rng(self.number).standard_normal(shape, dtype=np.float32)

    def prompts(self) -> list[list[int]]:
        """Text tokens of each request, without the image tokens."""
        draw = np.random.default_rng(self.number + 1_000_000)
        most = min(self.geometry.vocab_size, self.geometry.image_token_id)
        return [draw.integers(4, most, size=length).tolist() for length in self.prompt_lengths]

    def encoder_ids(self) -> list[list[int]]:
        """What the encoder reads of each request: image tokens, then text tokens."""
        image = [self.geometry.image_token_id] * self.geometry.image_tokens
        return [image + text for text in self.prompts()]

    def inputs(self) -> dict[str, torch.Tensor]:
        """What transformers' forward and generate take, padded on the right."""
        read = self.encoder_ids()
        longest = max(map(len, read))
        ids = [ids + [PAD] * (longest - len(ids)) for ids in read]
        mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in read]
        return {
            "input_ids": torch.tensor(ids),
            "attention_mask": torch.tensor(mask),
            "pixel_values": torch.from_numpy(self.pixel_values()),
        }


@functools.lru_cache(maxsize=32)
def _model(geometry: Geometry, seed: int) -> Florence2ForConditionalGeneration:
    return make_model(geometry, seed)


def cases(count: int, seed: int, longest: int = 260) -> Iterator[Case]:
    """Random cases. A sixth of them runs past 200 tokens where ``longest`` allows it."""
    draw = random.Random(seed)
    for number in range(count):
        geometry = draw.choices([*SMALL, REAL_VOCABULARY], weights=[3, 3, 3, 3, 1])[0]
        beams = draw.choice([1, 2, 3, 3, 3, 4, 5])
        is_long = longest > 200 and draw.random() < 1 / 6
        max_new = draw.randint(205, longest) if is_long else draw.randint(5, min(100, longest))
        min_new = draw.choice([0, 0, 0, draw.randint(1, max_new)])
        options = {
            "num_beams": beams,
            "early_stopping": draw.choice([True, True, False, "never"]),
            "length_penalty": draw.choice([-1.0, 0.0, 0.5, 1.0, 1.0, 2.0]),
            "no_repeat_ngram_size": draw.choice([0, 1, 2, 3, 3, 3, 4]),
            "forced_bos_token_id": draw.choice([BOS, BOS, None]),
            "forced_eos_token_id": draw.choice([EOS, EOS, None]),
            "max_new_tokens": max_new,
            "min_new_tokens": 201 if is_long else min_new,
            "num_return_sequences": draw.choice([1, 1, draw.randint(1, beams)]),
        }
        lengths = tuple(draw.randint(1, 12) for _ in range(draw.randint(1, 4)))
        yield Case(number, geometry, draw.randrange(3), lengths, options)


def with_settings(cases: Iterable[Case], seed: int) -> Iterator[Case]:
    """The cases, each with one to three of the settings that checkpoints seldom have.

    Tokens are banned and favoured that the answers hold without these settings, so that most
    settings have an effect. Where the encoder's tokens matter, all prompts are equally long:
    transformers takes padding for text that was read.
    """
    draw = random.Random(seed)
    for case in cases:
        usual = [token for found in reference(case) for ids, _ in found for token in ids[1:]]
        options: dict[str, Any] = {}
        for name in draw.sample(sorted(SETTINGS), draw.randint(1, 3)):
            options |= {name: SETTINGS[name](draw, usual, case)}
        if options.keys() & {"encoder_no_repeat_ngram_size", "encoder_repetition_penalty"}:
            longest = max(case.prompt_lengths)
            case = replace(case, prompt_lengths=(longest,) * len(case.prompt_lengths))
        yield case.with_options(**options)


def _pieces(draw: random.Random, usual: list[int], count: int) -> list[list[int]]:
    """Runs of one to three tokens of the usual answers."""
    starts = [draw.randrange(len(usual)) for _ in range(count)]
    return [usual[start : start + draw.randint(1, 3)] for start in starts]


def _other_tokens(draw: random.Random, usual: list[int]) -> list[int]:
    """Tokens of the usual answers, none of them an id with a meaning."""
    return sorted({draw.choice(usual) for _ in range(4)} - {BOS, PAD, EOS})


SETTINGS: dict[str, Callable[[random.Random, list[int], Case], Any]] = {
    "repetition_penalty": lambda draw, usual, case: draw.choice([0.7, 1.1, 1.3, 2.0]),
    "encoder_repetition_penalty": lambda draw, usual, case: draw.choice([0.5, 1.2, 3.0]),
    "encoder_no_repeat_ngram_size": lambda draw, usual, case: draw.choice([1, 1, 2]),
    "bad_words_ids": lambda draw, usual, case: [*_pieces(draw, usual, 6), [EOS]],
    "suppress_tokens": lambda draw, usual, case: _other_tokens(draw, usual),
    "begin_suppress_tokens": lambda draw, usual, case: _other_tokens(draw, usual[:2]),
    "sequence_bias": lambda draw, usual, case: [
        [piece, draw.choice([-4.0, -1.5, 2.0, 5.0])] for piece in _pieces(draw, usual, 6)
    ],
    "exponential_decay_length_penalty": lambda draw, usual, case: [
        draw.randint(0, 12),
        draw.choice([0.9, 1.01, 1.2]),
    ],
    "renormalize_logits": lambda draw, usual, case: True,
    "eos_token_id": lambda draw, usual, case: [EOS, *_other_tokens(draw, usual)[:2]],
}
"""A value for each of the seldom settings, from the tokens of the usual answers."""


@torch.no_grad()
def _generated(case: Case) -> Any:
    """What transformers' generate returns, with all that it can tell."""
    options = dict(case.options)
    if options["num_beams"] == 1:
        for name in ("early_stopping", "length_penalty"):
            del options[name]
    return case.model().generate(
        **case.inputs(),
        **({"eos_token_id": EOS} | options),
        do_sample=False,
        decoder_start_token_id=EOS,
        bos_token_id=BOS,
        pad_token_id=PAD,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
    )


def reference(case: Case) -> list[Found]:
    """The answers of transformers' generate."""
    output = _generated(case)
    sequences = _sequences(case, output)
    if case.options["num_beams"] > 1:
        scores = output.sequences_scores.tolist()
    else:
        scores = _greedy_scores(case, sequences, output)
    return _by_request(case, list(zip(sequences, scores, strict=True)))


Gains = tuple[float | None, ...]
"""What each token of a sequence added to its score, the start token included; None for tokens that
were not chosen."""


def transition_scores(case: Case) -> list[list[tuple[tuple[int, ...], Gains]]]:
    """Every sequence of every request with transformers' ``compute_transition_scores``.

    Of beams, these are of the scores that the search adds up; of greedy search, which adds none, of
    the logits as they were.
    """
    output, policy = _generated(case), case.policy()
    model: Any = case.model()
    if case.options["num_beams"] > 1:
        rows = model.compute_transition_scores(output.sequences, output.scores, output.beam_indices)
    else:
        rows = model.compute_transition_scores(output.sequences, output.logits, None, True)
    found = []
    for ids, row in zip(_sequences(case, output), rows.tolist(), strict=True):
        gains = [None, *row[: len(ids) - 1]]
        if policy.first_tokens:
            gains[1:2] = [None] * len(gains[1:2])
        if policy.last_tokens and len(ids) - 1 == policy.max_new_tokens:
            gains[-1] = None
        found.append((ids, tuple(gains)))
    return _by_request(case, found)


def _sequences(case: Case, output: Any) -> list[tuple[int, ...]]:
    ends = case.policy().ends
    return [_without_padding(row, ends) for row in output.sequences.tolist()]


def _by_request(case: Case, found: list[Any]) -> list[list[Any]]:
    size = case.options["num_return_sequences"]
    return [found[i : i + size] for i in range(0, len(found), size)]


def _without_padding(row: list[int], ends: tuple[int, ...]) -> tuple[int, ...]:
    end = next((i for i, token in enumerate(row[1:], 1) if token in ends), len(row) - 1)
    # A row that holds no sequence at all is padding from the start token on.
    is_empty = row[1:2] == [PAD] and not set(row[1:]) & set(ends)
    return tuple(row[:1]) if is_empty else tuple(row[: end + 1])


def _greedy_scores(case: Case, sequences: list[tuple[int, ...]], output: Any) -> list[float]:
    """Greedy search keeps no score: the one of a beam search, from the transition scores."""
    model: Any = case.model()
    gains = model.compute_transition_scores(output.sequences, output.logits, normalize_logits=True)
    scores = []
    for sequence, row in zip(sequences, gains.tolist(), strict=True):
        length = len(sequence) - 1
        row = row[:length]
        if case.options["forced_bos_token_id"] is not None:
            row[0] = 0.0
        is_longest = length == case.options["max_new_tokens"]
        if is_longest and case.options["forced_eos_token_id"] is not None:
            row[-1] = 0.0
        scores.append(sum(row) / length ** case.options["length_penalty"])
    return scores


@torch.no_grad()
def margin(case: Case, request: int, ours: Found, theirs: Found) -> float:
    """How close the decision was that parts two answers to a request, in float64.

    The search is done again by itself in float64. Of the first two sequences that differ, one at
    least is not what it finds there: the margin is the difference of the two scores whose order
    dropped that sequence.
    """
    model = make_model(case.geometry, case.model_seed).double()
    inputs = case.inputs()
    length = case.geometry.image_tokens + case.prompt_lengths[request]
    encoded = model(
        input_ids=inputs["input_ids"][request : request + 1, :length],
        pixel_values=inputs["pixel_values"][request : request + 1].double(),
        decoder_input_ids=torch.tensor([[EOS]]),
    ).encoder_last_hidden_state

    @functools.cache
    def logits(sequence: tuple[int, ...]) -> npt.NDArray[np.float64]:
        output = model(
            encoder_outputs=BaseModelOutput(encoded),
            decoder_input_ids=torch.tensor([sequence]),
            use_cache=False,
        )
        return np.asarray(output.logits[0, -1].numpy())

    read = tuple(case.encoder_ids()[request])
    found, steps = plain_search(logits, case.policy(), read)
    for rank, pair in enumerate(zip(ours, theirs, strict=True)):
        if pair[0][0] != pair[1][0]:
            lost = [ids for ids, _ in pair if ids != found[rank][0]]
            return max(lost_by(logits, case.policy(), steps, ids, read) for ids in lost)
    return math.inf


@dataclass
class Report:
    """What a comparison found."""

    cases: int = 0
    requests: int = 0
    beams_differ_from_greedy: int = 0
    """Cases with several beams of which greedy search returns other sequences."""
    end_early: int = 0
    """Cases of which a request ends before max_new_tokens."""
    ngram_rule: int = 0
    """Cases that end otherwise without their n-gram rule."""
    settings: dict[str, int] = field(default_factory=dict)
    """For each seldom setting the cases that end otherwise without it."""
    past_200_tokens: int = 0
    excused: list[str] = field(default_factory=list)
    """Requests that differ where the reference's margin is below LEAST_MARGIN."""
    failures: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        return [
            f"{self.cases} cases, {self.requests} requests",
            f"{self.beams_differ_from_greedy} cases: beams and greedy differ",
            f"{self.end_early} cases: a request ends early",
            f"{self.ngram_rule} cases: the n-gram rule changes the answer",
            f"{self.past_200_tokens} cases: more than 200 tokens",
            *(f"{n} cases: {name} changes the answer" for name, n in self.settings.items()),
            f"{len(self.excused)} requests differ below a margin of {LEAST_MARGIN}",
            *self.excused,
            f"{len(self.failures)} requests differ",
            *self.failures,
        ]


def compare(cases: Iterable[Case], run: Callable[[Case], list[Found]]) -> Report:
    """Run every case with ``run`` and with transformers, and count."""
    report = Report()
    for case in cases:
        expected = reference(case)
        _count(report, case, expected)
        found = run(case)
        assert len(found) == len(expected)
        for request, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            if not _equal(ours, theirs):
                _note(report, case, request, ours, theirs)
    return report


def _count(report: Report, case: Case, expected: list[Found]) -> None:
    report.cases += 1
    report.requests += len(expected)
    best = [found[0][0] for found in expected]
    most = case.options["max_new_tokens"]
    report.end_early += any(len(ids) - 1 < most for ids in best)
    report.past_200_tokens += any(len(ids) - 1 > 200 for ids in best)
    if case.options["num_beams"] > 1:
        greedy = reference(case.with_options(num_beams=1, num_return_sequences=1))
        report.beams_differ_from_greedy += best != [found[0][0] for found in greedy]
    if case.options["no_repeat_ngram_size"]:
        free = reference(case.with_options(no_repeat_ngram_size=0))
        report.ngram_rule += best != [found[0][0] for found in free]
    for name in case.options.keys() & SETTINGS.keys():
        options = {key: value for key, value in case.options.items() if key != name}
        without = reference(replace(case, options=options))
        changed = [found[0][0] for found in without] != best
        report.settings[name] = report.settings.get(name, 0) + changed


def _equal(ours: Found, theirs: Found) -> bool:
    return [ids for ids, _ in ours] == [ids for ids, _ in theirs] and all(
        abs(a - b) <= SCORE_TOLERANCE * (1 + abs(b))
        for (_, a), (_, b) in zip(ours, theirs, strict=True)
    )


def _note(report: Report, case: Case, request: int, ours: Found, theirs: Found) -> None:
    close = margin(case, request, ours, theirs)
    line = f"{case}, request {request}, margin {close:.2g}: {ours} is not {theirs}"
    (report.excused if close < LEAST_MARGIN else report.failures).append(line)
