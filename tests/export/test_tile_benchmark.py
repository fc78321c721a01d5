"""What `benchmarks.tiles` draws and counts."""

from itertools import combinations

import pytest

from benchmarks.tiles import TASKS, judge, things
from florence_onnx import Task, parse_answer
from florence_onnx.locations import to_bins, to_text
from florence_onnx.selecting import overlap
from florence_onnx_export.scenes.large import sample_large_scene

SCENE = sample_large_scene(3, 900, 700)


def test_a_large_scene_is_full_of_things_apart() -> None:
    assert sample_large_scene(3, 900, 700) == SCENE != sample_large_scene(4, 900, 700)
    boxes = [shape.box for shape in SCENE.shapes] + [word.box for word in SCENE.words]
    assert len(SCENE.shapes) > 10
    assert len(SCENE.words) > 3
    assert all(overlap(a, b) == 0 for a, b in combinations(boxes, 2))
    assert all(0 <= x1 < x2 <= 900 and 0 <= y1 < y2 <= 700 for x1, y1, x2, y2 in boxes)
    page = sample_large_scene(3, 900, 700, with_shapes=False)
    assert (page.shapes, len(page.words) > len(SCENE.words)) == ((), True)


@pytest.mark.parametrize("task", TASKS)
def test_right_answers_are_right(task: Task) -> None:
    size = SCENE.width, SCENE.height
    if task is Task.OCR:
        text = " ".join(word.text for word in SCENE.words)
        count = len(SCENE.words)
    else:
        wanted = list(things(SCENE, task))
        count = len(wanted)
        corners = {
            label + str(i): (x1, y1, x2, y1, x2, y2, x1, y2)
            if task is Task.OCR_WITH_REGION
            else (x1, y1, x2, y2)
            for i, (label, (x1, y1, x2, y2)) in enumerate(wanted)
        }
        text = "".join(
            label + to_text(to_bins(points, size))
            for (label, _), points in zip(wanted, corners.values(), strict=True)
        )
    assert judge(SCENE, task, parse_answer(text, task, size)) == (count, count, count)
    twice = parse_answer(f"{text} {text}", task, size)
    assert judge(SCENE, task, twice)[0] == count
    assert judge(SCENE, task, parse_answer("", task, size)) == (0, count, 0)
