"""Times an annotation by actors of Ray on this machine against one process.

    python -m benchmarks.actors --precision q8

Pictures of 1280x960 in JPEG files are asked for an OD of 50 tokens, in batches of 8. One side is
`florence-onnx annotate` with all threads, the other has as many actors of one thread as that. The
first pictures, before which models are opened, are not counted.

Besides: how many pictures a core reads, decodes and resizes, and how many answers the process that
has started the actors takes and writes.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.annotating import make_photos
from benchmarks.harness.checkpoint import prepare
from benchmarks.harness.common import BEAMS, Setup, make_parser, progress, publish
from benchmarks.harness.measuring import describe, ratio, seconds
from florence_onnx import Florence2
from florence_onnx.annotate.cluster import LOCAL, Crew, connected
from florence_onnx.annotate.journal import read_lines
from florence_onnx.annotate.output import ANNOTATIONS, Output, open_output
from florence_onnx.annotate.pipeline import Annotation, Summary
from florence_onnx.annotate.questions import Plan, plan_questions
from florence_onnx.annotate.sources import Item, find_items
from florence_onnx.preparing import read_picture

TOKENS = 50
FIRST = 16
"""Number of first pictures that are not counted."""
ANSWERS = 10_000
"""Number of answers that are written."""
WIDTH, HEIGHT = 1280, 960

Watch = Callable[[Summary], object]
Run = Callable[[Sequence[Item], Output, Watch], object]


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=1)
    parser.add_argument("--pictures", type=int, default=64, help="of a round (default: 64)")
    arguments = parser.parse_args(argv)
    setup = prepare(arguments)
    values, ratios = {}, {}
    for precision in arguments.precision:
        case = f"pictures a second, OD of {TOKENS} tokens, ours {precision}"
        values[case], ratio_of_sides = _measured(setup, precision, arguments)
        ratios[f"{case}: actors / one process"] = ratio_of_sides
    content = {
        "settings": {"beams": BEAMS, "tokens": TOKENS, "picture": [HEIGHT, WIDTH, 3]},
        "unit": "",
        "values": values,
        "ratios": ratios,
        "notes": [
            f"{arguments.pictures} pictures in each round, {FIRST} more before them. The ratio is "
            "of rates: above 1, actors are faster."
        ],
    }
    publish("actors", arguments, argv, content, setup.provider)


def _measured(
    setup: Setup, precision: str, arguments: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, float]]:
    """Measures the pictures of each side in a second, and the ratio of actors to one process."""
    plan = Plan(
        plan_questions(["od"], None, None, None),
        {"num_beams": BEAMS, "min_new_tokens": TOKENS, "max_new_tokens": TOKENS},
    )
    opening: dict[str, Any] = {"precision": precision, "providers": setup.providers}
    model = Florence2.load(setup.exported, threads=setup.threads, **opening)

    def one(items: Sequence[Item], output: Output, watch: Watch) -> None:
        Annotation(model, plan, output, watch=watch).run(items)

    def several(items: Sequence[Item], output: Output, watch: Watch) -> None:
        crew = Crew.of(
            str(setup.exported), plan, opening, actors=setup.threads, threads=1, gpus=0.0
        )
        output.model = crew.identify()[0]
        crew.run(items, output, stopped=lambda: False, watch=watch)

    sides: dict[str, Run] = {"actors of one thread": several, "one process": one}
    rates: dict[str, list[float]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder, connected(LOCAL):
        photos = Path(folder) / "photos"
        files = make_photos(photos, FIRST + arguments.pictures, WIDTH, HEIGHT)
        items = find_items([str(photos)])
        for number in range(arguments.repeats):
            for side, run in sides.items():
                progress(f"round {number + 1} of {arguments.repeats}: {side}")
                out = Path(folder) / f"{side}-{number}"
                rates[side].append(_rate(run, items, plan, out))
        read = seconds(lambda: [read_picture(model.assets, str(file)) for file in files])
        written = _written(plan, out / ANNOTATIONS, Path(folder) / "written")
    others = {
        "one core reads, decodes and resizes": [len(files) / read],
        "one process takes and writes": [ANSWERS / written],
    }
    values = {side: describe(samples) for side, samples in {**rates, **others}.items()}
    return values, ratio(*rates.values())


def _rate(run: Run, items: Sequence[Item], plan: Plan, out: Path) -> float:
    """Computes the pictures in a second, without the first pictures."""
    seen: list[tuple[int, float]] = []

    def watch(summary: Summary) -> None:
        if summary.pictures >= FIRST:
            seen.append((summary.pictures, time.perf_counter()))

    with open_output(out, "fill", "benchmark", plan.settings()) as output:
        run(items, output, watch)
    (first, began), (last, ended) = seen[0], seen[-1]
    return (last - first) / (ended - began)


def _written(plan: Plan, annotations: Path, out: Path) -> float:
    """Measures the seconds for answers that are read from rows, as from actors, and written."""
    _, line = next(read_lines(annotations))
    rows = [(json.dumps([{**line, "path": f"{one}.jpg"}]), "[]") for one in range(ANSWERS)]
    crew = Crew("", plan, {}, actors=1, threads=1, gpus=0.0)
    with open_output(out, "fill", "benchmark", plan.settings()) as output:
        return seconds(lambda: crew.write(output, rows, Summary()))


if __name__ == "__main__":
    main(sys.argv[1:])
