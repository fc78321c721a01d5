"""Times a model's precisions on the providers of this machine, and chooses among them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from florence_onnx import graphs
from florence_onnx.errors import ProviderError
from florence_onnx.model import Florence2
from florence_onnx.providers import CPU, OTHERS, first_line
from florence_onnx.stages import random_picture, time_stages

TOKENS = 20
"""Length of the answer that is timed: a caption's."""
NOISE = 1.03
"""Times up to this factor apart are a tie: a second run may order them otherwise."""

Placement = list[str] | dict[str, list[str]]
"""Provider names as `Florence2.load` takes them."""


@dataclass(frozen=True)
class Trial:
    """A precision that was timed on some providers, or could not be."""

    precision: str
    """A key of `graphs.PRECISIONS`."""
    providers: Placement
    """What was asked for."""
    seconds: dict[str, float] | None
    """Per stage, as `time_stages` returns them; ``total`` is the whole caption."""
    error: str | None
    """Why there are no seconds."""


def placements(available: Sequence[str]) -> list[Placement]:
    """The ways to place a model on providers that are worth a try.

    The CPU; every other provider; and each of these for the vision encoder alone, where most of
    the arithmetic is.

    Args:
        available: What ONNX Runtime lists. Azure's provider, which runs no graphs here, is
            left out.
    """
    others = [name for name in available if name not in (CPU, "AzureExecutionProvider")]
    vision: list[Placement] = [{graphs.VISION_ENCODER: [name], OTHERS: [CPU]} for name in others]
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
    """The trial with the fastest caption; of those in a tie, the most exact, then the fastest.

    Raises:
        ProviderError: None of the trials could be timed.
    """
    totals = [(trial.seconds["total"], trial) for trial in trials if trial.seconds]
    if not totals:
        raise ProviderError(f"nothing could be timed; the first failure: {trials[0].error}")
    fastest = min(total for total, _ in totals)
    exactness = list(graphs.PRECISIONS)
    tied = [(total, trial) for total, trial in totals if total <= NOISE * fastest]
    return min(tied, key=lambda pair: (exactness.index(pair[1].precision), pair[0]))[1]


def load_line(source: str, trial: Trial) -> str:
    """The Python expression that opens a model as a trial did."""
    # JSON's strings, lists and objects are Python's, with the quotes that formatters prefer.
    model, precision, providers = (
        json.dumps(value, ensure_ascii=False)
        for value in (source, trial.precision, trial.providers)
    )
    return f"Florence2.load({model}, precision={precision}, providers={providers})"
