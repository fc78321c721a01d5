"""The generator of drawn scenes: the same from the same seed, legible, and truthfully labelled."""

import itertools

import numpy as np
import pytest

from florence_onnx.parsing import parse_answer
from florence_onnx.tasks import InputKind, Task
from florence_onnx_export.scenes.answers import ask
from florence_onnx_export.scenes.captions import caption, detailed_caption, more_detailed_caption
from florence_onnx_export.scenes.drawing import draw
from florence_onnx_export.scenes.measures import COCO, MEASURES, score
from florence_onnx_export.scenes.metrics import (
    Answered,
    character_error,
    match_counts,
    overlap,
    places,
    polygon_iou,
)
from florence_onnx_export.scenes.scene import MIN_ORDER_GAP, Scene, Shape, Word, sample_scene
from florence_onnx_export.scenes.shapes import BACKGROUNDS, COLOURS, OUTLINES

SCENES = [sample_scene(seed) for seed in range(150)]


def _shape(label: str, x: float, striped: bool = False) -> Shape:
    colour, kind = label.split()
    return Shape(colour, kind, False, striped, (x, 20.0, x + 40.0, 60.0))


def _scene(*shapes: Shape) -> Scene:
    word = Word("STOP", 30, 0.0, (100.0, 100.0), (60, 20))
    depth = tuple(range(len(shapes)))
    return Scene(200, 160, "striped", False, shapes, depth, (word,), (0, 0))


THREE = _scene(
    _shape("orange star", 5, striped=True), _shape("red circle", 60), _shape("red circle", 120)
)


def _answered(scene: Scene, task: Task, text: str | None = None) -> Answered:
    question = ask(scene, task, np.random.default_rng(0))
    return Answered(scene, question, question.answer if text is None else text)


def test_a_seed_always_gives_the_same_scene_and_picture() -> None:
    assert sample_scene(5) == sample_scene(5)
    assert draw(sample_scene(5)).tobytes() == draw(sample_scene(5)).tobytes()
    assert sample_scene(5) != sample_scene(6)


def test_held_out_scenes_are_never_training_scenes() -> None:
    train = {sample_scene(seed) for seed in range(50)}
    held_out = {sample_scene(seed, "held-out") for seed in range(50)}
    assert not train & held_out
    assert {scene.seed[0] for scene in train}.isdisjoint(scene.seed[0] for scene in held_out)


def test_scenes_cover_all_that_can_be_drawn() -> None:
    shapes = [shape for scene in SCENES for shape in scene.shapes]
    assert {shape.colour for shape in shapes} == set(COLOURS)
    assert {shape.kind for shape in shapes} == set(OUTLINES)
    assert {len(scene.shapes) for scene in SCENES} == set(range(1, 7))
    assert {scene.background for scene in SCENES} == set(BACKGROUNDS)
    assert {len(scene.words) for scene in SCENES} == {1, 2}
    assert {word.angle != 0 for scene in SCENES for word in scene.words} == {True, False}
    ratios = [scene.width / scene.height for scene in SCENES]
    assert min(ratios) < 0.75 and max(ratios) > 1.33
    assert any(
        a.box[0] < b.box[2] and b.box[0] < a.box[2] and a.box[1] < b.box[3] and b.box[1] < a.box[3]
        for scene in SCENES
        for i, a in enumerate(scene.shapes)
        for b in scene.shapes[:i]
    )


def test_order_is_clear_and_everything_is_inside() -> None:
    for scene in SCENES:
        lefts = [shape.box[0] for shape in scene.shapes]
        assert all(b - a >= MIN_ORDER_GAP * scene.width for a, b in itertools.pairwise(lefts))
        for box in [shape.box for shape in scene.shapes] + [word.box for word in scene.words]:
            assert 0 <= box[0] < box[2] <= scene.width and 0 <= box[1] < box[3] <= scene.height


@pytest.mark.parametrize("seed", range(12))
def test_shapes_are_drawn_where_the_labels_say(seed: int) -> None:
    scene = sample_scene(seed)
    top = scene.shapes[scene.depth[-1]]
    without = [shape for shape in scene.shapes if shape is not top]
    depth = tuple(without.index(scene.shapes[i]) for i in scene.depth[:-1])
    bare = Scene(
        scene.width, scene.height, scene.background, scene.dark, tuple(without), depth, (), (0, 0)
    )
    full = Scene(
        scene.width, scene.height, scene.background, scene.dark, (*without, top),
        (*depth, len(without)), (), (0, 0),
    )  # fmt: skip
    changed = (np.asarray(draw(full)) != np.asarray(draw(bare))).any(axis=2)
    ys, xs = np.nonzero(changed)
    drawn = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert np.abs(np.array(drawn) - top.box).max() <= 2
    middle = np.array([(top.box[0] + top.box[2]) / 2, (top.box[1] + top.box[3]) / 2])
    painted = np.asarray(draw(full))[int(middle[1]), int(middle[0])].astype(int)
    wanted = np.array(COLOURS[top.colour]) * (0.45 if top.striped else 1.0)
    assert np.abs(painted - wanted).max() <= 15


@pytest.mark.parametrize("seed", range(12))
def test_words_are_drawn_within_their_quadrilaterals(seed: int) -> None:
    scene = sample_scene(seed)
    blank = Scene(
        scene.width, scene.height, "plain", scene.dark, (), (), (scene.words[0],), scene.seed
    )
    without = Scene(scene.width, scene.height, "plain", scene.dark, (), (), (), scene.seed)
    changed = (np.asarray(draw(blank)) != np.asarray(draw(without))).any(axis=2)
    ys, xs = np.nonzero(changed)
    drawn = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    # The font starts measuring a little before the first letter's ink, and a slanted word's
    # letters do not reach into the corners of its quadrilateral.
    slack = 2 + (0.12 if scene.words[0].angle == 0 else 0.25) * scene.words[0].font_size
    assert np.abs(drawn - scene.words[0].box).max() <= slack


def test_captions_are_worded_as_documented() -> None:
    described = "a small striped orange star, a small red circle and a small red circle"
    assert caption(THREE) == "An orange star, a red circle and a red circle."
    assert detailed_caption(THREE) == (f"The image shows {described}.")
    assert more_detailed_caption(THREE) == (
        f"There are three shapes on a striped background: {described}. The text reads STOP."
    )


def test_detection_lists_equal_labels_together() -> None:
    answer = _answered(THREE, Task.OD).text
    assert answer.startswith("orange star<loc_25><loc_125><loc_225><loc_375>red circle<loc_300>")
    assert answer.count("red circle") == 1
    result = parse_answer(answer, Task.OD, (200, 160)).to_dict()["<OD>"]
    assert result["labels"] == ["orange star", "red circle", "red circle"]


@pytest.mark.parametrize("task", Task)
def test_every_task_has_an_answer_that_scores_full_marks(task: Task) -> None:
    answers = [_answered(scene, task) for scene in SCENES[:40]]
    for answer in answers:
        assert answer.question.prompt and answer.question.answer
        assert (answer.question.text is None) == (task.input_kind is not InputKind.TEXT)
        assert (answer.question.region is None) == (task.input_kind is not InputKind.REGION)
    for measure in (*MEASURES, *COCO):
        if measure.task is task:
            reached = score(answers, [measure])[measure.title]
            best = 0 if measure.errors else 1
            # Outlines have twelve corners for a circle, and bins.
            assert reached == pytest.approx(best, abs=0.05 if measure.name == "mean IoU" else 1e-9)


def test_every_task_has_a_measure() -> None:
    assert {measure.task for measure in MEASURES} == set(Task)


def test_scores_fall_when_answers_are_wrong() -> None:
    nothing = [_answered(THREE, task, "") for task in Task]
    for measure in (*MEASURES, *COCO):
        assert score(nothing, [measure]) == {measure.title: 1.0 if measure.errors else 0.0}
    one_too_many = _answered(THREE, Task.OD).text + "red circle<loc_0><loc_0><loc_99><loc_99>"
    assert match_counts([_answered(THREE, Task.OD, one_too_many)]) == (3, 3, 4)
    other_label = _answered(THREE, Task.OD).text.replace("star", "square")
    assert match_counts([_answered(THREE, Task.OD, other_label)]) == (2, 3, 3)


def test_character_error_counts_edits() -> None:
    assert character_error([("STOP", "STOP")]) == 0
    assert character_error([("STP", "STOP"), ("EXITS", "EXIT")]) == 2 / 8


def test_overlap_of_polygons() -> None:
    square = [(0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (0.0, 2.0)]
    shifted = [(x + 1, y) for x, y in square]
    diamond = [(1.0, 0.0), (2.0, 1.0), (1.0, 2.0), (0.0, 1.0)]
    assert overlap(square, square) == pytest.approx(1)
    assert overlap(square, shifted) == pytest.approx(1 / 3)
    assert overlap(square, list(reversed(shifted))) == pytest.approx(1 / 3)
    assert overlap(diamond, square) == pytest.approx(0.5)
    assert overlap(square, [(x + 5, y) for x, y in square]) == 0


def test_polygons_are_compared_with_what_is_drawn() -> None:
    asked = _answered(THREE, Task.REFERRING_EXPRESSION_SEGMENTATION)
    assert asked.question.text == "the orange star"
    assert polygon_iou(asked) > 0.9
    box = "<loc_25><loc_125><loc_225><loc_125><loc_225><loc_375><loc_25><loc_375>"
    assert polygon_iou(_answered(THREE, Task.REFERRING_EXPRESSION_SEGMENTATION, box)) < 0.5
    assert len(places(asked, asked.text)[0][1]) == len(OUTLINES["star"])
