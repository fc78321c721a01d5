"""What is asked about every picture."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from florence_onnx.errors import TaskError
from florence_onnx.generation.options import GenerationOptions
from florence_onnx.prompts import check_input, what_is_asked
from florence_onnx.requests import EncodedImage, Request
from florence_onnx.results import Result
from florence_onnx.tasks import AnswerKind, InputKind, Task

_GROUNDING = "grounding"
"""What `Task.CAPTION_TO_PHRASE_GROUNDING` is called behind a plus sign."""


@dataclass(frozen=True)
class Question:
    """A task and what it takes besides the picture, or the prompt of a fine-tune."""

    name: str
    """What the output calls it: ``"od"``, ``"caption+grounding"``, or the prompt."""
    task: Task | None = None
    text: str | None = None
    prompt: str | None = None
    answer: str | None = None
    then: Task | None = None
    """A second task, whose text is the answer to the first."""

    def request(self, image: EncodedImage) -> Request:
        """The question about a picture; the first one, where there are two."""
        return Request(image, self.task, self.text, prompt=self.prompt, answer=self.answer)


@dataclass(frozen=True)
class Plan:
    """What is asked about every picture, how, and what becomes of the answers."""

    questions: Sequence[Question]
    options: GenerationOptions = field(default_factory=lambda: GenerationOptions())
    """Overrides of the checkpoint's policy."""
    labels: Mapping[str, str | None] = field(default_factory=dict)
    """Label -> what it is called instead; None leaves out what has it."""
    batch_size: int | None = 8
    """Most questions that are answered together; None to find the fastest size."""
    limit: int | None = None
    """Most pictures that are asked about."""

    def settings(self) -> dict[str, Any]:
        """What makes answers differ besides the model and the question, ready for JSON."""
        settings: dict[str, Any] = {**self.options}
        if self.labels:
            content = json.dumps(self.labels, sort_keys=True).encode()
            settings["labels"] = hashlib.sha256(content).hexdigest()[:16]
        return settings

    def relabelled(self, result: Result) -> Result:
        """The result with the labels of ``labels``."""
        if not self.labels:
            return result
        named = [(self.labels.get(one.label, one.label), one) for one in result.detections]
        kept = (replace(one, label=label) for label, one in named if label is not None)
        return replace(result, detections=tuple(kept))


def plan_questions(
    tasks: Sequence[str], text: str | None, prompt: str | None, answer: str | None
) -> list[Question]:
    """The questions that the command line names.

    Args:
        tasks: Names of tasks; ``"caption+grounding"`` for one whose text is the answer to another.
        text: For the tasks that take text.
        prompt: A fine-tune's own prompt, besides the tasks or instead of them.
        answer: How the answer to the prompt is read.

    Raises:
        TaskError: A task is unknown or takes a region, or text is missing or taken by none.
    """
    if not tasks and prompt is None:
        raise TaskError("give --task, one or more, or --prompt")
    if answer is not None and prompt is None:
        raise TaskError("--answer says how the answer to a --prompt is read")
    questions = [_question(name, text) for name in dict.fromkeys(tasks)]
    if text is not None and all(question.text is None for question in questions):
        raise TaskError("--text is given, but no task takes text")
    if prompt is not None:
        what_is_asked(None, prompt, answer)
        kind = None if answer is None else AnswerKind.parse(answer).name.lower()
        questions.append(Question(prompt, prompt=prompt, answer=kind))
    return list({question.name: question for question in questions}.values())


def _question(name: str, text: str | None) -> Question:
    first, plus, second = name.partition("+")
    task = Task.parse(first)
    given = text if task.input_kind is InputKind.TEXT else None
    if task.input_kind is InputKind.REGION:
        raise TaskError(f"{first} takes a region, which is another one in every picture")
    check_input(task, given, None)
    if not plus:
        return Question(task.name.lower(), task, given)
    then = Task.CAPTION_TO_PHRASE_GROUNDING if second == _GROUNDING else Task.parse(second)
    if task.answer_kind is not AnswerKind.TEXT or then.input_kind is not InputKind.TEXT:
        raise TaskError(
            f"{name!r}: before + stands a task that answers with text, behind it one that takes "
            "text, as in caption+grounding"
        )
    return Question(f"{task.name.lower()}+{second}", task, given, then=then)
