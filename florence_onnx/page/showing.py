"""Output of the page: answers with drawings, scores, and the time of every stage."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from florence_onnx.answering import answer_batch
from florence_onnx.cascading import CascadeResult
from florence_onnx.drawing import draw
from florence_onnx.encoding import encode
from florence_onnx.errors import ImageError, InputError
from florence_onnx.generation.options import GenerationOptions
from florence_onnx.images.pixels import to_rgb
from florence_onnx.model import Florence2
from florence_onnx.page.form import LIMITS, Question
from florence_onnx.plain_text import lines
from florence_onnx.preparing import prepare, read_picture
from florence_onnx.requests import EncodedImage, Request
from florence_onnx.results import Result
from florence_onnx.tasks import AnswerKind

_LONGEST_SIDE = 2048
"""Longer side of a drawing in pixels, enough for a browser."""
_BATCH = 8
"""Requests of a cascade's second task in a batch, as by default in `Florence2.cascade`."""
_STAGES = ("embed_encoder", "search", "parse")

Row = tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """Output for several tasks about one picture."""

    drawings: Sequence[tuple[Any, str]]
    """Drawings of the answers that locate things: the picture with an answer, a Pillow image, and
    the task."""
    text: str
    """Text of all answers."""
    scores: Sequence[Row]
    """Rows of task, label, score, scores of location and label, and box: a row per located thing,
    or per answer that is text."""
    times: Sequence[Row]
    """Rows of task, stage and milliseconds; without a task for a stage of all tasks."""
    records: Sequence[dict[str, Any]]
    """Records of the answers; see `Result.record`."""


SCORES = ("task", "label", "score", "of location", "of label", "box: x1, y1, x2, y2")
"""Heads of `Shown.scores`."""
TIMES = ("task", "stage", "ms")
"""Heads of `Shown.times`."""


class _Clock:
    """Clock for stages, each from the end of the stage before; a stage may come several times."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], float] = {}
        self._last = time.perf_counter()

    def ends(self, stage: str, task: str = "") -> None:
        now = time.perf_counter()
        self._seconds[task, stage] = self._seconds.get((task, stage), 0) + now - self._last
        self._last = now

    @property
    def times(self) -> list[Row]:
        rows = self._seconds.items()
        return [(task, stage, f"{1000 * seconds:.1f}") for (task, stage), seconds in rows]


def show(model: Florence2, asked: Sequence[Question], seconds: float = LIMITS.seconds) -> Shown:
    """Answers questions about one picture, which passes the vision encoder once.

    Args:
        model: The model.
        asked: Questions about the same picture.
        seconds: Limit of the time for all questions.

    Raises:
        InputError: The picture cannot be read, an input does not suit it, or the time is up.
        ModelError: A graph fails.
    """
    end = time.monotonic() + seconds
    clock = _Clock()
    rgb = _pixels(asked[0].request.image)
    picture = read_picture(model.assets, rgb)
    clock.ends("read and resize")
    encoded = encode(model.graphs, picture)
    clock.ends("vision")
    results = []
    drawings = []
    for question in asked:
        result = _answer(model, question, encoded, clock, end)
        results.append(result)
        drawn = result.drawn if isinstance(result, CascadeResult) else result
        if drawn.detections:
            drawings.append((_drawing(rgb, drawn), question.task))
            clock.ends("draw", question.task)
    tasks = [question.task for question in asked]
    return Shown(
        drawings,
        _text(tasks, results),
        [row for task, result in zip(tasks, results, strict=True) for row in _scores(task, result)],
        clock.times,
        [result.record() for result in results],
    )


def _pixels(path: Any) -> npt.NDArray[np.uint8]:
    """Reads the pixels of an uploaded file; errors do not name the file's place."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ImageError("the picture is here no longer; upload it again") from error
    return to_rgb(content)


def _answer(
    model: Florence2, question: Question, encoded: EncodedImage, clock: _Clock, end: float
) -> Result | CascadeResult:
    """Answers a question as the model does: of a cascade, the second requests in batches."""

    def is_in_time(request: int = 0) -> bool:
        return time.monotonic() < end

    def watch(stage: str) -> None:
        if stage in _STAGES:
            clock.ends(stage, question.task)

    def answers(requests: Sequence[Request], options: GenerationOptions) -> list[Result]:
        prepared = [prepare(model.assets, request, encoded) for request in requests]
        policy = model.policy.replace(**options)
        results = answer_batch(model.assets, model.graphs, prepared, policy, watch, is_in_time)
        if not is_in_time():
            raise InputError(
                "the time of a request is up; choose fewer tasks, or fewer beams or tokens"
            )
        return results

    cascade = question.cascade
    if cascade is None:
        return answers([question.request], question.options)[0]
    of_first, of_then = cascade.options(question.options)
    [first] = answers([question.request], of_first)
    asked = cascade.follow_up(encoded, first)
    batches = [asked[start : start + _BATCH] for start in range(0, len(asked), _BATCH)]
    then = tuple(result for batch in batches for result in answers(batch, of_then))
    return CascadeResult(name=cascade.name, first=first, then=then)


def _drawing(rgb: npt.NDArray[np.uint8], result: Result) -> Any:
    drawing = draw(rgb, result)
    drawing.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return drawing


def _text(tasks: Sequence[str], results: Sequence[Result | CascadeResult]) -> str:
    """Writes the lines of ``florence-onnx run``, under the names of the tasks."""
    if len(results) == 1:
        return "\n".join(lines(results[0]))
    parts = [
        "\n".join((f"{task}:", *(f"  {line}" for line in lines(result))))
        for task, result in zip(tasks, results, strict=True)
    ]
    return "\n".join(parts)


def _scores(task: str, result: Result | CascadeResult) -> list[Row]:
    if isinstance(result, CascadeResult):
        return [row for one in (result.first, *result.then) for row in _scores(task, one)]
    if result.answer_kind is AnswerKind.TEXT:
        return [(task, "(the text)", _number(result.confidence), "", "", "")]
    rows: list[Row] = []
    for found in result.detections:
        scores = found.scores
        numbers = ("", "", "")
        if scores is not None:
            numbers = (_number(scores.score), _number(scores.location), _number(scores.label))
        box = ", ".join(f"{value:.1f}" for value in found.box)
        rows.append((task, found.label, *numbers, box))
    return rows


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
