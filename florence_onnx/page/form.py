"""Form of the page: fields, checks, and questions for the runtime."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from florence_onnx.cascading import Cascade
from florence_onnx.constraining import check_min_score, check_rules
from florence_onnx.errors import FlorenceError, ImageError, InputError, TaskError
from florence_onnx.fields import Fields
from florence_onnx.generation.grammar import has_grammar, has_labels, is_list
from florence_onnx.generation.options import GenerationOptions
from florence_onnx.generation.policy import ANY_MODEL, GenerationPolicy
from florence_onnx.preparing import check_question
from florence_onnx.prompts import Region
from florence_onnx.requests import Request
from florence_onnx.serving.limits import Limits
from florence_onnx.tasks import AnswerKind, InputKind, Task

PROMPT = "prompt"
"""Name, among the tasks, of the prompt of a fine-tune."""
TASKS = (*(task.name.lower() for task in Task), PROMPT)
"""Tasks that can be chosen."""
CASCADES = ("caption+grounding", "od+category", "od+description", "od+segmentation")
"""Cascades that can be chosen: two tasks, the second about the first's answer."""
LONGEST = 2000
"""Limit of a field in characters."""
LIMITS = Limits(queue=16, seconds=300.0)
"""Limits of the page: for one person or a few, not for the load of a service."""

_FILE = "the form"


@dataclass(frozen=True)
class Form:
    """Values of the form. An empty text is a field that is left empty."""

    picture: str
    """Path of the picture file that was uploaded."""
    tasks: Sequence[str]
    """Tasks that are chosen, of `TASKS` and `CASCADES`."""
    text: str
    """Text, for the tasks that take text."""
    region: str
    """Region, for the tasks that take one: ``x1,y1,x2,y2`` in pixels, or four location tokens."""
    prompt: str
    """Prompt of a fine-tune."""
    answer: str
    """Kind of the answer to the prompt, such as ``boxes``."""
    beams: int
    """Beams of the search."""
    tokens: int
    """Limit of the answer in tokens; 0 for the checkpoint's limit."""
    precision: str
    """Precision of the graphs, as in ``--precision``."""
    constrain: bool
    """Tells whether answers keep the grammar of the task."""
    labels: str
    """Labels that may be used, with commas between; empty for all labels."""
    recall: float
    """Rule for the end of lists of boxes, as in `GenerationPolicy`; 0 for the model's choice."""
    min_score: float
    """Score below which detections are left out."""


@dataclass(frozen=True)
class Question:
    """Question of a task about the picture."""

    task: str
    """Name of the task, of `TASKS` or `CASCADES`."""
    request: Request
    """Request to the runtime, with the path of the picture; of a cascade, the first request."""
    options: GenerationOptions
    """Overrides of the model's policy."""
    cascade: Cascade | None = None
    """The cascade, where there are two tasks."""


def read_form(values: Mapping[str, Any], limits: Limits = LIMITS) -> Form:
    """Reads the fields as the browser sends them.

    Args:
        values: Field -> value. The picture is an object with a ``path``, others are as in `Form`,
            and null is a field that is left empty.
        limits: Most tasks, beams and tokens.

    Raises:
        InputError: A field has a wrong value or is too long, or no task is chosen.
    """
    fields = Fields(values, _FILE, InputError)
    return Form(
        picture=_picture(fields),
        tasks=_tasks(fields, limits),
        text=_text(fields, "text"),
        region=_text(fields, "region"),
        prompt=_text(fields, "prompt"),
        answer=_text(fields, "answer"),
        beams=fields.integer("beams", 1, limits.beams),
        tokens=fields.integer("tokens", 0, limits.tokens, 0),
        precision=_text(fields, "precision"),
        constrain=fields.boolean("constrain", False),
        labels=_text(fields, "labels"),
        recall=fields.number("recall", 0, limits.tokens, 0.0),
        min_score=fields.number("min_score", 0, 1, 0.0),
    )


def questions(form: Form, policy: GenerationPolicy, limits: Limits = LIMITS) -> list[Question]:
    """Makes the questions for the runtime, with all checks that need no picture.

    ``labels``, ``recall`` and ``min_score`` go only to the tasks for which they have a meaning.

    Args:
        form: Values of the form.
        policy: The model's; options that equal the policy's are left out.
        limits: Most beams and tokens.

    Raises:
        InputError: A task lacks its input, an option is out of range, or a rule has a meaning for
            none of the tasks.
    """
    asked = [(task, _request(form, task)) for task in form.tasks]
    read = {task: _kinds(task, request) for task, request in asked}
    every = [one for kinds in read.values() for one in kinds]
    rules: GenerationOptions = {}
    if form.labels.strip():
        rules["labels"] = [label for label in form.labels.split(",") if label.strip()]
    if form.recall:
        rules["recall"] = int(form.recall) if form.recall.is_integer() else form.recall
    for name, has_meaning in (("labels", has_labels), ("recall", is_list)):
        if name in rules and not any(has_meaning(kind) for _, kind in every):
            check_rules(*every[0], ANY_MODEL.replace(**rules))
    check_min_score(every, ANY_MODEL.replace(min_score=form.min_score))
    found = []
    for task, request in asked:
        kinds = [kind for _, kind in read[task]]
        options = _options(form, policy)
        if "labels" in rules and any(map(has_labels, kinds)):
            options["labels"] = rules["labels"]
        if "recall" in rules and any(map(is_list, kinds)):
            options["recall"] = rules["recall"]
        if form.min_score and any(map(has_grammar, kinds)):
            options["min_score"] = form.min_score
        limits.bounded(policy.replace(**options), bool(form.tokens))
        found.append(Question(task, request, options, _cascade(task)))
    return found


def _cascade(task: str) -> Cascade | None:
    return Cascade.parse(task) if task in CASCADES else None


def _kinds(task: str, request: Request) -> list[tuple[Task | str, AnswerKind]]:
    """Checks a request; returns the task or prompt with its kind of answer, of a cascade both."""
    first = check_question(request)
    cascade = _cascade(task)
    return [first] if cascade is None else [first, (cascade.then, cascade.then.answer_kind)]


def takes(tasks: Sequence[str]) -> tuple[bool, bool, bool]:
    """Tells whether any of the tasks takes text, a region, or the prompt of a fine-tune."""
    kinds = {Task.parse(task).input_kind for task in tasks if task not in (PROMPT, *CASCADES)}
    return InputKind.TEXT in kinds, InputKind.REGION in kinds, PROMPT in tasks


def _request(form: Form, task: str) -> Request:
    if task == PROMPT:
        return Request(form.picture, prompt=form.prompt, answer=form.answer or None)
    cascade = _cascade(task)
    asked = Task.parse(task) if cascade is None else cascade.first
    kind = asked.input_kind
    return Request(
        form.picture,
        asked.name.lower(),
        form.text if kind is InputKind.TEXT else None,
        _region(form.region) if kind is InputKind.REGION else None,
    )


def _options(form: Form, policy: GenerationPolicy) -> GenerationOptions:
    options: GenerationOptions = {}
    if form.beams != policy.num_beams:
        options["num_beams"] = form.beams
    if form.tokens:
        options["max_new_tokens"] = form.tokens
    if form.constrain:
        options["constrain"] = True
    return options


def _region(text: str) -> Region | None:
    """Reads numbers with commas between; returns any other text, such as location tokens."""
    if not text.strip():
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return text
    return tuple(int(number) if number.is_integer() else number for number in numbers)


def _picture(fields: Fields) -> str:
    found = fields.get("picture")
    if found is None:
        raise ImageError("give a picture first: upload one, paste one, or choose an example")
    path = found.get("path") if isinstance(found, Mapping) else None
    if not isinstance(path, str):
        raise fields.refused("picture", "a file that was uploaded")
    return path


def _tasks(fields: Fields, limits: Limits) -> tuple[str, ...]:
    found = fields.get("tasks", [])
    choices = (*TASKS, *CASCADES)
    if not isinstance(found, list) or not all(one in choices for one in found):
        raise fields.refused("tasks", f"a list of some of {', '.join(choices)}")
    if not 1 <= len(found) <= limits.tasks:
        raise TaskError(f"choose 1 to {limits.tasks} tasks")
    return tuple(dict.fromkeys(found))


def _text(fields: Fields, name: str) -> str:
    text = "" if fields.get(name) is None else fields.text(name)
    if len(text) > LONGEST:
        raise _too_long(name, len(text))
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise fields.refused(name, "text without halves of characters")
    return text


def _too_long(name: str, length: int) -> FlorenceError:
    return InputError(f"{_FILE}: {name} has {length} characters; it may have {LONGEST}")
