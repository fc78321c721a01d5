"""Measures the accuracy of answers on held-out drawn scenes, per task, and the agreement of sides.

    python -m benchmarks.accuracy
    python -m benchmarks.accuracy --sides ours:fp32 ours:q8 --scenes 100 --beams 3
    python -m benchmarks.accuracy --tasks MORE_DETAILED_CAPTION

Every side gets the same questions about the same scenes. All sides are compared with the first
side. A side is ours:PRECISION or transformers:fp32.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.checkpoint import prepare
from benchmarks.harness.common import (
    DEMO,
    BenchmarkError,
    Picture,
    Setup,
    make_parser,
    progress,
    publish,
)
from benchmarks.harness.measuring import describe
from benchmarks.harness.ties import Judge
from florence_onnx import EncodedImage, Florence2, Request, Task
from florence_onnx_export.scenes.answers import Question, fixed_question
from florence_onnx_export.scenes.drawing import draw
from florence_onnx_export.scenes.measures import COCO, MEASURES, score
from florence_onnx_export.scenes.metrics import Answered
from florence_onnx_export.scenes.scene import Scene, sample_scene

CHUNK = 25
"""Requests per batch, all of one task, so that the answers of a batch have similar lengths."""
TIE = 1e-4
"""Difference of scores below which two beams are a tie, which rounding decides."""
EXACT = {"ours:fp32", "transformers:fp32"}
"""Sides whose tokens must be equal, except after ties."""
LONGEST = 256
"""Limit of an answer in tokens, which no right answer reaches."""


@dataclass(frozen=True)
class Asked:
    """Request, with the scene that decides which answer is right."""

    scene: Scene
    picture: Picture
    question: Question


@dataclass(frozen=True)
class Generated:
    """Answer that a side generated for a request."""

    text: str
    """Generated text, special and location tokens included."""
    token_ids: tuple[int, ...]
    """Token ids up to the end token."""


Side = Callable[[Sequence[Picture], Sequence[Question], int], list[Generated]]
"""Function that answers one question per picture with a number of beams."""


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=1, precisions=False)
    parser.set_defaults(model=str(DEMO))
    parser.add_argument("--sides", nargs="+", default=["ours:fp32", "ours:q8"])
    parser.add_argument("--scenes", type=int, default=3000, help="held-out scenes (default: 3000)")
    names = [task.name for task in Task]
    parser.add_argument(
        "--tasks", nargs="+", choices=names, default=names, metavar="TASK", help="default: all"
    )
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 3])
    arguments = parser.parse_args(argv)
    ours = [side.removeprefix("ours:") for side in arguments.sides if side.startswith("ours:")]
    arguments.precision = ["fp32", *ours]
    setup = prepare(arguments)
    opened = {name: open_side(name, setup) for name in arguments.sides}
    asked = ask([Task[name] for name in arguments.tasks], arguments.scenes)
    judge = Judge(setup, LONGEST) if set(opened) >= EXACT else None
    content = compare(opened, asked, arguments.beams, judge)
    publish("accuracy", arguments, argv, content, arguments.provider)


def ask(tasks: Sequence[Task], scenes: int) -> list[Asked]:
    """Makes questions of all tasks about the first held-out scenes, task by task."""
    drawn = [sample_scene(seed, "held-out") for seed in range(scenes)]
    pictures = [np.asarray(draw(scene)) for scene in drawn]
    return [
        Asked(scene, picture, fixed_question(scene, task))
        for task in tasks
        for scene, picture in zip(drawn, pictures, strict=True)
    ]


def open_side(name: str, setup: Setup) -> Side:
    """Opens a side by its name on the command line."""
    kind, _, variant = name.partition(":")
    if kind == "ours":
        return _ours(setup, variant)
    if name == "transformers:fp32":
        return _transformers(setup)
    raise BenchmarkError(f"no side {name!r}; there are ours:PRECISION and transformers:fp32")


def compare(
    sides: Mapping[str, Side], asked: Sequence[Asked], beams: Sequence[int], judge: Judge | None
) -> dict[str, Any]:
    """Measures every side, and the share of the side's answers that equal the first side's."""
    values: dict[str, dict[str, Any]] = {}
    tasks = list(dict.fromkeys(request.question.task.name for request in asked))
    scenes = len(asked) // len(tasks)
    named = f"all {len(Task)} tasks" if len(tasks) == len(Task) else ", ".join(tasks)
    notes = [f"{scenes} held-out scenes, every one asked {named}."]
    for count in beams:
        first: list[Generated] = []
        for name, side in sides.items():
            column = f"{name.replace(':', ' ')}, {'greedy' if count == 1 else f'{count} beams'}"
            answers, generated = _answer_all(column, side, asked, count)
            for title, value in score(answers, [*COCO, *MEASURES]).items():
                values.setdefault(title, {})[column] = describe([100 * value])
            if not first:
                first = generated
                continue
            reference = next(iter(sides))
            others = _differing(generated, first)
            is_exact = {name, reference} == EXACT
            same, reference = len(generated) - len(others), reference.replace(":", " ")
            note = (
                f"{column}: {same} of {len(generated)} answers ({same / len(generated):.2%}) have "
                f"the same tokens as those of {reference}."
            )
            if judge is not None and is_exact:
                ties = _ties(judge, asked, count, others)
                note += (
                    f" In {ties} of the other {len(others)} the search had a tie: two scores "
                    f"within {TIE:g}."
                )
            notes.append(note)
    return {
        "unit": "%",
        "scenes": scenes,
        "values": values,
        "ratios": {},
        "notes": notes,
    }


def _differing(
    generated: Sequence[Generated], others: Sequence[Generated]
) -> dict[int, tuple[tuple[int, ...], ...]]:
    """Number of a request -> answers of two sides, for requests with different answers."""
    both = [(a.token_ids, b.token_ids) for a, b in zip(generated, others, strict=True)]
    return {number: pair for number, pair in enumerate(both) if pair[0] != pair[1]}


def _ties(
    judge: Judge,
    asked: Sequence[Asked],
    beams: int,
    differing: Mapping[int, Sequence[tuple[int, ...]]],
) -> int:
    """Counts the different answers that a decision by less than `TIE` explains.

    Args:
        judge: Repeats the searches.
        asked: All requests.
        beams: Beams of the search.
        differing: Number of a request -> answers of both sides.
    """
    ties = 0
    for number, answers in differing.items():
        request = asked[number]
        ties += judge.margin(request.picture, request.question.prompt, beams, answers) < TIE
    return ties


def _answer_all(
    column: str, side: Side, asked: Sequence[Asked], beams: int
) -> tuple[list[Answered], list[Generated]]:
    generated: list[Generated] = []
    for task, group in groupby(asked, key=lambda request: request.question.task):
        progress(f"{column}: {task.name}")
        requests = list(group)
        for start in range(0, len(requests), CHUNK):
            chunk = requests[start : start + CHUNK]
            pictures = [request.picture for request in chunk]
            generated += side(pictures, [request.question for request in chunk], beams)
    answers = [
        Answered(request.scene, request.question, one.text)
        for request, one in zip(asked, generated, strict=True)
    ]
    return answers, generated


def _ours(setup: Setup, precision: str) -> Side:
    model = Florence2.load(
        setup.exported, precision=precision, providers=setup.providers, threads=setup.threads
    )

    encoded: dict[int, EncodedImage] = {}  # by identity, because the caller keeps all pictures

    def answer(
        pictures: Sequence[Picture], questions: Sequence[Question], beams: int
    ) -> list[Generated]:
        requests = []
        for picture, question in zip(pictures, questions, strict=True):
            if id(picture) not in encoded:
                encoded[id(picture)] = model.encode(picture)
            requests.append(
                Request(encoded[id(picture)], question.task, question.text, question.region)
            )
        results = model.run(requests, batch_size=CHUNK, num_beams=beams, max_new_tokens=LONGEST)
        return [Generated(result.generated, result.token_ids) for result in results]

    return answer


def _transformers(setup: Setup) -> Side:
    import torch
    from transformers import AutoTokenizer, CLIPImageProcessorPil, Florence2ForConditionalGeneration

    folder: Path = setup.checkpoint
    network = Florence2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.set_num_threads(setup.threads)
    end, image = tokenizer.eos_token_id, network.config.image_token_id

    def answer(
        pictures: Sequence[Picture], questions: Sequence[Question], beams: int
    ) -> list[Generated]:
        pixels = processor(list(pictures), return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            tokens = network.get_image_features(pixels[:1]).pooler_output.shape[1]
        prompts = tokenizer([question.prompt for question in questions], padding=True)
        ids = torch.tensor(prompts["input_ids"])
        picture_ids = torch.full((len(ids), tokens), image)
        mask = torch.tensor(prompts["attention_mask"])
        with torch.inference_mode():
            rows = network.generate(
                input_ids=torch.cat([picture_ids, ids], 1),
                attention_mask=torch.cat([torch.ones_like(picture_ids), mask], 1),
                pixel_values=pixels,
                num_beams=beams,
                do_sample=False,
                max_new_tokens=LONGEST,
            )
        found = []
        for row in torch.as_tensor(rows).tolist():
            kept = row[: row.index(end, 1) + 1] if end in row[1:] else row
            found.append(Generated(str(tokenizer.decode(kept)), tuple(kept)))
        return found

    return answer


if __name__ == "__main__":
    main(sys.argv[1:])
