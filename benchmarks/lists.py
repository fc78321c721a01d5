"""Measures lists of boxes that do not end early: average precision and recall at several ends.

    python -m benchmarks.lists
    python -m benchmarks.lists --scenes 50

The demo model detects the objects of held-out drawn scenes with its own 3 beams. The end of a list
is held back until the end is likely enough, or until the list has a number of boxes. Labels are
free, or only the labels of scenes.
"""

import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.accuracy import ask
from benchmarks.harness.common import make_parser, progress, publish
from benchmarks.harness.measuring import describe
from benchmarks.scores import SCORES, answer, precision
from florence_onnx import Florence2, GenerationOptions, Task
from florence_onnx_export.scenes.coco import LABELS

ENDS = (None, 0.9, 0.999, 0.99999, 4, 8, 12)
LABELLED: dict[str, GenerationOptions] = {"any labels": {}, "labels=": {"labels": LABELS}}


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=1, precisions=False)
    parser.set_defaults(model="demo")
    parser.add_argument("--scenes", type=int, default=300, help="held-out scenes (default: 300)")
    arguments = parser.parse_args(argv)
    model = Florence2.load(
        arguments.model, providers=[arguments.provider], threads=arguments.threads
    )
    asked = ask([Task.OD], arguments.scenes)
    values: dict[str, dict[str, Any]] = {}
    notes = []
    for column, options in LABELLED.items():
        for end in ENDS:
            name = "the model's own end" if end is None else f"recall={end}"
            progress(f"{name}, {column}")
            results = answer(model, asked, {**options, "recall": end})
            for title, value in precision(asked, results, SCORES["label"]).items():
                values.setdefault(f"{title}, {name}", {})[column] = describe([100 * value])
            count = sum(len(result.detections) for result in results) / len(results)
            notes.append(f"{name}, {column}: {count:.2f} boxes in a scene.")
    true = sum(len(one.scene.shapes) for one in asked) / len(asked)
    content = {"unit": "%", "scenes": arguments.scenes, "values": values, "ratios": {}}
    notes.append(f"Scenes have {true:.2f} objects.")
    publish("lists", arguments, argv, {**content, "notes": notes}, arguments.provider)


if __name__ == "__main__":
    main(sys.argv[1:])
