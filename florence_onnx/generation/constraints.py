"""Grammars of a batch, as a rule of the search."""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from florence_onnx.generation.grammar import Grammar, Mask, State, is_list
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.generation.ranking import best_ids

if TYPE_CHECKING:
    from florence_onnx.generation.processors import Scores

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_GRAPH_CANDIDATES = 64
"""Number of candidates per row: as many come with every step of a graph, at no cost."""

NEVER = -np.float32(np.inf)


class Constraints:
    """Constraints on the tokens that may continue each row, and on the end of answers."""

    def __init__(self, grammars: Sequence[Grammar | None], policy: GenerationPolicy) -> None:
        """Prepares a batch.

        Args:
            grammars: Of every request; None for one that is free, though not for all.
            policy: The options of the search.
        """
        self._grammars = grammars
        self._ends = np.array(policy.ends)
        self._most = policy.max_new_tokens - bool(policy.last_tokens)
        recall = policy.recall
        self._least_places = int(recall) if recall is not None and recall >= 1 else 0
        self._least_end = math.log(recall) if recall is not None and recall < 1 else -math.inf
        size = max(len(grammar.kinds) for grammar in grammars if grammar is not None)
        self._anything = np.ones(size, dtype=np.bool_)
        self._is_end = np.zeros(size, dtype=np.bool_)
        self._is_end[self._ends] = True
        self._lists = [grammar is not None and is_list(grammar.kind) for grammar in grammars]
        self._states: dict[tuple[int, bytes], State] = {}

    def masks(
        self,
        history: Ids,
        requests: Ids,
        banned: tuple[Ids, Ids],
        values: Callable[[], Floats],
    ) -> list[Mask]:
        """Finds the tokens that may continue each row, bool [V] each. Rows may share an array.

        Args:
            history: The tokens of every row so far, int64 [R,L].
            requests: Which request each row belongs to, int64 [R].
            banned: Rows and tokens that other options ban, int64 [N] each. A ban that leaves a row
                nothing is lifted.
            values: Reads values that rank the tokens, float32 [R,V]; called where room is short.
        """
        states = self._follow(history, requests)
        room = self._most - (history.shape[1] - 1)
        masks = []
        for row, (request, state) in enumerate(zip(requests.tolist(), states, strict=True)):
            grammar, bans = self._grammars[request], banned[1][banned[0] == row]
            mask = self._anything if grammar is None else grammar.allowed(state, room)
            mask = _without(mask, bans)
            lacking = None if grammar is None else grammar.beyond(state, room)
            if lacking is not None and (mask[self._ends].any() or state.node):
                (best,) = _best_of_mask(values()[row], _without(mask | lacking, bans), 1)
                mask = self._is_end if lacking[best] else mask
            if self._lists[request] and state.places < self._least_places:
                mask = _without(mask, self._ends)
            masks.append(mask)
        return masks

    def whole(self, request: int, token_ids: Sequence[int]) -> int:
        """Counts the tokens of a sequence before a known label that has no places behind it."""
        grammar, state, count = self._grammars[request], State(), len(token_ids)
        if grammar is not None and grammar.labels is not None:
            for number, token in enumerate(token_ids, 1):
                state = grammar.follow(state, token)
                if state.node == 0:
                    count = number
        return count

    def best(
        self, scores: "Scores", k: int, masks: Sequence[Mask], requests: Ids
    ) -> tuple[Floats, Ids]:
        """Finds the best tokens that may continue each row; see `Processors.best`.

        Logits are read where the best tokens of a graph are too few.
        """
        log_probs, ids = scores.top(max(k, _GRAPH_CANDIDATES))
        first = log_probs[:, 0], ids[:, 0]
        log_probs, ids = log_probs.copy(), ids.copy()
        allowed = np.stack([mask[row] for mask, row in zip(masks, ids, strict=True)])
        log_probs[~allowed] = NEVER
        self.hold_back(log_probs, ids, masks, requests)
        found = (log_probs > NEVER).sum(axis=1)
        lack = np.array(
            [row for row in np.flatnonzero(found < k).tolist() if found[row] < masks[row].sum()],
            dtype=np.int64,
        )
        if lack.size:
            logits = scores.logits()
            norms = logits[lack, first[1][lack]] - first[0][lack]
            log_probs[lack] = NEVER
            for row, norm in zip(lack.tolist(), norms, strict=True):
                more = k + self._ends.size  # in case ends are held back
                chosen = _best_of_mask(logits[row], masks[row], min(more, ids.shape[1]))
                ids[row, : chosen.size] = chosen
                log_probs[row, : chosen.size] = logits[row, chosen] - norm
            self.hold_back(log_probs, ids, masks, requests)
        return log_probs, ids

    def hold_back(self, log_probs: Floats, ids: Ids, masks: Sequence[Mask], requests: Ids) -> None:
        """Excludes ends that are not likely enough, in place, unless nothing else may come.

        Args:
            log_probs: Of the candidates, float32 [R,k].
            ids: The candidates, int64 [R,k].
            masks: The tokens that may continue each row, bool [V] each.
            requests: Which request each row belongs to, int64 [R].
        """
        if self._least_end == -math.inf:
            return
        rows = np.array([self._lists[request] for request in requests.tolist()])
        only_ends = np.array([mask[self._ends].sum() == mask.sum() for mask in masks])
        unlikely = np.isin(ids, self._ends) & (log_probs < self._least_end)
        log_probs[unlikely & (rows & ~only_ends)[:, None]] = NEVER

    def _follow(self, history: Ids, requests: Ids) -> list[State]:
        """Updates the state of every row by the last token, from the state of the row before."""
        known, self._states = self._states, {}
        states = []
        for request, row in zip(requests.tolist(), history, strict=True):
            grammar, state = self._grammars[request], None
            if grammar is None:
                states.append(State())
                continue
            before = known.get((request, row[:-1].tobytes()))
            if before is None:  # the first step, or a step after a forced token
                state = reduce(grammar.follow, row.tolist(), State())
            else:
                state = grammar.follow(before, int(row[-1]))
            self._states[request, row.tobytes()] = state
            states.append(state)
        return states


def _without(mask: Mask, tokens: Ids) -> Mask:
    """Removes tokens from a mask, unless the mask would be empty."""
    tokens = tokens[tokens < len(mask)]
    if not tokens.size:
        return mask
    rest = mask.copy()
    rest[tokens] = False
    return rest if rest.any() else mask


def _best_of_mask(values: Floats, mask: Mask, k: int) -> Ids:
    """Finds the ``k`` tokens with the highest values, float32 [V], in a mask, bool [V]."""
    allowed = np.flatnonzero(mask)
    return allowed[best_ids(values[None, allowed], k)[0]] if allowed.size else allowed
