"""Grammar of an answer over token ids: the tokens that may follow a sequence.

Answers are groups of location tokens, behind labels for most tasks::

    boxes, grounding        (label (x y x y)+)*
    proposals               (x y x y)*
    quadrilaterals          (label x y x y x y x y)*
    polygons                outline (<sep> outline)*; each such list in <poly> </poly>, or none
    boxes or polygons       as boxes, or (label (<poly> outline (<sep> outline)* </poly>)+)*

where an outline has three points or more. In tasks without labels, any text may come between
groups. An answer may end after a complete group. A group begins only where the limit of the length
has room for the whole group. If the best token lacks room, the answer ends: the next best token
would begin a group that the model did not mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from florence_onnx.generation.labels import LabelTrie
from florence_onnx.tasks import AnswerKind
from florence_onnx.token_kinds import Kind, Kinds

Mask = npt.NDArray[np.bool_]
"""Tokens that may follow, bool [V]."""


class State(NamedTuple):
    """State of a sequence, which decides the tokens that may follow."""

    run: int = 0
    """Location tokens since the last token of another kind."""
    is_due: bool = False
    """Tells whether a location token must come."""
    has_label: bool = False
    """Tells whether letters have come since the last location token."""
    text: int = 0
    """Tokens of text since the last location token."""
    node: int = 0
    """Node of the text in the tree of known labels; 0 before a label."""
    is_open: bool = False
    """Tells whether a ``<poly>`` is open."""
    has_tags: bool = False
    """Tells whether there has been a ``<poly>``."""
    places: int = 0
    """Number of complete groups so far."""


class Groups(NamedTuple):
    """Group of location tokens of one kind of answer."""

    least: int
    """Tokens of a group."""
    step: int
    """Number of tokens by which a group grows, or after which another group may follow."""
    most: int
    """Largest number of location tokens in a row."""
    needs_label: bool
    """Tells whether a label comes before the group."""


_ANY = 1 << 30
_AMPLE = 9
"""Room for the longest group, with a tag or an end."""
_BOXES = Groups(4, 4, _ANY, needs_label=True)
_OUTLINES = Groups(6, 2, _ANY, needs_label=False)
_GROUPS = {
    AnswerKind.BOXES: _BOXES,
    AnswerKind.GROUNDING: _BOXES,
    AnswerKind.BOXES_OR_POLYGONS: _BOXES,
    AnswerKind.PROPOSALS: Groups(4, 4, _ANY, needs_label=False),
    AnswerKind.QUADRILATERALS: Groups(8, 8, 8, needs_label=True),
    AnswerKind.POLYGONS: _OUTLINES,
}
_LISTS = {AnswerKind.BOXES: 12, AnswerKind.BOXES_OR_POLYGONS: 12, AnswerKind.PROPOSALS: 0}
"""Kinds of lists of boxes -> longest label in tokens where the end of a list is held back: a model
that has no more things to list would otherwise write text without an end."""
_TAGS = {Kind.OPEN, Kind.SEPARATOR, Kind.CLOSE}


def has_grammar(kind: AnswerKind) -> bool:
    """Tells whether answers of this kind have location tokens."""
    return kind in _GROUPS


def has_labels(kind: AnswerKind) -> bool:
    """Tells whether answers of this kind name things, so that ``labels`` has a meaning."""
    return _GROUPS.get(kind) is _BOXES


def is_list(kind: AnswerKind) -> bool:
    """Tells whether answers of this kind list boxes, so that ``recall`` has a meaning."""
    return kind in _LISTS


def longest_text(kind: AnswerKind) -> int:
    """Limit of the tokens of text between locations, where the end of a list is held back."""
    return _LISTS[kind]


@dataclass(frozen=True, eq=False)
class Grammar:
    """Grammar of one request."""

    kind: AnswerKind
    """Kind of the answer, for which `has_grammar` is true."""
    kinds: Kinds
    """Kind of every token, ends included."""
    labels: LabelTrie | None = None
    """Labels that may be used; None for any text."""
    longest_text: int | None = None
    """Limit of the tokens of text, after which locations must come; None sets no limit."""
    sets: dict[tuple[Kind, ...], Mask] = field(default_factory=dict, repr=False)
    """Cache of masks, which grammars over the same ``kinds`` may share."""

    def follow(self, state: State, token: int) -> State:
        """Computes the state after one more token."""
        kind = Kind(self.kinds[token])
        if kind in (Kind.UNSEEN, Kind.END):
            return state
        if kind is Kind.LOCATION:
            return self._located(state)
        if kind in _TAGS and self._may_be_outlined:
            return State(
                is_due=kind is not Kind.CLOSE,
                is_open=kind is Kind.OPEN or (kind is Kind.SEPARATOR and state.is_open),
                has_tags=state.has_tags or kind is not Kind.SEPARATOR,
                places=state.places,
            )
        is_seen = kind in (Kind.WORD, Kind.MARK)
        has_label = is_seen or (state.has_label and kind is not Kind.LINE)
        node = 0 if self.labels is None else self.labels.follow(state.node, token)
        text = state.text + 1
        return state._replace(run=0, is_due=False, has_label=has_label, node=node, text=text)

    def allowed(self, state: State, room: int) -> Mask:
        """Finds the tokens that may follow. The result must not be written to.

        Args:
            state: State after the tokens so far.
            room: Number of tokens that may still be chosen, at least 1.
        """
        if state.is_due:
            return self._set(Kind.LOCATION)
        locations = [Kind.LOCATION] if self._may_locate(state, room) else []
        if state.is_open:
            has_room = room >= 2 + _OUTLINES.least
            return self._set(*locations, Kind.CLOSE, *([Kind.SEPARATOR] if has_room else []))
        others = [*locations, *self._tags(state, room)]
        if self.labels is None:
            return self._with_any_text(state, room, others)
        return self._with_labels(self.labels, state, room, others)

    def beyond(self, state: State, room: int) -> Mask | None:
        """Finds the tokens that only lack room, of `allowed`; None if all tokens have room."""
        if room >= _AMPLE + (0 if self.labels is None else self.labels.longest):
            return None
        allowed, anyhow = self.allowed(state, room), self.allowed(state, _ANY)
        if anyhow is allowed:
            return None
        lacking = anyhow & ~allowed
        return lacking if lacking.any() else None

    def is_cut_short(self, token_ids: Sequence[int], most: int) -> bool:
        """Tells whether the limit of the length forbade tokens where a sequence ended.

        Args:
            token_ids: The sequence, from the start token to the end token.
            most: Limit of the tokens after the start token.
        """
        state = reduce(self.follow, token_ids[:-1], State())
        allowed = self.allowed(state, most - len(token_ids) + 2)
        return not np.array_equal(allowed, self.allowed(state, _ANY))

    @property
    def _may_be_outlined(self) -> bool:
        return self.kind in (AnswerKind.POLYGONS, AnswerKind.BOXES_OR_POLYGONS)

    def _groups(self, state: State) -> Groups:
        return _OUTLINES if state.is_open else _GROUPS[self.kind]

    def _located(self, state: State) -> State:
        groups, run = self._groups(state), state.run + 1
        is_due = run < groups.least or run % groups.step != 0
        # An outline of any length is one place.
        is_place = not is_due and (groups is not _OUTLINES or run == groups.least)
        places = state.places + is_place
        return State(run, is_due, has_tags=state.has_tags, is_open=state.is_open, places=places)

    def _may_locate(self, state: State, room: int) -> bool:
        groups = self._groups(state)
        needed = groups.step if state.run else groups.least
        if room < needed + state.is_open or state.run + needed > groups.most:
            return False
        if state.run or state.is_open:
            return True
        # Locations beside <poly> would be lost.
        return not state.has_tags and self._is_named(state)

    def _is_named(self, state: State) -> bool:
        if self.labels is not None:
            return self.labels.is_whole(state.node)
        return state.has_label or not self._groups(state).needs_label

    def _tags(self, state: State, room: int) -> list[Kind]:
        """Kinds of tokens that begin or separate outlines."""
        if not self._may_be_outlined:
            return []
        if self.kind is AnswerKind.POLYGONS and state.run:
            return [Kind.SEPARATOR] if room >= 1 + _OUTLINES.least else []
        goes_on = state.has_tags and not state.has_label and state.node == 0
        is_first = state.has_tags or state.places == 0
        has_room = room >= 2 + _OUTLINES.least
        return [Kind.OPEN] if has_room and is_first and (goes_on or self._is_named(state)) else []

    def _text(self) -> list[Kind]:
        """Kinds of tokens between groups; for labels of boxes, no kind that ends a label early."""
        text = [Kind.UNSEEN, Kind.BLANK, Kind.WORD]
        return text if has_labels(self.kind) else [*text, Kind.LINE, Kind.MARK]

    def _with_any_text(self, state: State, room: int, others: list[Kind]) -> Mask:
        """Allows text and the given kinds; text has a limit where the end is held back."""
        longest, groups = self.longest_text, _GROUPS[self.kind]
        if longest is not None and not state.text and room < groups.least + groups.needs_label:
            # Otherwise text without a place would fill the rest.
            return self._set(*others, Kind.END)
        if longest is not None and state.text >= longest and others:
            return self._set(*others, *([] if state.text else [Kind.END]))
        return self._set(*others, *self._text(), Kind.END)

    def _with_labels(self, labels: LabelTrie, state: State, room: int, others: list[Kind]) -> Mask:
        """Allows the tokens that continue a known label, and the given kinds."""
        needed = 2 + _OUTLINES.least if state.has_tags else _BOXES.least
        following = labels.children(state.node, room - needed)
        is_between = state.node == 0
        if is_between or not (others or following.size):
            others.append(Kind.END)
        # Released models begin with <s> more than once; without an end, nothing else would come.
        if is_between and state.places == 0 and self.longest_text is None:
            others.append(Kind.UNSEEN)
        mask = self._set(*others)
        if following.size:
            mask = mask.copy()
            mask[following] = True
        return mask

    def _set(self, *kinds: Kind) -> Mask:
        if kinds not in self.sets:
            self.sets[kinds] = np.isin(self.kinds, kinds)
        return self.sets[kinds]
