"""Processors: rules that exclude next tokens or change the scores of next tokens.

The rules, the order and float32 are those of the logits processors of transformers. A beam search
applies the rules to log-probabilities, greedy search applies the rules to logits. Forced tokens
need no scores; the search itself handles forced tokens.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from florence_onnx.generation.constraints import NEVER, Constraints
from florence_onnx.generation.grammar import Grammar
from florence_onnx.generation.ngrams import repeating_tokens, successors
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.generation.ranking import best_ids, log_softmax

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Scores(Protocol):
    """Scores of the next token of every row, from one step of the decoder."""

    def top(self, k: int) -> tuple[Floats, Ids]:
        """Finds the best tokens of every row.

        Args:
            k: Number of tokens; all tokens of a smaller vocabulary.

        Returns:
            Log-probabilities over the whole vocabulary, float32 [R,k] descending, and their
            token ids, int64 [R,k].
        """

    def logits(self) -> Floats:
        """Reads the logits of every row, float32 [R,V], which must not be written to."""


class Processors:
    """Rules of a policy for the next token."""

    def __init__(
        self,
        policy: GenerationPolicy,
        encoder_ids: Sequence[Sequence[int]],
        grammars: Sequence[Grammar | None] = (),
    ) -> None:
        """Prepares the rules for a batch.

        Args:
            policy: The options of the search.
            encoder_ids: Tokens that the encoder read for each request. If empty, the options about
                these tokens have no effect.
            grammars: Grammar of every request, None for a free answer; empty for free answers only.
        """
        self._policy = policy
        self._is_greedy = policy.num_beams == 1
        self._ends = np.array(policy.ends)
        # An end by itself is never a bad word.
        ends = {(end,) for end in policy.ends}
        self._words = _Sequences([word for word in policy.bad_words_ids if word not in ends])
        self._biased = _Sequences([tokens for tokens, _ in policy.sequence_bias])
        self._biases = np.array([bias for _, bias in policy.sequence_bias], dtype=np.float32)
        self._read = []
        if policy.encoder_repetition_penalty != 1:
            self._read = [np.unique(np.array(ids, dtype=np.int64)) for ids in encoder_ids]
        size = policy.encoder_no_repeat_ngram_size
        self._followers = [successors(ids, size) for ids in encoder_ids] if size else []
        self._constraints = Constraints(grammars, policy) if any(grammars) else None
        self._needs_logits = (
            bool(policy.sequence_bias)
            or policy.repetition_penalty != 1
            or policy.encoder_repetition_penalty != 1
            or policy.exponential_decay_length_penalty is not None
            or policy.renormalize_logits
        )

    def whole(self, request: int, token_ids: Sequence[int]) -> int:
        """Counts the tokens of an ended sequence that stay, the end aside; see `Constraints`."""
        if self._constraints is None:
            return len(token_ids)
        return self._constraints.whole(request, token_ids)

    def best(self, scores: Scores, k: int, history: Ids, requests: Ids) -> tuple[Floats, Ids]:
        """Finds the best tokens that may continue each row.

        Args:
            scores: Scores of the decoder.
            k: Least number of tokens, if there are as many.
            history: The tokens of every row so far, int64 [R,L].
            requests: Which request each row belongs to, int64 [R].

        Returns:
            Values that the tokens add to the scores of the rows, float32 [R,n] in descending order
            of choice, minus infinity for excluded tokens; and the ids of the tokens, int64 [R,n].
        """
        rows, tokens = self._banned(history, requests)
        if self._needs_logits:
            return self._best_of_all(scores.logits(), k, history, requests, (rows, tokens))
        if self._constraints is not None:
            masks = self._constraints.masks(history, requests, (rows, tokens), scores.logits)
            return self._constraints.best(scores, k, masks, requests)
        # Enough tokens are left even if all banned tokens of a row are among the best.
        spare = int(np.bincount(rows).max()) if rows.size else 0
        log_probs, ids = scores.top(k + spare)
        if rows.size:
            log_probs = np.where(_occurs(ids, rows, tokens), -np.float32(np.inf), log_probs)
        return log_probs, ids

    def _banned(self, history: Ids, requests: Ids) -> tuple[Ids, Ids]:
        """Finds rows, and tokens that must not continue these rows, int64 [N] each."""
        policy, count, generated = self._policy, len(history), history.shape[1] - 1
        found = [(np.zeros(0, dtype=np.int64),) * 2]
        if policy.no_repeat_ngram_size:
            found.append(repeating_tokens(history, policy.no_repeat_ngram_size))
        if self._followers:
            found.append(self._read_before(history, requests))
        if policy.bad_words_ids:
            found.append(self._words.ready(history)[:2])
        everywhere = list(policy.suppress_tokens)
        if generated < policy.min_new_tokens:
            everywhere += policy.ends
        if generated == (0 if policy.forced_bos_token_id is None else 1):
            everywhere += policy.begin_suppress_tokens
        if everywhere:
            each = np.arange(count, dtype=np.int64).repeat(len(everywhere))
            found.append((each, np.tile(np.array(everywhere, dtype=np.int64), count)))
        rows, tokens = (np.concatenate(part) for part in zip(*found, strict=True))
        return rows, tokens

    def _read_before(self, history: Ids, requests: Ids) -> tuple[Ids, Ids]:
        """Finds the tokens that would complete an n-gram that the encoder has read."""
        # Fewer tokens than an n-gram begins with are no key of the table.
        start = max(history.shape[1] - self._policy.encoder_no_repeat_ngram_size + 1, 0)
        followers = [
            self._followers[request].get(tuple(tail), [])
            for request, tail in zip(requests.tolist(), history[:, start:].tolist(), strict=True)
        ]
        rows = np.arange(len(followers), dtype=np.int64).repeat([len(f) for f in followers])
        return rows, np.array([token for row in followers for token in row], dtype=np.int64)

    def _best_of_all(
        self, logits: Floats, k: int, history: Ids, requests: Ids, banned: tuple[Ids, Ids]
    ) -> tuple[Floats, Ids]:
        """Finds the best tokens where options change scores: any token may be among the best."""
        policy, generated = self._policy, history.shape[1] - 1
        log_probs = log_softmax(logits)
        values = (logits if self._is_greedy else log_probs).copy()
        if policy.sequence_bias:
            values += self._bias(history, values)
        if self._read:
            for row, request in enumerate(requests.tolist()):
                read = self._read[request]
                read = read[read < values.shape[1]]
                _penalise(values, np.array(row), read, 1 / policy.encoder_repetition_penalty)
        if policy.repetition_penalty != 1:
            _penalise(values, np.arange(len(values))[:, None], history, policy.repetition_penalty)
        rows, tokens = banned
        if self._constraints is None:
            known = tokens < values.shape[1]
            values[rows[known], tokens[known]] = -np.inf
        else:
            masks = self._constraints.masks(history, requests, banned, lambda: values)
            values[~np.stack(masks)] = NEVER
        if policy.exponential_decay_length_penalty is not None:
            start, factor = policy.exponential_decay_length_penalty
            if generated > start:
                self._raise_ends(values, float(factor), generated - start)
        if policy.renormalize_logits and not self._is_greedy:
            values = log_softmax(values)
        if self._constraints is not None:
            every = np.broadcast_to(np.arange(values.shape[1]), values.shape)
            held = log_probs.copy()
            self._constraints.hold_back(held, every, masks, requests)
            values[held == NEVER] = NEVER
        ids = best_ids(values, k)
        return np.take_along_axis(log_probs if self._is_greedy else values, ids, axis=1), ids

    def _bias(self, history: Ids, like: Floats) -> Floats:
        bias = np.zeros_like(like)
        rows, tokens, which = self._biased.ready(history)
        known = tokens < bias.shape[1]
        np.add.at(bias, (rows[known], tokens[known]), self._biases[which[known]])
        return bias

    def _raise_ends(self, values: Floats, factor: float, steps: int) -> None:
        """Raises the scores of ends with every step."""
        with np.errstate(over="ignore", invalid="ignore"):
            growth = np.float32(np.float64(factor) ** steps - 1)
            found = values[:, self._ends]
            raised = found + np.abs(found) * growth
        values[:, self._ends] = np.where(np.isfinite(found), raised, found)


class _Sequences:
    """Sequences of tokens, in a table that finds rows with all but the last token of a sequence."""

    def __init__(self, sequences: Sequence[tuple[int, ...]]) -> None:
        self._groups: list[tuple[Ids, Ids, Ids]] = []
        for length in sorted({len(sequence) for sequence in sequences}):
            which = [i for i, sequence in enumerate(sequences) if len(sequence) == length]
            tokens = np.array([sequences[i] for i in which], dtype=np.int64)
            self._groups.append((tokens[:, :-1], tokens[:, -1], np.array(which, dtype=np.int64)))

    def ready(self, history: Ids) -> tuple[Ids, Ids, Ids]:
        """Finds rows that lack the last token of a sequence, with this token and the sequence."""
        found = [(np.zeros(0, dtype=np.int64),) * 3]
        for starts, lasts, which in self._groups:
            begin = history.shape[1] - starts.shape[1]
            if begin >= 0:
                rows, i = np.nonzero((history[:, None, begin:] == starts).all(axis=2))
                found.append((rows, lasts[i], which[i]))
        rows, tokens, which = (np.concatenate(part) for part in zip(*found, strict=True))
        return rows, tokens, which


def _penalise(values: Floats, rows: Ids, tokens: Ids, penalty: float) -> None:
    """Makes tokens less likely in place, for negative and positive values."""
    found = values[rows, tokens]
    values[rows, tokens] = np.where(found < 0, found * penalty, found / penalty)


def _occurs(ids: Ids, rows: Ids, tokens: Ids) -> npt.NDArray[np.bool_]:
    """Marks the places in ``ids`` [R,k] that hold, in row ``rows[i]``, the token ``tokens[i]``."""
    stride = 1 << 32
    return np.isin(ids + stride * np.arange(len(ids))[:, None], tokens + stride * rows)
