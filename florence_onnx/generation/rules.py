"""Rules for answers beyond transformers' options: scores, grammar, recall."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from florence_onnx.generation import checks
from florence_onnx.generation.checks import require

_MOST_LABELS = 10_000
_LONGEST_LABEL = 200
"""Limit of a label in characters, which no name of a thing reaches."""
_MOST_PLACES = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerRules:
    """Part of a `GenerationPolicy` that no checkpoint sets.

    Raises:
        GenerationError: An option is out of range or of the wrong type.
    """

    min_score: float = 0.0
    """Detections whose score is below are left out of results. Text is kept."""
    constrain: bool = False
    """Tells whether answers keep the grammar of the task: location tokens only in complete groups,
    each group behind a label where the task has labels, and labels of grounding only from the words
    of the caption. Answers that are text are free."""
    labels: tuple[str, ...] | None = None
    """Labels that detection, dense captions, open vocabulary and grounding may use; includes
    ``constrain``. None leaves labels to the model."""
    recall: float | None = None
    """Rule for longer lists of boxes, which a model ends early. Below 1: the end is held back until
    the probability of the end is at least this number. Else: the end is held back until there are
    this many boxes. Includes ``constrain``, and drops boxes that overlap a box of the same label
    with a higher score. None leaves the end to the model."""

    def __post_init__(self) -> None:
        """Checks every option, and turns lists into tuples."""
        score, recall = self.min_score, self.recall
        holds = checks.is_number(score) and 0 <= score <= 1
        require(holds, "min_score", score, "a number from 0 to 1")
        require(isinstance(self.constrain, bool), "constrain", self.constrain, "True or False")
        if self.labels is not None:
            object.__setattr__(self, "labels", _labels(self.labels))
        if recall is not None:
            is_count = checks.is_integer(recall) and 1 <= recall <= _MOST_PLACES
            holds = is_count or (checks.is_number(recall) and 0 < recall < 1)
            allowed = f"a probability below 1, or a number of boxes from 1 to {_MOST_PLACES}"
            require(holds, "recall", recall, allowed)

    @property
    def has_grammar(self) -> bool:
        """Tells whether any option restricts what may be generated."""
        return self.constrain or self.labels is not None or self.recall is not None


def _labels(labels: Any) -> tuple[str, ...]:
    is_list = isinstance(labels, Sequence) and not isinstance(labels, str | bytes)
    require(is_list, "labels", labels, 'a list of labels, such as ["car", "person"]')
    require(len(labels) > 0, "labels", labels, "at least one label; None leaves them to the model")
    require(len(labels) <= _MOST_LABELS, "labels", labels, f"at most {_MOST_LABELS} labels")
    for label in labels:
        holds = isinstance(label, str) and 0 < len(label.strip()) <= _LONGEST_LABEL
        holds = holds and not set(label) & set("<\n") and not _has_surrogates(label)
        allowed = f"labels of up to {_LONGEST_LABEL} characters, without < and line breaks"
        require(holds, "labels", label, allowed)
    return tuple(dict.fromkeys(label.strip() for label in labels))


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
