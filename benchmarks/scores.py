"""Measures the use of scores, longer lists and constraints on held-out drawn scenes.

    python -m benchmarks.scores
    python -m benchmarks.scores --scenes 100 --fewer 20

The demo model detects the objects of every scene with its own 3 beams. Detections are ranked by
several scores or by none, and lists are made longer. The measure is the mean average precision of
the COCO evaluation. A temperature is fitted on the even scenes; on the odd scenes, scores with this
temperature are compared with the share of right detections. Constraints are compared task by task.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy import Asked, ask
from benchmarks.harness.checkpoint import prepare
from benchmarks.harness.common import DEMO, make_parser, progress, publish
from benchmarks.harness.measuring import describe
from florence_onnx import (
    AnswerKind,
    Detection,
    Florence2,
    GenerationOptions,
    Request,
    Result,
    Task,
)
from florence_onnx_export.scenes.coco import LABELS, average_precision
from florence_onnx_export.scenes.measures import score
from florence_onnx_export.scenes.metrics import Answered, Points, overlap, places

BATCH = 25
LONGEST = 256
"""Limit of an answer in tokens, which no right answer reaches."""
BINS = np.linspace(0, 1, 11)
TEMPERATURES = np.geomspace(0.25, 8, 61)

Scored = Callable[[float, float], float]
SCORES: dict[str, Scored] = {
    "no scores": lambda location, label: 1.0,
    "location": lambda location, label: location,
    "label": lambda location, label: label,
    "location x label": lambda location, label: location * label,
    "lower of both": min,
}
"""Column -> score that ranks detections, from the probabilities of location and label."""
LISTS: dict[str, GenerationOptions] = {
    "label": {},
    "recall 0.999": {"recall": 0.999},
    "recall 8 and labels": {"recall": 8, "labels": LABELS},
}
"""Column -> options that make lists longer. Detections are ranked by the label's score."""


@dataclass(frozen=True)
class Calibration:
    """Calibration: scores of detections, with flags of right detections."""

    scores: npt.NDArray[np.float64]
    """Scores [N], 0 to 1."""
    are_right: npt.NDArray[np.bool_]
    """Flags [N], true for detections that are right."""

    def at(self, temperature: float) -> "Calibration":
        """Returns a copy in which the log-odds of every score are divided by a temperature."""
        odds = np.log(np.clip(self.scores, 1e-9, 1 - 1e-9) / np.clip(1 - self.scores, 1e-9, 1))
        return Calibration(1 / (1 + np.exp(-odds / temperature)), self.are_right)

    def bins(self) -> list[tuple[int, float, float]]:
        """Returns, per tenth of the scores, the detections, the mean score and the right share."""
        which = np.clip(np.digitize(self.scores, BINS) - 1, 0, len(BINS) - 2)
        inside = [which == number for number in range(len(BINS) - 1)]
        return [
            (int(one.sum()), float(self.scores[one].mean()), float(self.are_right[one].mean()))
            if one.any()
            else (0, 0.0, 0.0)
            for one in inside
        ]

    def error(self) -> float:
        """Computes the expected calibration error."""
        gaps = [count * abs(mean - share) for count, mean, share in self.bins()]
        return sum(gaps) / max(1, len(self.scores))


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=1, precisions=False)
    parser.set_defaults(model=str(DEMO))
    parser.add_argument("--scenes", type=int, default=3000, help="held-out scenes (default: 3000)")
    parser.add_argument(
        "--fewer", type=int, default=300, help="of them for lists and constraints (default: 300)"
    )
    arguments = parser.parse_args(argv)
    arguments.precision = ["fp32"]
    setup = prepare(arguments)
    model = Florence2.load(setup.exported, providers=setup.providers, threads=setup.threads)
    asked = ask([Task.OD], arguments.scenes)
    plain = answer(model, asked, {})
    values = rankings(asked, plain)
    lists(model, asked[: arguments.fewer], values)
    notes = calibration(asked, plain)
    notes += constraints(model, arguments.fewer, values)
    content = {"unit": "%", "scenes": arguments.scenes, "values": values, "ratios": {}}
    publish("scores", arguments, argv, {**content, "notes": notes}, arguments.provider)


def answer(model: Florence2, asked: Sequence[Asked], options: GenerationOptions) -> list[Result]:
    """Asks the model about scenes."""
    requests = (
        Request(one.picture, one.question.task, one.question.text, one.question.region)
        for one in asked
    )
    every: GenerationOptions = {"max_new_tokens": LONGEST, **options}
    return list(model.stream(requests, batch_size=BATCH, **every))


def rankings(asked: Sequence[Asked], results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """Measures average precision with each of the scores, by measure and column."""
    values: dict[str, dict[str, Any]] = {}
    for column, scored in SCORES.items():
        _add(values, column, precision(asked, results, scored))
    return values


def lists(model: Florence2, asked: Sequence[Asked], values: dict[str, dict[str, Any]]) -> None:
    """Measures the average precision of longer lists and of the usual lists."""
    for column, options in LISTS.items():
        progress(column)
        found = precision(asked, answer(model, asked, options), SCORES["label"])
        named = {f"{title}, {len(asked)} scenes": value for title, value in found.items()}
        _add(values, column, named)


def precision(
    asked: Sequence[Asked], results: Sequence[Result], scored: Scored
) -> dict[str, float]:
    """Measures average precision and recall of detections ranked by a score."""
    found = [
        [(one.label, corners(one), _score(one, scored)) for one in result.detections]
        for result in results
    ]
    titles = ("OD mAP@0.5", "OD mAP@[.5:.95]", "OD recall@[.5:.95]")
    return dict(zip(titles, average_precision(_answered(asked, results), found), strict=True))


def calibration(asked: Sequence[Asked], results: Sequence[Result]) -> list[str]:
    """Makes sentences on the difference between scores and the share of right detections."""
    even, odd = (judge(asked[half::2], results[half::2]) for half in (0, 1))
    best = float(min(TEMPERATURES, key=lambda temperature: even.at(temperature).error()))
    tempered = odd.at(best)
    lines = [
        f"Detections of {len(asked[1::2])} scenes with a score (that of the label) of "
        f"{BINS[number]:.1f} to {BINS[number + 1]:.1f}: {count}, on average {mean:.3f}, of which "
        f"{share:.1%} are right."
        for number, (count, mean, share) in enumerate(odd.bins())
        if count
    ]
    return [
        *lines,
        f"Expected calibration error: {odd.error():.2%}; with the log-odds divided by the "
        f"temperature {best:.2f}, which the other scenes tell, {tempered.error():.2%}.",
    ]


def judge(asked: Sequence[Asked], results: Sequence[Result]) -> Calibration:
    """Returns the scores of all detections, and whether each detection is right.

    A right detection has the label of a true box and an intersection over union of at least 0.5
    with the box. Of two detections of one box, the detection with the higher score is right.
    """
    scores, are_right = [], []
    for one, result in zip(asked, results, strict=True):
        question = Answered(one.scene, one.question, "")
        wanted = places(question, one.question.answer)
        for found in sorted(result.detections, key=lambda found: -_score(found, SCORES["label"])):
            rivals = [place for place in wanted if place[0] == found.label]
            best = max(rivals, key=lambda place: overlap(place[1], corners(found)), default=None)
            is_right = best is not None and overlap(best[1], corners(found)) >= 0.5
            if is_right and best is not None:
                wanted.remove(best)
            scores.append(_score(found, SCORES["label"]))
            are_right.append(is_right)
    return Calibration(np.array(scores), np.array(are_right))


def constraints(model: Florence2, scenes: int, values: dict[str, dict[str, Any]]) -> list[str]:
    """Measures every task that has a grammar, with and without the grammar; counts changes."""
    notes = []
    for task in Task:
        if task.answer_kind is AnswerKind.TEXT:
            continue
        progress(f"constraints: {task.name}")
        asked = ask([task], scenes)
        free, kept = (answer(model, asked, {"constrain": on}) for on in (False, True))
        for column, results in (("free", free), ("constrained", kept)):
            _add(values, column, score(_answered(asked, results)))
        changed = sum(a.token_ids != b.token_ids for a, b in zip(free, kept, strict=True))
        notes.append(f"{task.name}: constraints change {changed} of {scenes} answers.")
    return notes


def corners(found: Detection) -> Points:
    """Returns the corners of a box."""
    x1, y1, x2, y2 = found.box
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]


def _answered(asked: Sequence[Asked], results: Sequence[Result]) -> list[Answered]:
    return [
        Answered(one.scene, one.question, result.generated)
        for one, result in zip(asked, results, strict=True)
    ]


def _score(found: Detection, scored: Scored) -> float:
    if found.scores is None or found.scores.label is None:
        raise ValueError(f"{found} has no scores")
    return scored(found.scores.location, found.scores.label)


def _add(values: dict[str, dict[str, Any]], column: str, found: dict[str, float]) -> None:
    for title, value in found.items():
        values.setdefault(title, {})[column] = describe([100 * value])


if __name__ == "__main__":
    main(sys.argv[1:])
