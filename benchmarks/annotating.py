"""Times an annotation of a folder against the engine alone.

    python -m benchmarks.annotating --precision q8
    python -m benchmarks.annotating --precision q8 --pictures 16 --repeats 2
    python -m benchmarks.annotating --precision q8 --within --od-tokens 50

Pictures of 1280x960 in JPEG files are asked for a caption of 20 tokens and an OD of 200, in batches
of 8. One side reads, decodes and resizes the files, encodes the pictures, answers the questions and
writes the lines. The other side has the resized pictures in memory, and runs only the vision
encoder and the same batches. With --within, the other side is the time of the vision encoder and of
the batches inside the annotation: half the time to measure, but what reading takes from the engine
counts as the engine's.
"""

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from benchmarks.harness.checkpoint import prepare
from benchmarks.harness.common import BEAMS, Setup, make_parser, publish
from benchmarks.harness.measuring import alternate, ratio, seconds, summarise
from florence_onnx import Florence2, Request, Task
from florence_onnx.annotate import pipeline
from florence_onnx.annotate.output import open_output
from florence_onnx.annotate.pipeline import Annotation
from florence_onnx.annotate.questions import Plan, plan_questions
from florence_onnx.annotate.sources import find_items
from florence_onnx.answering import answer_batch
from florence_onnx.encoding import encode
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.preparing import read_picture
from florence_onnx.requests import Prepared
from florence_onnx.streaming import answer_or_fail

BATCH = 8
TOKENS = {Task.CAPTION: 20, Task.OD: 200}
"""Usual lengths of answers."""
WIDTH, HEIGHT = 1280, 960


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=1)
    parser.add_argument("--pictures", type=int, default=200, help="of a round (default: 200)")
    usual = TOKENS[Task.OD]
    parser.add_argument("--od-tokens", type=int, default=usual, help="of an OD (default: 200)")
    parser.add_argument(
        "--within", action="store_true", help="time the engine inside the annotation only"
    )
    arguments = parser.parse_args(argv)
    TOKENS[Task.OD] = arguments.od_tokens
    setup = prepare(arguments)
    cases, ratios = {}, {}
    for precision in arguments.precision:
        case = f"CAPTION and OD of every picture, ours {precision}"
        timed = _timed_within if arguments.within else _timed
        samples = timed(setup, precision, arguments.pictures, arguments.repeats)
        cases[case] = samples
        whole, alone = samples
        ratios[f"{case}: {whole} / {alone}"] = ratio(samples[whole], samples[alone])
    tokens = {task.name: count for task, count in TOKENS.items()}
    content = {
        "settings": {"beams": BEAMS, "batch_size": BATCH, "tokens": tokens},
        **summarise(cases),
        "ratios": ratios,
        "notes": [f"{arguments.pictures} pictures in each round."],
    }
    publish("annotating", arguments, argv, content, setup.provider)


def _timed(setup: Setup, precision: str, count: int, repeats: int) -> dict[str, list[float]]:
    """Measures the seconds of an annotation, and of the engine alone."""
    model = Florence2.load(
        setup.exported, precision=precision, providers=setup.providers, threads=setup.threads
    )
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        files = make_photos(photos, count, WIDTH, HEIGHT)
        outputs = (Path(folder) / f"out-{number}" for number in range(repeats))

        def alone() -> float:
            pictures = [read_picture(model.assets, str(file)) for file in files]

            def run() -> None:
                for start in range(0, count, BATCH):
                    encoded = [encode(model.graphs, one) for one in pictures[start:][:BATCH]]
                    for task in TOKENS:
                        batch = [model.prepare(Request(one, task)) for one in encoded]
                        answer_batch(model.assets, model.graphs, batch, _forced(model.policy, task))

            return seconds(run)

        model(str(files[0]), Task.CAPTION, max_new_tokens=20)  # takes memory, which then stays
        sides = {
            "annotate": lambda: seconds(lambda: _annotate(model, photos, next(outputs))),
            "engine alone": alone,
        }
        return alternate(sides, repeats, warmup=0)


def _timed_within(setup: Setup, precision: str, count: int, repeats: int) -> dict[str, list[float]]:
    """Measures the seconds of an annotation, and of the engine inside the annotation."""
    model = Florence2.load(
        setup.exported, precision=precision, providers=setup.providers, threads=setup.threads
    )
    samples: dict[str, list[float]] = {"annotate": [], "engine within": []}
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        files = make_photos(photos, count, WIDTH, HEIGHT)
        model(str(files[0]), Task.CAPTION, max_new_tokens=20)  # takes memory, which then stays
        for number in range(repeats):
            within: list[float] = []
            began = time.perf_counter()
            _annotate(model, photos, Path(folder) / f"out-{number}", within)
            samples["annotate"].append(time.perf_counter() - began)
            samples["engine within"].append(sum(within))
    return samples


def _annotate(model: Florence2, photos: Path, out: Path, within: list[float] | None = None) -> None:
    """Annotates pictures, and lists the seconds of each call of the engine."""
    noted: list[float] = [] if within is None else within

    def forced(
        assets: Any, graphs: Any, asked: Sequence[tuple[Request, Prepared]], policy: Any
    ) -> Iterator[Any]:
        task = Task.parse(str(asked[0][1].asked))
        began = time.perf_counter()
        yield from answer_or_fail(assets, graphs, asked, _forced(policy, task))
        noted.append(time.perf_counter() - began)

    def encoded(*arguments: Any) -> Any:
        began = time.perf_counter()
        result = encode(*arguments)
        noted.append(time.perf_counter() - began)
        return result

    plan = Plan(plan_questions([task.name for task in TOKENS], None, None, None), batch_size=BATCH)
    with (
        mock.patch.object(pipeline, "answer_or_fail", forced),
        mock.patch.object(pipeline, "encode", encoded),
        open_output(out, "fill", "benchmark", plan.settings()) as output,
    ):
        Annotation(model, plan, output).run(find_items([str(photos)]))


def _forced(policy: GenerationPolicy, task: Task) -> GenerationPolicy:
    """Returns the policy for answers of a task's usual length."""
    length = TOKENS[task]
    return policy.replace(num_beams=BEAMS, min_new_tokens=length, max_new_tokens=length)


def make_photos(folder: Path, count: int, width: int, height: int) -> list[Path]:
    """Writes pictures as smooth as photographs, with files as large as those of photographs."""
    folder.mkdir()
    files = [folder / f"{seed:05}.jpg" for seed in range(count)]
    for seed, file in enumerate(files):
        coarse = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16, 3))
        Image.fromarray(coarse.astype(np.uint8)).resize((width, height)).save(file, quality=90)
    return files


if __name__ == "__main__":
    main(sys.argv[1:])
