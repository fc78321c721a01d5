"""Times every stage of a request, from the decoded picture to the parsed answer."""

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from florence_onnx.batches import Scene, encoder_inputs
from florence_onnx.decoding import Hypothesis, search
from florence_onnx.model import Florence2
from florence_onnx.parsing import parse_answer
from florence_onnx.prompts import build_prompt
from florence_onnx.steps import DecoderSteps, Scores
from florence_onnx.tasks import Task

STAGES = ("preprocess", "vision", "embed_encoder", "first_token", "per_token", "parse")
"""What is timed, in order; ``per_token`` is one step of the search after the first."""

Ids = npt.NDArray[np.int64]


def random_picture() -> npt.NDArray[np.uint8]:
    """Pixels to time with, uint8 [960,1280,3]: speed does not depend on what a picture shows."""
    return np.random.default_rng(0).integers(0, 256, (960, 1280, 3), dtype=np.uint8)


def time_stages(
    model: Florence2,
    image: npt.NDArray[np.uint8],
    *,
    tokens: int,
    repeats: int,
    warmup: int = 1,
    **generation: Any,
) -> dict[str, float]:
    """Median seconds of each stage of one `Task.OD` request.

    Args:
        model: The model to time.
        image: uint8 [H,W,3].
        tokens: Tokens to generate; the answer is kept from ending earlier.
        repeats: Counted runs.
        warmup: Runs before them that are not counted.
        **generation: Overrides of the generation policy.

    Returns:
        Seconds per stage, and ``total`` for the whole request.
    """
    runs = [_run(model, image, tokens, generation) for _ in range(warmup + repeats)][warmup:]
    return {name: statistics.median(run[name] for run in runs) for name in (*STAGES, "total")}


def _run(
    model: Florence2, image: npt.NDArray[np.uint8], tokens: int, generation: dict[str, Any]
) -> dict[str, float]:
    companions, graphs = model.companions, model.graphs
    policy = model.policy.replace(max_new_tokens=tokens, min_new_tokens=tokens, **generation)
    clock = _Clock()
    pixel_values = companions.preprocessor(image)
    clock.mark("preprocess")
    scene = Scene(graphs.image_features(pixel_values[None])[0], (image.shape[1], image.shape[0]))
    clock.mark("vision")
    input_ids = companions.tokenizer.encode(build_prompt(Task.OD))
    mask, embeds = encoder_inputs(graphs, [scene], [input_ids], policy.pad_token_id)
    steps = _TimedSteps(DecoderSteps(graphs, mask, embeds))
    clock.mark("embed_encoder")
    best: Hypothesis = search(steps, 1, policy)[0][0]
    clock.mark("search")
    parse_answer(companions.tokenizer.decode(best.token_ids), Task.OD, scene.size)
    clock.mark("parse")
    starts = [*steps.starts, clock.seconds["search"] + steps.starts[0]]
    between = [after - before for before, after in pairwise(starts)]
    return {
        **{name: clock.seconds[name] for name in STAGES if name in clock.seconds},
        "first_token": between[0],
        "per_token": statistics.median(between[1:]),
        "total": clock.total(),
    }


class _Clock:
    """Seconds between marks."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = self._last = time.perf_counter()

    def mark(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now

    def total(self) -> float:
        return self._last - self._start


class _TimedSteps:
    """Notes when each step of the search starts."""

    def __init__(self, steps: Callable[[Ids, Ids, Ids], Scores]) -> None:
        self._steps = steps
        self.starts: list[float] = []

    def __call__(self, token_ids: Ids, rows: Ids, requests: Ids) -> Scores:
        self.starts.append(time.perf_counter())
        return self._steps(token_ids, rows, requests)
