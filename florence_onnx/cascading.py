"""Cascades: two tasks on one run of the vision encoder, the second about the first's answer."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from florence_onnx.constraining import check_rules
from florence_onnx.errors import TaskError
from florence_onnx.generation.grammar import has_grammar, has_labels, is_list
from florence_onnx.generation.options import GenerationOptions
from florence_onnx.generation.policy import ANY_MODEL
from florence_onnx.locations import to_bins, to_text
from florence_onnx.requests import EncodedImage, Request
from florence_onnx.results import SCHEMA, Outline, Result
from florence_onnx.tasks import AnswerKind, InputKind, Task, bare_name

_SHORT = {
    "grounding": Task.CAPTION_TO_PHRASE_GROUNDING,
    "segmentation": Task.REGION_TO_SEGMENTATION,
    "category": Task.REGION_TO_CATEGORY,
    "description": Task.REGION_TO_DESCRIPTION,
}
"""Short name behind a plus sign -> task."""


@dataclass(frozen=True)
class Cascade:
    """Cascade of two tasks: the second is about the text, or about every box, of the first."""

    first: Task
    then: Task
    name: str
    """Name of the cascade, as in ``"caption+grounding"``."""

    @classmethod
    def parse(cls, name: str) -> "Cascade":
        """Makes the cascade of a name, such as ``"caption+grounding"`` or ``"od+description"``.

        Case, blanks and angle brackets make no difference, as in the name of a task.

        Raises:
            TaskError: A task is unknown, or the second cannot be asked about the first's answer.
        """
        before, plus, behind = name.partition("+") if isinstance(name, str) else ("", "", "")
        if not plus:
            raise TaskError(f"{name!r} is no cascade: give two tasks, as in caption+grounding")
        first = Task.parse(before)
        key = bare_name(behind).removeprefix("<").removesuffix(">")
        then = _SHORT.get(key) or Task.parse(behind)
        if first.input_kind is InputKind.REGION:
            raise TaskError(f"{name!r}: {before} takes a region, which is another in every picture")
        taken = InputKind.TEXT if first.answer_kind is AnswerKind.TEXT else InputKind.REGION
        if then.input_kind is not taken:
            raise TaskError(
                f"{name!r}: behind a task that answers with text stands one that takes text, as in "
                "caption+grounding; behind one that locates things, one that takes a region, as in "
                "od+region_to_category"
            )
        behind = key if key in _SHORT else then.name.lower()
        return cls(first, then, f"{first.name.lower()}+{behind}")

    def follow_up(self, image: EncodedImage, answer: Result) -> list[Request]:
        """Makes the requests of the second task; none where the first answer is empty."""
        if self.hands_on_text:
            return [Request(image, self.then, answer.text)] if answer.text.strip() else []
        regions = (to_text(to_bins(found.box, answer.image_size)) for found in answer.detections)
        return [Request(image, self.then, region=region) for region in regions]

    @property
    def located(self) -> Task:
        """Task whose answer has places in the picture, to be drawn."""
        return self.then if self.first.answer_kind is AnswerKind.TEXT else self.first

    @property
    def hands_on_text(self) -> bool:
        """Tells whether the second task is asked about the text of the answer, not about boxes."""
        return self.then.input_kind is InputKind.TEXT

    def options(self, options: GenerationOptions) -> tuple[GenerationOptions, GenerationOptions]:
        """Divides options between both tasks: a rule goes to the tasks for which it has a meaning.

        Raises:
            TaskError: A rule has no meaning for either, or is wrong for one.
            GenerationError: An option is out of range.
        """
        rules = ANY_MODEL.replace(**options)
        both = GenerationOptions(**options), GenerationOptions(**options)
        steps = self.first, self.then
        for given, has_meaning, name in (
            (rules.labels, has_labels, "labels"),
            (rules.recall, is_list, "recall"),
            (rules.min_score or None, has_grammar, "min_score"),
        ):
            without = [step for step in steps if not has_meaning(step.answer_kind)]
            if given is not None and len(without) == len(steps):
                check_rules(self.first, self.first.answer_kind, rules)
            for step, own in zip(steps, both, strict=True):
                if step in without:
                    own.pop(name, None)  # type: ignore[misc]  # Both names are options.
        for step, own in zip(steps, both, strict=True):
            check_rules(step, step.answer_kind, ANY_MODEL.replace(**own))
        return both


@dataclass(frozen=True, kw_only=True)
class CascadeResult:
    """Answers of a cascade."""

    name: str
    """Name of the cascade, such as ``"caption+grounding"``."""
    first: Result
    """Answer to the first task."""
    then: Sequence[Result]
    """Answers to the second task: one about the text of ``first``, or one about every detection of
    ``first``, in order. Empty where ``first`` has nothing to ask about."""

    @property
    def located(self) -> Result:
        """Answer that has places in the picture; the first answer where there is no other."""
        is_text = self.first.answer_kind is AnswerKind.TEXT
        return self.then[0] if is_text and self.then else self.first

    @property
    def drawn(self) -> Result:
        """Answer to draw: `located`, with the outlines that the second task found in its boxes."""
        if self.located is not self.first:
            return self.located
        things = tuple(
            replace(found, polygons=_outlines(about)) if _outlines(about) else found
            for found, about in zip(self.first.detections, self.then, strict=True)
        )
        return replace(self.first, detections=things)

    def record(self, image: str | os.PathLike[str] | None = None) -> dict[str, Any]:
        """Makes the JSON object that ``florence-onnx run --json`` prints.

        Args:
            image: Name of the picture, such as the path of the file.
        """
        record: dict[str, Any] = {} if image is None else {"image": os.fsdecode(image)}
        return record | {
            "schema": SCHEMA,
            "cascade": self.name,
            "first": self.first.record(),
            "then": [one.record() for one in self.then],
        }

    def _repr_html_(self) -> str:
        """Makes the HTML for notebooks, as for a result; every box has the answer about it."""
        from florence_onnx.notebook import cascade_to_html

        return cascade_to_html(self)


def _outlines(answer: Result) -> tuple[Outline, ...]:
    return tuple(outline for found in answer.detections for outline in found.polygons or ())
