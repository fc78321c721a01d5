"""Generated text to results, as transformers Florence2PostProcessor reads it.

The reference finds its phrases with regular expressions that need quadratic time on hostile text.
Here one pass collects the tokens, and plain loops decide; what comes out is the same, oddities of
malformed text included. ``tests/export/test_parsing_reference.py`` compares the two.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any

from florence_onnx.locations import check_image_size, to_pixels
from florence_onnx.results import (
    BoxesOrPolygonsResult,
    BoxesResult,
    PolygonsResult,
    QuadBoxesResult,
    Result,
    TextResult,
)
from florence_onnx.tasks import AnswerKind, Task, resolve_task

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

_SEPARATOR, _OPEN, _CLOSE = "<sep>", "<poly>", "</poly>"
# No vocabulary has more than three digits; the bound keeps endless digits from becoming numbers.
_LOCATION = re.compile(r"<loc_\d{1,9}>")
_POLYGON_TOKEN = re.compile(rf"{_LOCATION.pattern}|{_SEPARATOR}|{_OPEN}|{_CLOSE}")
_SHORTEST_RUN = 4
_QUAD = 8


def parse_answer(
    text: str,
    task: Task | str,
    image_size: tuple[int, int],
    *,
    token_ids: Sequence[int] = (),
    score: float | None = None,
) -> Result:
    """Reads a generated text the way its task is to be read.

    Malformed text is no error: what cannot be read is left out, as in the reference. Two things
    differ from it: ``<pad>`` is removed from text answers too, and the labels of boxes keep their
    non-ASCII letters, which only ``Result.to_dict`` drops.

    Args:
        text: the generated text, special tokens included or not.
        task: the task that was asked, or the prompt given in its place, whose answer is text.
        image_size: (width, height) of the picture in pixels.
        token_ids: the generated ids, for the result to carry.
        score: the sequence's score, for the result to carry.

    Returns:
        The result class of the task's answer kind.

    Raises:
        TaskError: if the task is unknown.
        ImageError: if the size is not two whole numbers above zero.
    """
    task = resolve_task(task)
    size = check_image_size(image_size)
    kind = task.answer_kind if isinstance(task, Task) else AnswerKind.TEXT
    common: dict[str, Any] = {
        "task": str(task),
        "text": text,
        "token_ids": tuple(token_ids),
        "score": score,
        "image_size": size,
    }
    clean = text.replace("<s>", "").replace("</s>", "").replace("<pad>", "")
    if kind is AnswerKind.TEXT:
        return TextResult(**common, answer=clean.strip())
    if kind is AnswerKind.QUAD_BOXES:
        labels, quads = _columns(_quad_boxes(clean), size)
        return QuadBoxesResult(**common, quad_boxes=quads, labels=labels)
    if kind is AnswerKind.POLYGONS:
        labels, polygons = _polygon_columns(polygon_instances(clean, labelled=False), size)
        return PolygonsResult(**common, polygons=polygons, labels=labels)
    if kind is AnswerKind.BOXES_OR_POLYGONS:
        # Looked up in the text as generated, which is where the reference looks.
        outlined = _OPEN in text
        box_labels, boxes = _columns([] if outlined else _labelled_boxes(clean), size)
        polygon_labels, polygons = _polygon_columns(
            polygon_instances(clean, labelled=True) if outlined else [], size
        )
        return BoxesOrPolygonsResult(
            **common,
            boxes=boxes,
            box_labels=box_labels,
            polygons=polygons,
            polygon_labels=polygon_labels,
        )
    labels, boxes = _columns(_boxes_of_kind(kind, clean), size)
    return BoxesResult(**common, boxes=boxes, labels=labels)


def polygon_instances(text: str, labelled: bool) -> Iterator[tuple[str, list[list[int]]]]:
    """Things outlined in a text without special tokens: label, and bins per outline.

    Args:
        text: generated text without special tokens.
        labelled: whether things are words followed by their outlines, else text is skipped.
    """
    if labelled:
        phrases = _phrases(text, _POLYGON_TOKEN)
    else:
        phrases = (
            ("", tokens)
            for tokens in map(_texts, _runs(text, _POLYGON_TOKEN))
            if len(tokens) >= _SHORTEST_RUN
        )
    for words, tokens in phrases:
        label = _polygon_label(words, tokens)
        if label is None:
            continue
        for instance in _instances(tokens):
            outlines = _outlines(instance)
            if outlines:
                yield label, outlines


def _polygon_label(words: str, tokens: list[str]) -> str | None:
    """The words and, as the reference has it, any tokens before the first location or <poly>.

    None if there is neither, not counting a location with which the whole phrase starts.
    """
    if not words and tokens[0].startswith("<loc_"):
        tokens = tokens[1:]
    leading = list(takewhile(lambda token: token in (_SEPARATOR, _CLOSE), tokens))
    return _label(words + "".join(leading)) if len(leading) < len(tokens) else None


def _runs(text: str, token: re.Pattern[str]) -> Iterator[list[re.Match[str]]]:
    """The stretches of tokens that follow each other with nothing between them."""
    run: list[re.Match[str]] = []
    for match in token.finditer(text):
        if run and match.start() != run[-1].end():
            yield run
            run = []
        run.append(match)
    if run:
        yield run


def _texts(run: Iterable[re.Match[str]]) -> list[str]:
    return [match.group() for match in run]


def _phrases(text: str, token: re.Pattern[str]) -> Iterator[tuple[str, list[str]]]:
    """Words and the four or more tokens behind them: the reference's ``[^<]+(token){4,}``."""
    taken = 0
    for run in _runs(text, token):
        start = run[0].start()
        words = text[max(taken, text.rfind("<", taken, start) + 1) : start]
        tokens = _texts(run)
        if not words:
            # Then "loc_1>" of the first token are the words: they hold no "<".
            words, tokens = tokens[0][1:], tokens[1:]
        if len(tokens) >= _SHORTEST_RUN:
            taken = run[-1].end()
            yield words, tokens


def _label(words: str) -> str | None:
    """The words without space around; None if they go over a line, which the reference drops."""
    return None if "\n" in words.lstrip() else words.strip()


def _bin(token: str) -> int:
    return int(token[len("<loc_") : -1])


def _boxes(tokens: list[str]) -> Iterator[list[int]]:
    for start in range(0, len(tokens) - 3, 4):
        yield [_bin(token) for token in tokens[start : start + 4]]


def _proposals(text: str) -> Iterator[tuple[str, list[int]]]:
    for run in _runs(text, _LOCATION):
        for box in _boxes(_texts(run)):
            yield "", box


def _labelled_boxes(text: str) -> Iterator[tuple[str, list[int]]]:
    for words, tokens in _phrases(text, _LOCATION):
        label = _label(words)
        if label is not None:
            for box in _boxes(tokens):
                yield label, box


def _boxes_of_kind(kind: AnswerKind, text: str) -> Iterable[tuple[str, list[int]]]:
    if kind is AnswerKind.PROPOSALS:
        return _proposals(text)
    found = _labelled_boxes(text)
    if kind is AnswerKind.GROUNDING:
        return (pair for pair in found if pair[0] not in UNGROUNDED_WORDS)
    return found


def _quad_boxes(text: str) -> Iterator[tuple[str, list[int]]]:
    """Per line, at least one character and the eight locations behind it."""
    for line in text.split("\n"):
        taken = 0
        for run in _runs(line, _LOCATION):
            index = 0
            while index + _QUAD <= len(run):
                start = run[index].start()
                if start == taken:
                    # Without words, the reference reads the first location as the words.
                    index += 1
                    continue
                quad = run[index : index + _QUAD]
                yield line[taken:start].strip(), [_bin(token) for token in _texts(quad)]
                taken = quad[-1].end()
                index += _QUAD


def _instances(tokens: list[str]) -> list[list[str]]:
    """What stands between each <poly> and the next </poly>; everything if there is no such pair."""
    if _OPEN not in tokens or _CLOSE not in tokens:
        return [tokens]
    instances = []
    inside: list[str] | None = None
    for token in tokens:
        if inside is None:
            inside = [] if token == _OPEN else None
        elif token == _CLOSE:
            instances.append(inside)
            inside = None
        else:
            inside.append(token)
    return instances


def _outlines(tokens: list[str]) -> list[list[int]]:
    """The bins of each run of locations that ends at a <sep> or at the end, in whole points."""
    outlines = []
    bins: list[int] = []
    for token in (*tokens, _SEPARATOR):
        if token.startswith("<loc_"):
            bins.append(_bin(token))
            continue
        if bins and token == _SEPARATOR:
            outlines.append(bins[: len(bins) // 2 * 2])
        bins = []
    return outlines


def _columns(
    found: Iterable[tuple[str, list[int]]], size: tuple[int, int]
) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    pairs = list(found)
    return tuple(label for label, _ in pairs), tuple(to_pixels(bins, size) for _, bins in pairs)


def _polygon_columns(
    found: Iterable[tuple[str, list[list[int]]]], size: tuple[int, int]
) -> tuple[tuple[str, ...], tuple[tuple[tuple[float, ...], ...], ...]]:
    pairs = list(found)
    return (
        tuple(label for label, _ in pairs),
        tuple(tuple(to_pixels(bins, size) for bins in outlines) for _, outlines in pairs),
    )
