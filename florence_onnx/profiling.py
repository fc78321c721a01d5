"""Times of every stage of a request, and the choice of the fastest precision and providers."""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from florence_onnx.answering import answer_batch
from florence_onnx.engine import contract
from florence_onnx.engine.providers import CPU, OTHERS, first_line
from florence_onnx.errors import ProviderError
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.hub import ANYHOW, Access
from florence_onnx.model import Florence2
from florence_onnx.requests import Request
from florence_onnx.tasks import Task

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from florence_onnx.generation.options import GenerationOptions

STAGES = ("preprocess", "vision", "embed_encoder", "first_token", "per_token", "parse")
"""Stages that are timed, in order: ``preprocess`` is `Florence2.prepare`, other stages belong to
`Florence2.answer`; ``per_token`` is one step of the search after the first."""


def random_picture() -> npt.NDArray[np.uint8]:
    """Makes pixels for timing, uint8 [960,1280,3]. Speed does not depend on a picture's content."""
    return np.random.default_rng(0).integers(0, 256, (960, 1280, 3), dtype=np.uint8)


def time_stages(
    model: Florence2,
    image: npt.NDArray[np.uint8],
    *,
    tokens: int,
    repeats: int,
    warmup: int = 1,
    **options: "Unpack[GenerationOptions]",
) -> dict[str, float]:
    """Measures the median seconds of each stage of one `Task.OD` request.

    Args:
        model: The model to time.
        image: uint8 [H,W,3].
        tokens: Tokens to generate; the answer is kept from ending earlier.
        repeats: Counted runs.
        warmup: Runs before the counted runs.
        **options: Overrides of the generation policy.

    Returns:
        Seconds per stage, and ``total`` for the whole request.
    """
    policy = model.policy.replace(**options, max_new_tokens=tokens, min_new_tokens=tokens)
    request = Request(image, Task.OD)
    runs = [_run(model, request, policy) for _ in range(warmup + repeats)][warmup:]
    return {name: statistics.median(run[name] for run in runs) for name in (*STAGES, "total")}


def _run(model: Florence2, request: Request, policy: GenerationPolicy) -> dict[str, float]:
    marks = [("start", time.perf_counter())]

    def mark(stage: str) -> None:
        marks.append((stage, time.perf_counter()))

    prepared = model.prepare(request)
    mark("preprocess")
    answer_batch(model.assets, model.graphs, [prepared], policy, watch=mark)
    ends = dict(marks)
    starts = [at for stage, at in marks if stage == "step"] + [ends["search"]]
    between = [after - before for before, after in pairwise(starts)]
    lasted = {stage: at - before for (_, before), (stage, at) in pairwise(marks) if stage in STAGES}
    return {
        **lasted,
        "first_token": between[0],
        "per_token": statistics.median(between[1:]),
        "total": ends["parse"] - ends["start"],
    }


TOKENS = 20
"""Length of the timed answer in tokens: that of a caption."""
NOISE = 1.03
"""Factor between two times below which the times are a tie: a second run may reverse them."""

Placement = list[str] | dict[str, list[str]]
"""Provider names as `Florence2.load` takes them."""


@dataclass(frozen=True)
class Trial:
    """Trial of a precision on some providers: times, or the reason for no times."""

    precision: str
    """Key of `contract.PRECISIONS`."""
    providers: Placement
    """Providers that were asked for."""
    seconds: dict[str, float] | None
    """Seconds per stage, as `time_stages` returns; ``total`` is the whole caption."""
    error: str | None
    """Reason why there are no seconds."""


def placements(available: Sequence[str]) -> list[Placement]:
    """Lists the placements of a model on providers that `tune` tries.

    The placements are the CPU, every other provider, and every other provider for the vision
    encoder alone, which has most of the arithmetic.

    Args:
        available: Providers that ONNX Runtime lists. Azure's provider, which runs no graphs here,
            is left out.
    """
    others = [name for name in available if name not in (CPU, "AzureExecutionProvider")]
    vision: list[Placement] = [{contract.VISION_ENCODER: [name], OTHERS: [CPU]} for name in others]
    return [[CPU], *([name] for name in others), *vision]


def attempt(folder: Path, precision: str, providers: Placement, repeats: int) -> Trial:
    """Opens a model and times a caption of `TOKENS` tokens; a failure is part of the answer."""
    try:
        model = Florence2.load(folder, precision=precision, providers=providers)
        seconds = time_stages(model, random_picture(), tokens=TOKENS, repeats=repeats)
    except Exception as error:  # ONNX Runtime's exceptions have no common base.
        return Trial(precision, providers, None, first_line(error))
    return Trial(precision, providers, seconds, None)


def choose(trials: Sequence[Trial]) -> Trial:
    """Chooses the trial with the fastest caption; in a tie, the most exact, then the fastest.

    Raises:
        ProviderError: None of the trials could be timed.
    """
    totals = [(trial.seconds["total"], trial) for trial in trials if trial.seconds]
    if not totals:
        raise ProviderError(f"nothing could be timed; the first failure: {trials[0].error}")
    fastest = min(total for total, _ in totals)
    exactness = list(contract.PRECISIONS)
    tied = [(total, trial) for total, trial in totals if total <= NOISE * fastest]
    return min(tied, key=lambda pair: (exactness.index(pair[1].precision), pair[0]))[1]


def load_line(source: str, trial: Trial, access: Access = ANYHOW) -> str:
    """Writes the Python expression that opens a model as a trial did."""
    given: dict[str, object] = {"precision": trial.precision, "providers": trial.providers}
    if access.revision:
        given["revision"] = access.revision
    if access.cache_dir is not None:
        given["cache_dir"] = str(access.cache_dir)
    # JSON's strings, lists and objects are Python's, with the quotes that formatters prefer.
    model, *options = (json.dumps(value, ensure_ascii=False) for value in (source, *given.values()))
    pairs = (f"{name}={value}" for name, value in zip(given, options, strict=True))
    return f"Florence2.load({', '.join([model, *pairs])})"
