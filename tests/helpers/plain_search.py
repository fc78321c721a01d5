"""Beam search written for reading: one request, Python lists, float64, nothing incremental.

It follows the same rules as ``florence_onnx.generation.search.search`` and shares no code with
it. It keeps a record of its steps, which tells by how much a sequence lost.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from florence_onnx.generation.policy import GenerationPolicy

Sequence = tuple[int, ...]
Ranking = list[tuple[Sequence, float]]
"""Sequences with their scores, best first."""
LogProbs = Callable[[Sequence], npt.NDArray[np.float64]]
"""Log-probabilities [V] of the token after a sequence that begins with the start token."""
NOTHING = -1e9


@dataclass(frozen=True)
class Step:
    """What one step of the search decided."""

    candidates: Ranking
    """The best continuations: two for every beam, and the first that was left out."""
    running: Ranking
    ended: Ranking
    """With final scores, as many as there are beams."""
    hope: float
    """The score that the best running beam could still reach."""


def plain_search(log_probs: LogProbs, policy: GenerationPolicy) -> tuple[Ranking, list[Step]]:
    """The ``num_return_sequences`` best sequences, and how they were found."""
    count = policy.num_beams
    start = (policy.decoder_start_token_id,)
    running = [(start, 0.0)] + [(start, NOTHING)] * (count - 1)
    ended = [(start, -math.inf if count == 1 else NOTHING)] * count
    steps = []
    for length in range(1, policy.max_new_tokens + 1):
        ranked = _ranked(
            ((*sequence, token), score + gain)
            for sequence, score in running
            for token, gain in _continuations(log_probs, sequence, policy)
        )
        candidates = ranked[: 2 * count] if count > 1 else ranked[:1]
        new = [(ids, _final(ids, score, policy)) for ids, score in candidates[:count]]
        ended = _ranked(ended + [pair for pair in new if _is_over(pair[0], policy)])[:count]
        # Greedy search is over where its only sequence is.
        running = _ranked(
            (ids, score + NOTHING if count > 1 and _is_over(ids, policy) else score)
            for ids, score in candidates
        )[:count]
        is_far = policy.early_stopping == "never" and policy.length_penalty > 0
        reach = policy.max_new_tokens if is_far else length
        hope = running[0][1] / reach**policy.length_penalty
        steps.append(Step(ranked[: len(candidates) + 1], running, ended, hope))
        is_full = all(len(ids) > 1 for ids, _ in ended)
        if is_full and (count == 1 or policy.early_stopping is True):
            break
        if hope <= ended[-1][1]:
            break
    return ended[: policy.num_return_sequences], steps


def lost_by(
    log_probs: LogProbs, policy: GenerationPolicy, steps: list[Step], sequence: Sequence
) -> float:
    """By how much ``sequence`` failed to be found by a search, or to be found at another rank.

    Args:
        log_probs: As the search had them.
        policy: As the search had it.
        steps: Its record.
        sequence: The sequence in question.

    Returns:
        The difference of the two scores whose order decided.
    """
    score = 0.0
    for length, step in enumerate(steps, 1):
        if length < len(sequence):
            gains = dict(_continuations(log_probs, sequence[:length], policy))
            score += gains.get(sequence[length], -math.inf)
        if length + 1 < len(sequence):
            if sequence[: length + 1] not in dict(step.running):
                return step.running[-1][1] - score
        elif length + 1 == len(sequence) and sequence not in dict(
            step.candidates[: policy.num_beams]
        ):
            return step.candidates[policy.num_beams - 1][1] - score
        elif sequence not in dict(step.ended):
            return step.ended[-1][1] - _final(sequence, score, policy)
    last = steps[-1]
    if len(sequence) > len(steps) + 1:
        if policy.early_stopping is True:
            return _gap(last.candidates, policy.num_beams)
        return abs(last.hope - last.ended[-1][1])
    return min(_gap(last.ended, rank) for rank in range(1, policy.num_beams + 1))


def _continuations(
    log_probs: LogProbs, sequence: Sequence, policy: GenerationPolicy
) -> list[tuple[int, float]]:
    """The tokens that may follow and what they add to the score."""
    length = len(sequence)
    if length == policy.max_new_tokens and policy.forced_eos_token_id is not None:
        return [(policy.forced_eos_token_id, 0.0)]
    if length == 1 and policy.forced_bos_token_id is not None:
        return [(policy.forced_bos_token_id, 0.0)]
    banned = _banned(sequence, policy.no_repeat_ngram_size)
    if length - 1 < policy.min_new_tokens:
        banned.add(policy.eos_token_id)
    gains = log_probs(sequence)
    return [(i, -math.inf if i in banned else float(gain)) for i, gain in enumerate(gains)]


def _banned(sequence: Sequence, size: int) -> set[int]:
    """The last tokens of all n-grams in the sequence that begin as its end does."""
    if size == 0 or len(sequence) < size:
        return set()
    end = sequence[len(sequence) - size + 1 :]
    grams = [sequence[i : i + size] for i in range(len(sequence) - size + 1)]
    return {gram[-1] for gram in grams if gram[:-1] == end}


def _is_over(sequence: Sequence, policy: GenerationPolicy) -> bool:
    return sequence[-1] == policy.eos_token_id or len(sequence) - 1 == policy.max_new_tokens


def _final(sequence: Sequence, score: float, policy: GenerationPolicy) -> float:
    return score / (len(sequence) - 1) ** policy.length_penalty


def _ranked(scored: Iterable[tuple[Sequence, float]]) -> Ranking:
    return sorted(scored, key=lambda pair: -pair[1])


def _gap(ranking: Ranking, rank: int) -> float:
    """By how much the last of the first ``rank`` is ahead of the next one."""
    return ranking[rank - 1][1] - ranking[rank][1] if rank < len(ranking) else math.inf
