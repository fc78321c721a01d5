"""Questions about every picture."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from florence_onnx.cascading import Cascade
from florence_onnx.errors import InputError, TaskError
from florence_onnx.generation.options import GenerationOptions
from florence_onnx.prompts import check_input, what_is_asked
from florence_onnx.requests import EncodedImage, Request
from florence_onnx.results import Result
from florence_onnx.tasks import AnswerKind, InputKind, Task
from florence_onnx.tiling import Tiles, check_tiles, takes_tiles


@dataclass(frozen=True)
class Question:
    """Question: a task with its input, or the prompt of a fine-tune."""

    name: str
    """Name of the question in the output: ``"od"``, ``"caption+grounding"``, or the prompt."""
    task: Task | None = None
    text: str | None = None
    prompt: str | None = None
    answer: str | None = None
    cascade: Cascade | None = None
    """Cascade, whose first task this question is; None for a single task."""

    @property
    def takes_tiles(self) -> bool:
        """Tells whether the first task of the question can be asked about parts of a picture."""
        return takes_tiles(*what_is_asked(self.task, self.prompt, self.answer))

    @property
    def locates(self) -> bool:
        """Tells whether an answer, or one of a cascade, has things with labels and scores."""
        _, kind = what_is_asked(self.task, self.prompt, self.answer)
        return self.cascade is not None or kind is not AnswerKind.TEXT

    def request(self, image: EncodedImage) -> Request:
        """Makes the request of the question's first task about a picture."""
        return Request(image, self.task, self.text, prompt=self.prompt, answer=self.answer)


@dataclass(frozen=True)
class Plan:
    """Plan of an annotation: questions, options, and treatment of the answers."""

    questions: Sequence[Question]
    options: GenerationOptions = field(default_factory=lambda: GenerationOptions())
    """Overrides of the checkpoint's policy."""
    labels: Mapping[str, str | None] = field(default_factory=dict)
    """Label -> new label; None leaves things with the label out."""
    batch_size: int | None = 8
    """Limit of the questions that are answered together; None to find the fastest number."""
    limit: int | None = None
    """Limit of the pictures that are asked about."""
    tiles: Tiles | None = None
    """Tiles of large pictures, for the questions that can be asked about parts."""
    image_size: tuple[int, int] | None = None
    """Size (width, height) to which pictures are resized; None for the checkpoint's size."""

    def __post_init__(self) -> None:
        """Refuses tiles that no question takes, and what is about things where none locates."""
        if self.tiles is not None and not any(one.takes_tiles for one in self.questions):
            check_tiles(self.questions[0].name, AnswerKind.TEXT)
        about_things = {"--labels": self.labels, "--min-score": self.options.get("min_score")}
        if self.tiles is not None and any(one.task is Task.OCR for one in self.questions):
            del about_things["--min-score"]  # Tiles are asked for text with places.
        given = [name for name, value in about_things.items() if value]
        if given and not any(one.locates for one in self.questions):
            raise InputError(f"{given[0]} is for tasks that locate things; these answer text")

    def settings(self) -> dict[str, Any]:
        """Settings on which answers depend, besides model and question, ready for JSON."""
        settings: dict[str, Any] = {**self.options}
        if self.labels:
            content = json.dumps(self.labels, sort_keys=True).encode()
            settings["labels"] = hashlib.sha256(content).hexdigest()[:16]
        if self.tiles is not None:
            settings["tiles"] = asdict(self.tiles)
        if self.image_size is not None:
            settings["image_size"] = list(self.image_size)
        return settings

    def relabelled(self, result: Result) -> Result:
        """Renames the labels of a result by ``labels``."""
        if not self.labels:
            return result
        named = [(self.labels.get(one.label, one.label), one) for one in result.detections]
        kept = (replace(one, label=label) for label, one in named if label is not None)
        return replace(result, detections=tuple(kept))


def plan_questions(
    tasks: Sequence[str], text: str | None, prompt: str | None, answer: str | None
) -> list[Question]:
    """Makes the questions that the command line names.

    Args:
        tasks: Names of tasks, and of cascades such as ``"caption+grounding"``.
        text: Text, for the tasks that take text.
        prompt: A fine-tune's own prompt, alone or in addition to tasks.
        answer: Kind of the answer to the prompt.

    Raises:
        TaskError: A task is unknown or takes a region, or text is missing, or no task takes text.
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
    first, plus, _ = name.partition("+")
    task = Task.parse(first)
    given = text if task.input_kind is InputKind.TEXT else None
    if task.input_kind is InputKind.REGION:
        raise TaskError(f"{first} takes a region, which is another one in every picture")
    check_input(task, given, None)
    if not plus:
        return Question(task.name.lower(), task, given)
    cascade = Cascade.parse(name)
    return Question(cascade.name, task, given, cascade=cascade)
