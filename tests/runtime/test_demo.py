"""The demo model sees what is there: all tasks on held-out scenes, through the whole package.

The floors leave room for rounding, not for a mistake in resizing, decoding or parsing.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from florence_onnx import Florence2, Request, Task
from florence_onnx.cli.program import main
from florence_onnx_export.scenes.answers import fixed_question
from florence_onnx_export.scenes.drawing import draw
from florence_onnx_export.scenes.measures import MEASURES, Measure, score
from florence_onnx_export.scenes.metrics import Answered
from florence_onnx_export.scenes.scene import sample_scene

SCENES = 40
FLOORS = {
    "OD F1@0.5": 0.95,
    "DENSE_REGION_CAPTION F1@0.5": 0.94,
    "REGION_PROPOSAL F1@0.5": 0.97,
    "CAPTION exact": 0.92,
    "DETAILED_CAPTION exact": 0.85,
    "MORE_DETAILED_CAPTION exact": 0.67,
    "CAPTION_TO_PHRASE_GROUNDING recall@0.5": 0.82,
    "OPEN_VOCABULARY_DETECTION recall@0.5": 0.93,
    "REFERRING_EXPRESSION_SEGMENTATION mean IoU": 0.81,
    "REGION_TO_SEGMENTATION mean IoU": 0.82,
    "REGION_TO_CATEGORY exact": 0.97,
    "REGION_TO_DESCRIPTION exact": 0.97,
    "OCR character error": 0.05,
    "REGION_TO_OCR character error": 0.06,
    "OCR_WITH_REGION recall@0.5 of boxes": 0.95,
    "OCR_WITH_REGION F1@0.5 with the words": 0.92,
}
"""For most measures the least value that passes, for errors the largest."""


@pytest.fixture(scope="module", params=[1, 3], ids=["greedy", "3 beams"])
def scores(request: pytest.FixtureRequest) -> Mapping[str, float]:
    """Every measure on held-out scenes."""
    model = Florence2.load("demo")
    answers = []
    for seed in range(SCENES):
        scene = sample_scene(seed, "held-out")
        picture = np.asarray(draw(scene))
        asked = [fixed_question(scene, task) for task in Task]
        results = model.run(
            [Request(picture, question.task, question.text, question.region) for question in asked],
            num_beams=request.param,
        )
        answers += [
            Answered(scene, question, result.generated)
            for question, result in zip(asked, results, strict=True)
        ]
    return score(answers)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.title)
def test_accuracy(scores: Mapping[str, float], measure: Measure) -> None:
    reached, floor = scores[measure.title], FLOORS[measure.title]
    assert reached <= floor if measure.errors else reached >= floor


def test_the_command_needs_no_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        pytest.fail("the network was asked")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    scene = sample_scene(1184, "held-out")
    draw(scene).save(tmp_path / "scene.png")
    picture = str(tmp_path / "scene.png")
    assert main(["run", picture, "--task", "od", "--model", "demo", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)["answer"]["<OD>"]
    assert answer["labels"] == [shape.label for shape in scene.shapes]
    for found, shape in zip(answer["bboxes"], scene.shapes, strict=True):
        np.testing.assert_allclose(found, shape.box, atol=12)
