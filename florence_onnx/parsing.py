"""Parsing of generated text into results, as in Florence2PostProcessor of transformers."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt

from florence_onnx import locating
from florence_onnx.errors import InputError
from florence_onnx.locating import Located, Span
from florence_onnx.locations import check_image_size, to_pixels
from florence_onnx.prompts import what_is_asked
from florence_onnx.results import (
    Box,
    Detection,
    DetectionScores,
    Outline,
    Quad,
    Result,
    Token,
    mean_probability,
)
from florence_onnx.tasks import AnswerKind, Task

_SPECIAL_TOKENS = ("<s>", "</s>", "<pad>")

_Finder = Callable[[str], Iterable[Located]]

_FINDERS: dict[AnswerKind, _Finder] = {
    AnswerKind.TEXT: lambda text: (),
    AnswerKind.BOXES: locating.labelled_boxes,
    AnswerKind.PROPOSALS: locating.proposals,
    AnswerKind.GROUNDING: locating.grounded_boxes,
    AnswerKind.POLYGONS: locating.polygons,
    AnswerKind.QUADRILATERALS: locating.quadrilaterals,
}


def parse_answer(
    text: str,
    task: Task | str | None,
    image_size: tuple[int, int],
    *,
    prompt: str | None = None,
    answer: AnswerKind | str | None = None,
    token_ids: Sequence[int] = (),
    token_spans: Sequence[Span] = (),
    log_probabilities: Sequence[float | None] = (),
    score: float | None = None,
    truncated: bool = False,
) -> Result:
    """Reads a generated text by the answer kind of the task.

    Unreadable parts are left out, as in the reference. Two things differ from the reference.
    ``<pad>`` is removed from text too. Labels of boxes keep non-ASCII letters, and the corners of
    boxes are put in order; ``Result.to_dict`` has labels and corners as in the reference.

    Args:
        text: The generated text, with or without special tokens.
        task: The task that was asked; None with ``prompt``.
        image_size: (width, height) of the picture in pixels.
        prompt: The prompt of a fine-tune that was asked instead of a task.
        answer: Kind of the answer to a prompt, as in ``Request``.
        token_ids: The generated ids, for the result to carry.
        token_spans: Start and end in ``text``, in characters, of every token, from
            ``Tokenizer.spans``; without spans, detections have no tokens.
        log_probabilities: Log-probabilities of the tokens, None for tokens that were not chosen.
            Without these or without ``token_spans``, detections have no scores.
        score: The score of the sequence, for the result to carry.
        truncated: Whether the limit of the length ended the text, for the result to carry.

    Raises:
        InputError: The text is no string, or there are not as many spans as ids, or not as many
            log-probabilities as spans.
        TaskError: The task is unknown, or the task, prompt and answer do not go together.
        ImageError: The size is not two whole numbers above zero.
    """
    if not isinstance(text, str):
        raise InputError(f"text must be the generated text, a str, not {type(text).__name__}")
    if token_spans:
        _check_length("token_spans", token_spans, "token_ids", token_ids)
        if log_probabilities:
            _check_length("log_probabilities", log_probabilities, "token_spans", token_spans)
    asked, kind = what_is_asked(task, prompt, answer)
    return read_answer(
        text,
        asked,
        kind,
        check_image_size(image_size),
        token_ids=token_ids,
        token_spans=token_spans,
        log_probabilities=log_probabilities,
        score=score,
        truncated=truncated,
    )


def _check_length(name: str, given: Sequence[object], other: str, others: Sequence[object]) -> None:
    if len(given) != len(others):
        raise InputError(f"{name} has {len(given)} items, {other} {len(others)}; give one for each")


def read_answer(
    text: str,
    asked: Task | str,
    kind: AnswerKind,
    size: tuple[int, int],
    *,
    token_ids: Sequence[int],
    token_spans: Sequence[Span],
    log_probabilities: Sequence[float | None],
    score: float | None,
    truncated: bool,
) -> Result:
    """Does the work of `parse_answer`, for a result of `what_is_asked`."""
    clean, places = _without_special_tokens(text)
    spans = _TokensOfSpans(places, token_spans)
    known = log_probabilities or [None] * len(token_spans)
    tokens = tuple(
        Token(int(token), text[slice(*span)], span, value)
        for token, span, value in zip(token_ids, token_spans, known, strict=bool(token_spans))
    )
    detections = _detections(text, clean, kind, size, spans)
    return Result(
        task=str(asked),
        answer_kind=kind,
        generated=text,
        text=clean.strip(),
        detections=tuple(replace(found, scores=scores_of(found, known)) for found in detections),
        token_ids=tuple(token_ids),
        score=score,
        image_size=size,
        tokens=tokens,
        truncated=truncated,
    )


def scores_of(found: Detection, known: Sequence[float | None]) -> DetectionScores | None:
    """Computes the scores of a detection; None without log-probabilities of the coordinates.

    Args:
        found: The detection, with the places of its tokens.
        known: Log-probability of every token, None for tokens that were not chosen.
    """
    location = mean_probability(known[i] for i in found.location_tokens)
    if location is None:
        return None
    label = mean_probability(known[i] for i in found.label_tokens)
    return DetectionScores(
        location=location, label=label, score=location if label is None else label
    )


def _detections(
    text: str, clean: str, kind: AnswerKind, size: tuple[int, int], tokens: "_TokensOfSpans"
) -> Iterator[Detection]:
    # As in the reference, the tag is looked up in the generated text.
    outlined = kind is AnswerKind.POLYGONS or (
        kind is AnswerKind.BOXES_OR_POLYGONS and locating.OPEN in text
    )
    find: _Finder
    if kind is AnswerKind.BOXES_OR_POLYGONS:
        find = locating.labelled_polygons if outlined else locating.labelled_boxes
    else:
        find = _FINDERS[kind]
    for found in find(clean):
        outlines = tuple(to_pixels(bins, size) for bins in found.bins())
        is_quad = kind is AnswerKind.QUADRILATERALS
        box = _box_around(outlines)
        given = box if outlined or is_quad else cast(Box, outlines[0])
        yield Detection(
            label=found.label,
            box=box,
            reversed_box=None if given == box else given,
            quad=cast(Quad, outlines[0]) if is_quad else None,
            polygons=outlines if outlined else None,
            label_tokens=tokens.of([found.label_span]),
            location_tokens=tokens.of(token.span() for line in found.outlines for token in line),
        )


def _box_around(outlines: Iterable[Outline]) -> Box:
    points = [value for outline in outlines for value in outline]
    if not points:
        return 0.0, 0.0, 0.0, 0.0
    xs, ys = points[0::2], points[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _without_special_tokens(text: str) -> tuple[str, npt.NDArray[np.intp]]:
    """Removes special tokens; also returns the place in ``text`` of each remaining character."""
    places = np.arange(len(text))
    for token in _SPECIAL_TOKENS:
        starts = [found.start() for found in re.finditer(token, text)]
        if starts:
            removed = np.array(starts)[:, None] + np.arange(len(token))
            places = np.delete(places, removed.ravel())
            text = text.replace(token, "")
    return text, places


class _TokensOfSpans:
    """Search for the generated tokens that spell a part of the text without special tokens."""

    def __init__(self, places: npt.NDArray[np.intp], token_spans: Sequence[Span]) -> None:
        self._places = places
        self._starts = [start for start, _ in token_spans]
        self._ends = [end for _, end in token_spans]

    def of(self, spans: Iterable[Span]) -> tuple[int, ...]:
        """Indices of all tokens with a character within one of the spans, ascending."""
        if not self._starts:
            return ()
        indices: set[int] = set()
        for start, end in spans:
            if start < end:
                first, last = self._places[start], self._places[end - 1]
                indices.update(
                    range(bisect_right(self._ends, first), bisect_right(self._starts, last))
                )
        return tuple(sorted(indices))
