"""Metrics: comparisons of generated texts with the ground truth of scenes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from florence_onnx.parsing import parse_answer
from florence_onnx.tasks import AnswerKind
from florence_onnx_export.scenes.answers import Question
from florence_onnx_export.scenes.scene import Scene, Shape

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Answered:
    """Question about a scene, with the answer of a model."""

    scene: Scene
    """Scene that was drawn."""
    question: Question
    """Question about the scene."""
    text: str
    """Generated text, with location and special tokens."""


def plain_text(answer: Answered) -> str:
    """Generated text without special tokens."""
    return plain(answer.text)


def plain(text: str) -> str:
    """Removes the special tokens from a generated text."""
    for token in ("<s>", "</s>", "<pad>"):
        text = text.replace(token, "")
    return text.strip()


def exact_share(answers: Sequence[Answered]) -> float:
    """Share of answers with exactly the right text."""
    return float(np.mean([plain_text(answer) == answer.question.answer for answer in answers]))


def character_error(pairs: Sequence[tuple[str, str]]) -> float:
    """Edits (Levenshtein) of (read, true) texts per true character."""
    edits = sum(_edits(read, true) for read, true in pairs)
    return edits / max(1, sum(len(true) for _, true in pairs))


_SAME_PLACE = 0.5
"""Intersection over union from which two places count as the same."""


def match_counts(answers: Sequence[Answered], labelled: bool = True) -> tuple[int, int, int]:
    """Counts the true places that were found, all true places, and all predicted places.

    A predicted place counts for one true place: the intersection over union of both is at least
    0.5, and, if ``labelled``, both have the same label.
    """
    matched = true = predicted = 0
    for answer in answers:
        wanted = places(answer, answer.question.answer)
        found = places(answer, answer.text)
        true, predicted = true + len(wanted), predicted + len(found)
        for label, points in found:
            rivals = [place for place in wanted if place[0] == label or not labelled]
            best = max(rivals, key=lambda place: overlap(place[1], points), default=None)
            if best is not None and overlap(best[1], points) >= _SAME_PLACE:
                wanted.remove(best)
                matched += 1
    return matched, true, predicted


def places(answer: Answered, text: str) -> list[tuple[str, Points]]:
    """Reads from an answer the labels of the located things, with corners in pixels."""
    size = (answer.scene.width, answer.scene.height)
    result = parse_answer(text, answer.question.task, size)
    if result.answer_kind is AnswerKind.TEXT:
        raise TypeError(f"{answer.question.task} locates nothing")
    return [(found.label, _pairs(found.outlines[0])) for found in result.detections]


def polygon_iou(answer: Answered) -> float:
    """Intersection over union of the first outline in an answer and the drawn shape."""
    found = places(answer, answer.text)
    if not found or len(found[0][1]) < 3:
        return 0.0
    shape = _shape_asked_for(answer)
    mask = _mask(found[0][1], answer.scene)
    truth = _mask(shape.outline, answer.scene, round_box=shape.box if _is_round(shape) else None)
    return float((mask & truth).sum() / max(1, (mask | truth).sum()))


def overlap(a: Points, b: Points) -> float:
    """Intersection over union of two convex polygons."""
    inner = _area(_clip(list(a), list(b)))
    union = _area(a) + _area(b) - inner
    return inner / union if union > 0 else 0.0


def _shape_asked_for(answer: Answered) -> Shape:
    question = answer.question
    for shape in answer.scene.shapes:
        if question.text == f"the {shape.label}" or question.region == shape.box:
            return shape
    raise ValueError(f"{question.prompt!r} is about no shape of its scene")


def _is_round(shape: Shape) -> bool:
    return shape.kind == "circle"


def _mask(
    points: Points, scene: Scene, round_box: tuple[float, float, float, float] | None = None
) -> NDArray[np.bool_]:
    image = Image.new("1", (scene.width, scene.height))
    draw = ImageDraw.Draw(image)
    if round_box is not None:
        draw.ellipse(round_box, fill=1)
    else:
        draw.polygon(list(points), fill=1)
    return np.asarray(image)


def _pairs(flat: Sequence[float]) -> Points:
    return list(zip(flat[0::2], flat[1::2], strict=True))


def _clip(subject: list[tuple[float, float]], window: Points) -> Points:
    """Cuts a polygon by a convex polygon (Sutherland and Hodgman)."""
    sign = 1 if _signed_area(window) >= 0 else -1
    for (x1, y1), (x2, y2) in zip(window, [*window[1:], window[0]], strict=True):
        sides = [sign * ((x2 - x1) * (y - y1) - (y2 - y1) * (x - x1)) for x, y in subject]
        kept: list[tuple[float, float]] = []
        for i, point in enumerate(subject):
            before, side = sides[i - 1], sides[i]
            if (before < 0) != (side < 0):
                part = before / (before - side)
                px, py = subject[i - 1]
                kept.append((px + part * (point[0] - px), py + part * (point[1] - py)))
            if side >= 0:
                kept.append(point)
        subject = kept
        if not subject:
            break
    return subject


def _signed_area(points: Points) -> float:
    return (
        sum(
            x * v - u * y for (x, y), (u, v) in zip(points, [*points[1:], *points[:1]], strict=True)
        )
        / 2
    )


def _area(points: Points) -> float:
    return abs(_signed_area(points))


def _edits(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (letter != other))
    return row[-1]
