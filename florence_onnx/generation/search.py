"""Search by greedy or beam search over a step() callable, in numpy."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from florence_onnx.generation.grammar import Grammar
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.generation.processors import Processors, Scores

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# The score of a beam without a sequence in transformers, below the score of any sequence.
_NOTHING = np.float32(-1e9)


Step = Callable[[Ids, Ids, Ids], Scores]
"""Step of the decoder: ``step(token_ids, rows, requests)``.

``token_ids`` int64 [R] is the token each row appends; ``rows`` int64 [R] the row of the previous
call that each row continues, by which the step gathers the cache; ``requests`` int64 [A],
ascending, the requests still searched. Rows are ordered by request. All requests have the same
number of rows: one up to the first token that is not forced, num_beams afterwards. In the first
call, which continues nothing, ``rows`` counts from 0.
"""


@dataclass(frozen=True)
class Hypothesis:
    """Generated sequence."""

    token_ids: tuple[int, ...]
    """Tokens from the start token to the last token, both included."""
    score: float
    """Sum of the tokens' log-probabilities divided by the number of tokens to the power of
    ``length_penalty``; forced tokens count 0, the start token is not counted. The score is what
    transformers calls ``sequences_scores``: in a beam search, penalties and biases are part of the
    score; in a greedy search, not."""
    log_probs: tuple[float | None, ...]
    """Part of each token in ``score``, as in transformers' ``compute_transition_scores``: the
    log-probability over the whole vocabulary, with banned tokens, after the tokens before. None for
    tokens that were not chosen: the start token and forced tokens."""
    is_truncated: bool = False
    """Tells whether ``max_new_tokens`` cut the sequence: the search chose no end, or dropped a last
    label whose places had no room. ``score`` includes the dropped label."""


def search(
    step: Step,
    batch_size: int,
    policy: GenerationPolicy,
    encoder_ids: Sequence[Sequence[int]] = (),
    grammars: Sequence[Grammar | None] = (),
    is_wanted: Callable[[int], bool] = lambda request: True,
) -> list[list[Hypothesis]]:
    """Finds the best sequences of a batch of requests.

    The result is that of transformers' ``generate`` without sampling, for each request as if the
    request were alone. Where scores are equal to the last bit, the first beam wins; within a beam,
    the order of ``top`` or else the lower id decides.

    Args:
        step: Runs the decoder. The search calls ``step`` at most ``max_new_tokens`` times; a
            request whose search is over is not in later calls. ``top`` or, for options that need
            it, ``logits`` is called at most once per step, and neither where the token is forced.
            With ``grammars``, both may be called.
        batch_size: Number of requests.
        policy: The options of the search.
        encoder_ids: The tokens that the encoder read for each request, image tokens included; left
            out, ``encoder_no_repeat_ngram_size`` and ``encoder_repetition_penalty`` do nothing.
        grammars: The grammar of every request, None for a free answer; empty where all answers are
            free.
        is_wanted: Called with every request after each step. A request that is no longer wanted
            leaves the batch, with the sequences that had ended before.

    Returns:
        For each request ``num_return_sequences`` hypotheses, best first. Where there are fewer
        sequences, as with forced tokens alone, hypotheses without meaning fill up, as in
        transformers: copies, or the start token alone, with scores far below any real score.
    """
    beams = _Beams(batch_size, policy, Processors(policy, encoder_ids, grammars), is_wanted)
    first, last = policy.first_tokens, policy.last_tokens
    while beams.requests.size:
        generated = beams.generated
        if last and generated + 1 == policy.max_new_tokens:
            beams.force(last)
            continue
        scores = step(beams.last_tokens(), beams.rows, beams.requests)
        if first and generated == 0:
            beams.force(first)
        else:
            beams.extend(scores)
    return [best[: policy.num_return_sequences] for best in beams.ended.best]


class _Ended:
    """Sequences that have ended: for each request the best, as many as there are beams."""

    def __init__(self, batch_size: int, policy: GenerationPolicy) -> None:
        # A strongly negative length penalty can push scores below _NOTHING. That ends a beam search
        # of transformers, but not its greedy search, which keeps no scores.
        least = -np.float32(np.inf) if policy.num_beams == 1 else _NOTHING
        self._blank = Hypothesis((policy.decoder_start_token_id,), float(least), (None,))
        self.best = [[self._blank] * policy.num_beams for _ in range(batch_size)]
        self.worst_score: Floats = np.full(batch_size, least)
        self.are_full = np.zeros(batch_size, dtype=bool)

    def add(self, request: int, hypothesis: Hypothesis) -> None:
        best = self.best[request]
        best.append(hypothesis)
        best.sort(key=lambda hypothesis: -hypothesis.score)
        best.pop()
        self.worst_score[request] = best[-1].score
        self.are_full[request] = best[-1] is not self._blank


class _Beams:
    """Beams of the requests that are still searched, and the sequences that have ended."""

    def __init__(
        self,
        batch_size: int,
        policy: GenerationPolicy,
        processors: Processors,
        is_wanted: Callable[[int], bool],
    ) -> None:
        beams = policy.num_beams
        self._is_wanted = is_wanted
        self.ended = _Ended(batch_size, policy)
        self.requests: Ids = np.arange(batch_size, dtype=np.int64)
        self.rows = self.requests
        self._policy = policy
        self._processors = processors
        # Rows per request in the next step: up to the first choice, all beams are one row.
        self._width = 1
        self._history: Ids = np.full(
            (batch_size, beams, 1), policy.decoder_start_token_id, dtype=np.int64
        )
        # of every token in the history; NaN for tokens that were not chosen
        self._log_probs: Floats = np.full(self._history.shape, np.nan, dtype=np.float32)
        self._scores: Floats = np.full((batch_size, beams), _NOTHING)
        self._scores[:, 0] = 0
        # Every beam may end once per end token, so as many candidates and one more for each leave
        # enough to run on. Greedy search follows the best token alone, and is over where that ends.
        self._candidates = 1 if beams == 1 else (1 + len(policy.ends)) * beams
        self._stops_when_full = beams == 1 or policy.early_stopping is True

    @property
    def generated(self) -> int:
        """Number of tokens that the beams hold after the start token."""
        return int(self._history.shape[2]) - 1

    def last_tokens(self) -> Ids:
        """Token that each row appends, int64 [R]."""
        return self._history[:, : self._width, -1].ravel()

    def force(self, token_ids: tuple[int, ...]) -> None:
        """Continues every beam with one of these tokens, at no cost."""
        policy, shape = self._policy, (*self._scores.shape, len(token_ids))
        are_normal = policy.renormalize_logits and policy.num_beams > 1
        gain = -math.log(len(token_ids)) if are_normal else 0.0
        tokens = np.broadcast_to(np.array(token_ids, dtype=np.int64), shape)
        width = self._width if len(token_ids) == 1 else policy.num_beams
        gains = np.full(shape, gain, dtype=np.float32)
        self._advance(gains, np.full_like(gains, np.nan), tokens, width)

    def extend(self, scores: Scores) -> None:
        """Continues the beams with the best tokens that the policy allows."""
        history = self._history[:, : self._width].reshape(-1, self._history.shape[2])
        requests = self.requests.repeat(self._width)
        gains, ids = self._processors.best(scores, self._candidates, history, requests)
        split = (len(self.requests), self._width, -1)
        shape = (*self._scores.shape, ids.shape[1])
        gains = np.broadcast_to(gains.reshape(split), shape)
        ids = np.broadcast_to(ids.reshape(split), shape)
        self._advance(gains, gains, ids, self._policy.num_beams)

    def _advance(self, gains: Floats, log_probs: Floats, ids: Ids, width: int) -> None:
        """Chooses the next beams among the continuations of the present ones.

        Args:
            gains: Values that the continuations add to the beams' scores, float32 [A,num_beams,k].
            log_probs: Log-probabilities of the continuations, NaN for forced tokens.
            ids: The tokens of the continuations, int64 [A,num_beams,k].
            width: Rows per request in the next step.
        """
        count, beams, k = ids.shape
        every = np.arange(count)[:, None]
        totals = (self._scores[:, :, None] + gains).reshape(count, -1)
        chosen = np.argsort(-totals, axis=1, kind="stable")[:, : self._candidates]
        scores, parents = totals[every, chosen], chosen // k
        tokens = ids.reshape(count, -1)[every, chosen]
        log_probs = log_probs.reshape(count, -1)[every, chosen]
        generated = self.generated + 1
        ends = np.isin(tokens, self._policy.ends) | (generated == self._policy.max_new_tokens)
        if ends.any():
            self._collect(ends[:, :beams], scores, parents, tokens, log_probs)
            scores = np.where(ends, scores + _NOTHING, scores)
            order = np.argsort(-scores, axis=1, kind="stable")
            scores, parents = scores[every, order], parents[every, order]
            tokens, log_probs = tokens[every, order], log_probs[every, order]
        parents = parents[:, :beams]
        self._scores = scores[:, :beams]
        self._history = np.concatenate(
            (self._history[every, parents], tokens[:, :beams, None]), axis=2
        )
        self._log_probs = np.concatenate(
            (self._log_probs[every, parents], log_probs[:, :beams, None]), axis=2
        )
        # With one row per request, that row is what every beam continues.
        self.rows = (every * self._width + parents % self._width)[:, :width].ravel()
        self._width = width
        self._leave()

    def _collect(
        self,
        ends: npt.NDArray[np.bool_],
        scores: Floats,
        parents: Ids,
        tokens: Ids,
        log_probs: Floats,
    ) -> None:
        """Collects the candidates that end now and are among the first num_beams."""
        policy, length = self._policy, self.generated + 1
        final = scores / float(length) ** policy.length_penalty
        for i, j in zip(*np.nonzero(ends), strict=True):
            parent, token, log_prob = parents[i, j], int(tokens[i, j]), float(log_probs[i, j])
            before, gained = self._history[i, parent].tolist(), self._log_probs[i, parent].tolist()
            is_end = token in policy.ends and not math.isnan(log_prob)
            request = int(self.requests[i])
            count = self._processors.whole(request, before) if is_end else len(before)
            found = Hypothesis(
                (*before[:count], token),
                float(final[i, j]),
                tuple(None if math.isnan(v) else v for v in (*gained[:count], log_prob)),
                is_truncated=count < len(before)
                or (length == policy.max_new_tokens and not is_end),
            )
            self.ended.add(request, found)

    def _leave(self) -> None:
        """Drops the requests whose search is over."""
        policy, generated = self._policy, self.generated
        is_long = policy.early_stopping == "never" and policy.length_penalty > 0
        length = policy.max_new_tokens if is_long else generated
        hope = self._scores[:, 0] / float(length) ** policy.length_penalty
        stays = hope > self.ended.worst_score[self.requests]
        if self._stops_when_full:
            stays &= ~self.ended.are_full[self.requests]
        if generated == policy.max_new_tokens:
            stays[:] = False
        stays &= np.array([self._is_wanted(request) for request in self.requests.tolist()])
        if not stays.all():
            self.rows = self.rows.reshape(len(stays), -1)[stays].ravel()
            self.requests = self.requests[stays]
            self._scores, self._history = self._scores[stays], self._history[stays]
            self._log_probs = self._log_probs[stays]
