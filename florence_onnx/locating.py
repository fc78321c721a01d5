"""The things that a generated text locates, as transformers Florence2PostProcessor finds them.

The reference finds its phrases with regular expressions that need quadratic time on hostile text.
Here one pass collects the tokens, and plain loops decide; what comes out is the same, oddities of
malformed text included. ``tests/export/test_parsing_reference.py`` compares the two.
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
"""Start and end in a text, in characters."""
Tokens = Sequence[re.Match[str]]
"""Location tokens, and for polygons the three others, as they were found in a text."""


@dataclass(frozen=True)
class Located:
    """A label and the places it names."""

    label: str
    """The words without space around; empty where places have no words."""
    label_span: Span
    """Place of the label in the text."""
    outlines: tuple[Tokens, ...]
    """The location tokens x, y, x, y, ... of every outline; boxes and quadrilaterals have one."""

    def bins(self) -> tuple[tuple[int, ...], ...]:
        """The bins of every outline."""
        return tuple(tuple(map(_bin, outline)) for outline in self.outlines)


def labelled_boxes(text: str) -> Iterator[Located]:
    """Words and the boxes behind them."""
    for words, tokens in _phrases(text, _LOCATION):
        label = _label(text, words)
        if label is not None:
            for start in range(0, len(tokens) - 3, 4):
                yield Located(*label, (tokens[start : start + 4],))


def grounded_boxes(text: str) -> Iterator[Located]:
    """Words and the boxes behind them, without words that name nothing."""
    return (found for found in labelled_boxes(text) if found.label not in UNGROUNDED_WORDS)


def proposals(text: str) -> Iterator[Located]:
    """Boxes; words are skipped."""
    for run in _runs(text, _LOCATION):
        for start in range(0, len(run) - 3, 4):
            box = run[start : start + 4]
            yield Located("", (box[0].start(),) * 2, (box,))


def quadrilaterals(text: str) -> Iterator[Located]:
    """Per line, at least one character and the eight locations behind it."""
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
    """Outlined things; words are skipped."""
    for run in _runs(text, _POLYGON_TOKEN):
        if len(run) >= _SHORTEST_RUN:
            yield from _polygons(text, (run[0].start(),) * 2, run)


def labelled_polygons(text: str) -> Iterator[Located]:
    """Words and the outlines behind them."""
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
    """The words and, as the reference has it, any tokens before the first location or <poly>.

    None if there is neither, not counting a location with which the whole phrase starts.
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
    """The stretches of tokens that follow each other with nothing between them."""
    run: list[re.Match[str]] = []
    for match in token.finditer(text, start, len(text) if end is None else end):
        if run and match.start() != run[-1].end():
            yield run
            run = []
        run.append(match)
    if run:
        yield run


def _phrases(text: str, token: re.Pattern[str]) -> Iterator[tuple[Span, Tokens]]:
    """Words and the four or more tokens behind them: the reference's ``[^<]+(token){4,}``."""
    taken = 0
    for run in _runs(text, token):
        end = run[0].start()
        words = (max(taken, text.rfind("<", taken, end) + 1), end)
        tokens: Tokens = run
        if words[0] == words[1]:
            # Then "loc_1>" of the first token are the words: they hold no "<".
            words, tokens = (run[0].start() + 1, run[0].end()), run[1:]
        if len(tokens) >= _SHORTEST_RUN:
            taken = run[-1].end()
            yield words, tokens


def _label(text: str, words: Span) -> tuple[str, Span] | None:
    """The words without space around; None if they go over a line, which the reference drops."""
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
    """Texts between each <poly> and the next </poly>; the whole text if there is no such pair."""
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
    """Runs of locations, each ended by a <sep> or by the end, in whole points."""
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
