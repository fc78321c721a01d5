"""Measures the cost of constraints, for a step of the search and for whole answers.

    python -m benchmarks.constraints
    python -m benchmarks.constraints --requests 1 --tokens 32

The answers have one length and are about random pixels, in one batch with 3 beams: free, within the
grammar of object detection, and with 80 labels. A model with random weights keeps no grammar, so
the logits are read at nearly every step. For a trained model the cost is lower.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from itertools import pairwise

from benchmarks.harness.checkpoint import prepare
from benchmarks.harness.common import BEAMS, make_parser, make_picture, progress, publish
from benchmarks.harness.measuring import describe, ratio
from florence_onnx import Florence2, GenerationOptions, Request, Task
from florence_onnx.answering import answer_batch

SIDES: dict[str, GenerationOptions] = {
    "free": {},
    "grammar": {"constrain": True},
    "80 labels": {"labels": [f"thing number {index}" for index in range(80)]},
}


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=5)
    parser.add_argument("--requests", type=int, default=8, help="of a batch (default: 8)")
    parser.add_argument("--tokens", type=int, default=48, help="of an answer (default: 48)")
    arguments = parser.parse_args(argv)
    setup = prepare(arguments)
    values, ratios = {}, {}
    for precision in arguments.precision:
        model = Florence2.load(
            setup.exported, precision=precision, providers=setup.providers, threads=setup.threads
        )
        found: dict[str, list[tuple[float, float]]] = {column: [] for column in SIDES}
        for number in range(1 + arguments.repeats):
            progress(f"{precision}, round {number}")
            for column, options in SIDES.items():
                times = measure(model, arguments.requests, arguments.tokens, options)
                found[column] += [times] if number else []
        rows = arguments.requests * BEAMS
        for place, what in enumerate((f"a step of {rows} rows", "whole answers")):
            title = f"{precision}, {what}"
            samples = {column: [times[place] for times in found[column]] for column in SIDES}
            values[title] = {column: describe(times) for column, times in samples.items()}
            for column in list(SIDES)[1:]:
                ratios[f"{title}: {column} / free"] = ratio(samples[column], samples["free"])
    content = {"unit": "s", "values": values, "ratios": ratios, "notes": []}
    publish("constraints", arguments, argv, content, arguments.provider)


def measure(
    model: Florence2, requests: int, tokens: int, options: GenerationOptions
) -> tuple[float, float]:
    """Measures the seconds of a median step after the first, and of the time after the pictures."""
    policy = model.policy.replace(
        num_beams=BEAMS, max_new_tokens=tokens, min_new_tokens=tokens, **options
    )
    batch = [
        model.prepare(Request(model.encode(make_picture(seed=seed)), Task.OD))
        for seed in range(requests)
    ]
    marks: list[tuple[str, float]] = []
    answer_batch(
        model.assets,
        model.graphs,
        batch,
        policy,
        watch=lambda stage: marks.append((stage, time.perf_counter())),
    )
    steps = [at for stage, at in marks if stage == "step"] + [dict(marks)["search"]]
    each = [after - before for before, after in pairwise(steps)][1:]
    return statistics.median(each), dict(marks)["parse"] - dict(marks)["vision"]


if __name__ == "__main__":
    main(sys.argv[1:])
