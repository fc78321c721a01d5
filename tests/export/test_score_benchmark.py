"""What `benchmarks.scores` counts."""

import numpy as np
import pytest

from benchmarks.accuracy import ask
from benchmarks.scores import Calibration, judge
from florence_onnx import Result, Task, parse_answer
from florence_onnx_export.scenes.coco import LABELS, average_precision
from florence_onnx_export.scenes.metrics import Answered


def test_scores_that_are_probabilities_have_no_calibration_error() -> None:
    scores = np.repeat([0.25, 0.75], 4)
    right = Calibration(scores, np.array([True, False, False, False, True, True, True, False]))
    assert right.error() == pytest.approx(0)
    assert [count for count, _, _ in right.bins()] == [0, 0, 4, 0, 0, 0, 0, 4, 0, 0]
    wrong = Calibration(scores, ~right.are_right)
    assert wrong.error() == pytest.approx(0.5)


def test_a_temperature_draws_scores_to_one_half() -> None:
    sure = Calibration(np.full(10, 0.99), np.arange(10) < 7)
    assert sure.at(1).scores == pytest.approx(sure.scores)
    assert 0.5 < sure.at(4).scores[0] < 0.99
    assert sure.at(4).error() < sure.error()


def test_average_precision_rewards_scores_that_put_what_is_wrong_last() -> None:
    (one,) = ask([Task.OD], 1)
    answered = Answered(one.scene, one.question, "")
    size = one.scene.width, one.scene.height
    true = parse_answer(one.question.answer, Task.OD, size).detections[0]
    x1, y1, x2, y2 = true.box
    right = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    wrong = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    assert true.label in LABELS

    def precision(score: float) -> float:
        return average_precision(
            [answered], [[(true.label, wrong, 0.5), (true.label, right, score)]]
        )[0]

    assert precision(0.9) > precision(0.1)


def test_the_true_answer_is_right_and_a_second_box_of_it_is_not() -> None:
    (one,) = ask([Task.OD], 1)
    model_says = one.question.answer

    def judged(text: str) -> list[bool]:
        tokens = text.replace("<", "\n<").replace(">", ">\n").split("\n")
        pieces = [piece for piece in tokens if piece]
        ends = np.cumsum([len(piece) for piece in pieces]).tolist()
        spans = [(end - len(piece), end) for piece, end in zip(pieces, ends, strict=True)]
        result: Result = parse_answer(
            text,
            Task.OD,
            (one.scene.width, one.scene.height),
            token_ids=range(len(pieces)),
            token_spans=spans,
            log_probabilities=[-0.1] * len(pieces),
        )
        return judge([one], [result]).are_right.tolist()

    assert all(judged(model_says))
    twice = judged(model_says + model_says)
    assert sum(twice) == len(judged(model_says)) == len(twice) // 2
