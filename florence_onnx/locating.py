"""Search for located things in a generated text, equal to transformers' Florence2PostProcessor.

The reference finds phrases with regular expressions that need quadratic time on hostile text. Here
one pass collects the tokens, and plain loops decide. The results are the same, also for malformed
text. ``tests/export/test_parsing_reference.py`` compares the two.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

UNGROUNDED_WORDS = frozenset(
    re.split(
        r",\s+",
        """it, I, me, mine, you, your, yours, he, him, his, she, her, hers, they, them, their,
        theirs, one, oneself, we, us, our, ours, its, myself, yourself, himself, herself, itself,
        ourselves, yourselves, themselves, this, that, these, those, who, whom, whose, which, what,
        all, another, any, anybody, anyone, anything, each, everybody, everyone, everything, few,
        many, nobody, none, several, some, somebody, someone, something, each other, one another,
        the image, image, images, the, a, an, a group, other objects, lots, a set""",
    )
)
"""Phrases that grounding ignores (the released processor's ``banned_grounding_tokens``)."""

OPEN = "<poly>"
SEPARATOR, CLOSE = "<sep>", "</poly>"
# No vocabulary has more than three digits; the bound keeps endless digits from becoming numbers.
_LOCATION = re.compile(r"<loc_\d{1,9}>")
_POLYGON_TOKEN = re.compile(rf"{_LOCATION.pattern}|{SEPARATOR}|{OPEN}|{CLOSE}")
_SHORTEST_RUN = 4
_QUAD = 8

Span = tuple[int, int]
"""Start and end of a part of a text, in characters."""
Tokens = Sequence[re.Match[str]]
"""Places of location tokens in a text; for polygons also of the three separator tokens."""


@dataclass(frozen=True)
class Located:
    """Label and the places behind the label."""

    label: str
    """Words without space around; empty where places have no words."""
    label_span: Span
    """Place of the label in the text."""
    outlines: tuple[Tokens, ...]
    """Location tokens x, y, x, y, ... of every outline; a box or quadrilateral has one outline."""

    def bins(self) -> tuple[tuple[int, ...], ...]:
        """Bins of every outline."""
        return tuple(tuple(map(_bin, outline)) for outline in self.outlines)


def labelled_boxes(text: str) -> Iterator[Located]:
    """Finds words with the boxes behind."""
    for words, tokens in _phrases(text, _LOCATION):
        label = _label(text, words)
        if label is not None:
            for start in range(0, len(tokens) - 3, 4):
                yield Located(*label, (tokens[start : start + 4],))


def grounded_boxes(text: str) -> Iterator[Located]:
    """Finds words with the boxes behind, without words that name nothing."""
    return (found for found in labelled_boxes(text) if found.label not in UNGROUNDED_WORDS)


def proposals(text: str) -> Iterator[Located]:
    """Finds boxes; words are skipped."""
    for run in _runs(text, _LOCATION):
        for start in range(0, len(run) - 3, 4):
            box = run[start : start + 4]
            yield Located("", (box[0].start(),) * 2, (box,))


def quadrilaterals(text: str) -> Iterator[Located]:
    """Finds, per line, at least one character with eight locations behind."""
    for line in re.finditer(r"[^\n]+", text):
        taken = line.start()
        for run in _runs(text, _LOCATION, *line.span()):
            index = 0
            while index + _QUAD <= len(run):
                start = run[index].start()
                if start == taken:
                    # Without words, the reference reads the first location as the words.
                    index += 1
                    continue
                quad = run[index : index + _QUAD]
                yield Located(*_stripped(text, (taken, start)), (quad,))
                taken = quad[-1].end()
                index += _QUAD


def polygons(text: str) -> Iterator[Located]:
    """Finds outlined things; words are skipped."""
    for run in _runs(text, _POLYGON_TOKEN):
        if len(run) >= _SHORTEST_RUN:
            yield from _polygons(text, (run[0].start(),) * 2, run)


def labelled_polygons(text: str) -> Iterator[Located]:
    """Finds words with the outlines behind."""
    for words, tokens in _phrases(text, _POLYGON_TOKEN):
        yield from _polygons(text, words, tokens)


def _polygons(text: str, words: Span, tokens: Tokens) -> Iterator[Located]:
    label = _polygon_label(text, words, tokens)
    if label is not None:
        for instance in _instances(tokens):
            outlines = _outlines(instance)
            if outlines:
                yield Located(*label, outlines)


def _polygon_label(text: str, words: Span, tokens: Tokens) -> tuple[str, Span] | None:
    """Finds the words and, as in the reference, any tokens before the first location or <poly>.

    The result is None without words and tokens. A location at the start of the phrase is not
    counted.
    """
    start, end = words
    if start == end and _is_location(tokens[0]):
        tokens = tokens[1:]
        start = end = tokens[0].start()
    leading = list(takewhile(lambda token: token.group() in (SEPARATOR, CLOSE), tokens))
    if len(leading) == len(tokens):
        return None
    return _label(text, (start, leading[-1].end() if leading else end))


def _runs(
    text: str, token: re.Pattern[str], start: int = 0, end: int | None = None
) -> Iterator[list[re.Match[str]]]:
    """Finds runs of tokens that follow each other with nothing between."""
    run: list[re.Match[str]] = []
    for match in token.finditer(text, start, len(text) if end is None else end):
        if run and match.start() != run[-1].end():
            yield run
            run = []
        run.append(match)
    if run:
        yield run


def _phrases(text: str, token: re.Pattern[str]) -> Iterator[tuple[Span, Tokens]]:
    """Finds words with four or more tokens behind: the reference's ``[^<]+(token){4,}``."""
    taken = 0
    for run in _runs(text, token):
        end = run[0].start()
        words = (max(taken, text.rfind("<", taken, end) + 1), end)
        tokens: Tokens = run
        if words[0] == words[1]:
            # Then "loc_1>" of the first token counts as words, because it has no "<".
            words, tokens = (run[0].start() + 1, run[0].end()), run[1:]
        if len(tokens) >= _SHORTEST_RUN:
            taken = run[-1].end()
            yield words, tokens


def _label(text: str, words: Span) -> tuple[str, Span] | None:
    """Strips the words; None for words with a line break, which the reference drops."""
    label, span = _stripped(text, words)
    return None if "\n" in text[span[0] : words[1]] else (label, span)


def _stripped(text: str, words: Span) -> tuple[str, Span]:
    start, end = words
    label = text[start:end].lstrip()
    start = end - len(label)
    label = label.rstrip()
    return label, (start, start + len(label))


def _is_location(token: re.Match[str]) -> bool:
    return token.group().startswith("<loc_")


def _bin(token: re.Match[str]) -> int:
    return int(token.group()[len("<loc_") : -1])


def _instances(tokens: Tokens) -> list[Tokens]:
    """Finds the texts between <poly> and the next </poly>; the whole text without such a pair."""
    kinds = {token.group() for token in tokens}
    if not {OPEN, CLOSE} <= kinds:
        return [tokens]
    instances: list[Tokens] = []
    inside: list[re.Match[str]] | None = None
    for token in tokens:
        if inside is None:
            inside = [] if token.group() == OPEN else None
        elif token.group() == CLOSE:
            instances.append(inside)
            inside = None
        else:
            inside.append(token)
    return instances


def _outlines(tokens: Tokens) -> tuple[Tokens, ...]:
    """Finds runs of locations, each ended by a <sep> or by the end, in whole points."""
    outlines: list[Tokens] = []
    run: list[re.Match[str]] = []
    for token in (*tokens, None):
        if token is not None and _is_location(token):
            run.append(token)
            continue
        if run and (token is None or token.group() == SEPARATOR):
            outlines.append(run[: len(run) // 2 * 2])
        run = []
    return tuple(outlines)
