"""Measures tiles on large drawn scenes and pages, where one pass misses most things.

    python -m benchmarks.tiles
    python -m benchmarks.tiles --pictures 1 --sizes 2000x2000

The demo model, with its own 3 beams, is asked about each picture as a whole and in tiles. A
detection is right with the label of a thing and an intersection over union of 0.5 with the thing's
box. A word of `OCR` is right as often as the page has the word.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.harness.common import Picture, make_parser, progress, publish
from benchmarks.harness.measuring import describe
from florence_onnx import Florence2, Result, Task
from florence_onnx.selecting import overlap
from florence_onnx.tiling import TilesOption
from florence_onnx_export.scenes.drawing import draw
from florence_onnx_export.scenes.large import sample_large_scene
from florence_onnx_export.scenes.scene import Box, Scene

TASKS = (
    Task.OD,
    Task.DENSE_REGION_CAPTION,
    Task.REGION_PROPOSAL,
    Task.OCR_WITH_REGION,
    Task.OCR,
)
SIDES: dict[str, TilesOption | None] = {"one pass": None, "tiles": "auto"}
SAME = 0.5
Thing = tuple[str, Box]


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=1, precisions=False)
    parser.set_defaults(model="demo")
    parser.add_argument("--pictures", type=int, default=2, help="of each size (default: 2)")
    parser.add_argument("--sizes", nargs="+", default=["2000x2000", "3000x2000", "4000x3000"])
    arguments = parser.parse_args(argv)
    model = Florence2.load(
        arguments.model, providers=[arguments.provider], threads=arguments.threads
    )
    values: dict[str, dict[str, Any]] = {}
    notes = []
    for size in arguments.sizes:
        width, height = map(int, size.split("x"))
        for task in TASKS:
            progress(f"{task.name}, {size}")
            is_page = task in (Task.OCR, Task.OCR_WITH_REGION)
            scenes = [
                sample_large_scene(seed, width, height, with_shapes=not is_page)
                for seed in range(arguments.pictures)
            ]
            for column, tiles in SIDES.items():
                counts, seconds, seen = measure(model, scenes, task, tiles)
                found, true, named = counts
                title = f"{task.name}, {size} pixels"
                shares = {"recall": found / true, "precision": found / named if named else 0.0}
                for name, value in shares.items():
                    values.setdefault(f"{title}: {name}", {})[column] = describe([100 * value])
                notes.append(
                    f"{title}, {column}: {found} of {true} things in {len(scenes)} pictures, "
                    f"{seconds / len(scenes):.2f} s and {seen} questions a picture."
                )
    content = {"unit": "%", "pictures": arguments.pictures, "values": values, "ratios": {}}
    publish("tiles", arguments, argv, {**content, "notes": notes}, arguments.provider)


def measure(
    model: Florence2, scenes: Sequence[Scene], task: Task, tiles: TilesOption | None
) -> tuple[tuple[int, int, int], float, int]:
    """Counts found, existing and named things; measures seconds and questions per picture."""
    counts, seconds, seen = np.zeros(3, dtype=np.int64), 0.0, 1
    for scene in scenes:
        picture: Picture = np.asarray(draw(scene))
        began = time.perf_counter()
        result = model(picture, task, tiles=tiles)
        seconds += time.perf_counter() - began
        counts += judge(scene, task, result)
        seen = max(seen, len(result.tiles))
    found, true, named = counts.tolist()
    return (found, true, named), seconds, seen


def judge(scene: Scene, task: Task, result: Result) -> tuple[int, int, int]:
    """Counts the things that an answer finds, the things that exist, and the things named."""
    if task is Task.OCR:
        true, read = Counter(word.text for word in scene.words), Counter(result.text.split())
        return (true & read).total(), true.total(), read.total()
    wanted = list(things(scene, task))
    count, found = len(wanted), 0
    for one in sorted(result.detections, key=lambda one: -(one.scores.score if one.scores else 0)):
        rivals = [thing for thing in wanted if thing[0] == one.label]
        best = max(rivals, key=lambda thing: overlap(thing[1], one.box), default=None)
        if best is not None and overlap(best[1], one.box) >= SAME:
            wanted.remove(best)
            found += 1
    return found, count, len(result.detections)


def things(scene: Scene, task: Task) -> Iterator[Thing]:
    """Lists the things in a scene, as a task names things."""
    if task is Task.OCR_WITH_REGION:
        yield from ((word.text, word.box) for word in scene.words)
    for shape in scene.shapes:
        if task is Task.OD:
            yield shape.label, shape.box
        elif task is Task.DENSE_REGION_CAPTION:
            yield shape.description, shape.box
        elif task is Task.REGION_PROPOSAL:
            yield "", shape.box


if __name__ == "__main__":
    main(sys.argv[1:])
