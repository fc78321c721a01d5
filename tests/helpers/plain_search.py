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
Logits = Callable[[Sequence], npt.NDArray[np.float64]]
"""Logits [V] of the token after a sequence that begins with the start token."""
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


def plain_search(
    logits: Logits, policy: GenerationPolicy, read: Sequence = ()
) -> tuple[Ranking, list[Step]]:
    """The ``num_return_sequences`` best sequences, and how they were found.

    ``read`` is what the encoder has read. In the steps of a greedy search, scores are sums of what
    it chooses by: logits with penalties and biases.
    """
    count = policy.num_beams
    start: Sequence = (policy.decoder_start_token_id,)
    running: Ranking = [(start, 0.0)] + [(start, NOTHING)] * (count - 1)
    ended: Ranking = [(start, -math.inf if count == 1 else NOTHING)] * count
    steps = []
    for length in range(1, policy.max_new_tokens + 1):
        ranked = _ranked(
            ((*sequence, token), score + gain)
            for sequence, score in running
            for token, gain in _continuations(logits, sequence, policy, read)
        )
        candidates = ranked[: (1 + len(policy.ends)) * count] if count > 1 else ranked[:1]
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
    if count == 1:
        ended = [(ids, _greedy_score(logits, ids, policy)) for ids, _ in ended]
    return ended[: policy.num_return_sequences], steps


def lost_by(
    logits: Logits,
    policy: GenerationPolicy,
    steps: list[Step],
    sequence: Sequence,
    read: Sequence = (),
) -> float:
    """By how much ``sequence`` failed to be found by a search, or to be found at another rank.

    Args:
        logits: As the search had them.
        policy: As the search had it.
        steps: Its record.
        sequence: The sequence in question.
        read: As the search had it.

    Returns:
        The difference of the two scores whose order decided.
    """
    score = 0.0
    for length, step in enumerate(steps, 1):
        if length < len(sequence):
            gains = dict(_continuations(logits, sequence[:length], policy, read))
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
    logits: Logits, sequence: Sequence, policy: GenerationPolicy, read: Sequence
) -> list[tuple[int, float]]:
    """The tokens that may follow and what they add to the score."""
    length = len(sequence)
    forced: Sequence = ()
    if length == policy.max_new_tokens and policy.last_tokens:
        forced = policy.last_tokens
    elif length == 1:
        forced = policy.first_tokens
    if forced:
        share = 1 / len(forced) if policy.renormalize_logits else 1.0
        return [(token, math.log(share)) for token in forced]
    gains = logits(sequence).astype(np.float64)
    known = set(range(len(gains)))
    if policy.num_beams > 1:
        gains = _log_softmax(gains)
    for tokens, bias in policy.sequence_bias:
        if _stands_before_its_end(sequence, tokens):
            gains[tokens[-1]] += bias
    for seen, factor in (
        (set(read), 1 / policy.encoder_repetition_penalty),
        (set(sequence), policy.repetition_penalty),
    ):
        for token in seen & known:
            gains[token] *= factor if gains[token] < 0 else 1 / factor
    gains[sorted(_all_banned(sequence, policy, read) & known)] = -math.inf
    if policy.exponential_decay_length_penalty is not None:
        begin, factor = policy.exponential_decay_length_penalty
        for end in policy.ends:
            if length - 1 > begin and gains[end] > -math.inf:
                gains[end] += abs(gains[end]) * (factor ** (length - 1 - begin) - 1)
    if policy.renormalize_logits and policy.num_beams > 1:
        gains = _log_softmax(gains)
    return list(enumerate(gains.tolist()))


def _all_banned(sequence: Sequence, policy: GenerationPolicy, read: Sequence) -> set[int]:
    banned = _banned(sequence, policy.no_repeat_ngram_size)
    size = policy.encoder_no_repeat_ngram_size
    for i in range(len(read) - size + 1 if size else 0):
        if _stands_before_its_end(sequence, read[i : i + size]):
            banned.add(read[i + size - 1])
    for word in policy.bad_words_ids:
        if word not in {(end,) for end in policy.ends} and _stands_before_its_end(sequence, word):
            banned.add(word[-1])
    if len(sequence) - 1 < policy.min_new_tokens:
        banned.update(policy.ends)
    banned.update(policy.suppress_tokens)
    if len(sequence) == (1 if policy.forced_bos_token_id is None else 2):
        banned.update(policy.begin_suppress_tokens)
    return banned


def _stands_before_its_end(sequence: Sequence, tokens: Sequence) -> bool:
    """Whether the sequence ends with all of the tokens but the last."""
    return (
        len(tokens) <= len(sequence) + 1
        and sequence[len(sequence) + 1 - len(tokens) :] == (tokens[:-1])
    )


def _log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(logits - np.logaddexp.reduce(logits))


def _greedy_score(logits: Logits, ids: Sequence, policy: GenerationPolicy) -> float:
    """Of the probabilities as the model gives them; forced tokens count 0."""
    score = 0.0
    for length in range(1, len(ids)):
        is_last = length == policy.max_new_tokens and policy.last_tokens
        if not (is_last or (length == 1 and policy.first_tokens)):
            score += float(_log_softmax(logits(ids[:length]))[ids[length]])
    return _final(ids, score, policy)


def _banned(sequence: Sequence, size: int) -> set[int]:
    """The last tokens of all n-grams in the sequence that begin as its end does."""
    if size == 0 or len(sequence) < size:
        return set()
    end = sequence[len(sequence) - size + 1 :]
    grams = [sequence[i : i + size] for i in range(len(sequence) - size + 1)]
    return {gram[-1] for gram in grams if gram[:-1] == end}


def _is_over(sequence: Sequence, policy: GenerationPolicy) -> bool:
    return sequence[-1] in policy.ends or len(sequence) - 1 == policy.max_new_tokens


def _final(sequence: Sequence, score: float, policy: GenerationPolicy) -> float:
    return score / (len(sequence) - 1) ** policy.length_penalty


def _ranked(scored: Iterable[tuple[Sequence, float]]) -> Ranking:
    return sorted(scored, key=lambda pair: -pair[1])


def _gap(ranking: Ranking, rank: int) -> float:
    """By how much the last of the first ``rank`` is ahead of the next one."""
    return ranking[rank - 1][1] - ranking[rank][1] if rank < len(ranking) else math.inf
