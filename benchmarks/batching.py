"""Times batches and shared pictures against single requests, all in this package.

    python -m benchmarks.batching

Eight pictures with an OD of 200 tokens each, in one batch and one at a time; five tasks of 50
tokens on one picture, the picture encoded once and the tasks decoded together, and as five calls.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.harness.checkpoint import prepare
from benchmarks.harness.common import BEAMS, make_parser, make_picture, publish
from benchmarks.harness.measuring import Samples, alternate, ratio, seconds, summarise
from benchmarks.peers.ours import open_peer
from florence_onnx import Florence2, Request, Task

PICTURES, TOKENS = 8, 200
TASKS = (
    Task.CAPTION,
    Task.DETAILED_CAPTION,
    Task.MORE_DETAILED_CAPTION,
    Task.OD,
    Task.DENSE_REGION_CAPTION,
)
TASK_TOKENS = 50


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    arguments = make_parser(__doc__, repeats=7).parse_args(argv)
    setup = prepare(arguments)
    cases: dict[str, Samples] = {}
    ratios = {}
    for precision in arguments.precision:
        peer = open_peer(precision, setup)
        for case, sides in _cases(peer.model).items():
            samples = alternate(sides, arguments.repeats)
            together, apart = samples
            cases[f"{case}, {peer.name}"] = samples
            ratios[f"{case}: {together} / {apart}, {peer.name}"] = ratio(
                samples[together], samples[apart]
            )
    content = {
        "settings": {"beams": BEAMS, "task_tokens": TASK_TOKENS, "tokens": TOKENS},
        **summarise(cases),
        "ratios": ratios,
    }
    publish("batching", arguments, argv, content, setup.provider)


def _cases(model: Florence2) -> dict[str, dict[str, Callable[[], float]]]:
    """Case -> the side with a batch or shared picture, then the side with single requests."""
    pictures = [make_picture(seed=seed) for seed in range(PICTURES)]

    def generate(tokens: int) -> dict[str, Any]:
        return {"num_beams": BEAMS, "min_new_tokens": tokens, "max_new_tokens": tokens}

    def one_batch() -> None:
        requests = [Request(picture, Task.OD) for picture in pictures]
        model.run(requests, batch_size=PICTURES, **generate(TOKENS))

    def one_at_a_time() -> None:
        for picture in pictures:
            model(picture, Task.OD, **generate(TOKENS))

    def encoded_once() -> None:
        scene = model.encode(pictures[0])
        requests = [Request(scene, task) for task in TASKS]
        model.run(requests, batch_size=len(TASKS), **generate(TASK_TOKENS))

    def separate_calls() -> None:
        for task in TASKS:
            model(pictures[0], task, **generate(TASK_TOKENS))

    return {
        f"{PICTURES} pictures, OD of {TOKENS} tokens": {
            "in one batch": lambda: seconds(one_batch),
            "one at a time": lambda: seconds(one_at_a_time),
        },
        f"{len(TASKS)} tasks on one picture": {
            "encoded once": lambda: seconds(encoded_once),
            "separate calls": lambda: seconds(separate_calls),
        },
    }


if __name__ == "__main__":
    main(sys.argv[1:])
