"""Questions of a request, as requests of the runtime."""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from florence_onnx.errors import GenerationError
from florence_onnx.generation.options import GenerationOptions
from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.requests import Request
from florence_onnx.serving.limits import Limits
from florence_onnx.serving.refusals import RefusalError
from florence_onnx.serving.schemas import AskedTask, PictureQuestion, Question
from florence_onnx.tiling import TilesOption

_DATA_URI = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+-]+=[\w.+-]+)*;base64,", re.ASCII)
_BLANKS = re.compile(r"[ \t\r\n]+")


@dataclass(frozen=True)
class Asked:
    """Tasks about one picture."""

    image: bytes = field(repr=False)
    """Bytes of the picture file."""
    tasks: Sequence[AskedTask]
    """Tasks with their inputs."""
    model: str | None = None
    """Name of a model; None for the first model of the service."""
    options: GenerationOptions = field(default_factory=GenerationOptions)
    """Overrides of the model's policy, the same for all tasks."""
    tiles: TilesOption | None = None
    """Tiles of the picture, for tasks that list things."""
    is_list: bool = False
    """Tells whether the tasks, and so the answers, are a list."""

    def requests(self) -> list[Request]:
        """Makes a request of the runtime per task."""
        return [
            Request(self.image, one.task, one.text, one.region, one.prompt, one.answer, self.tiles)
            for one in self.tasks
        ]

    def policy(self, policy: GenerationPolicy, limits: Limits) -> GenerationPolicy:
        """Makes the policy from the model's policy and the request's options, within the limits.

        Raises:
            GenerationError: An option does not exist, or is out of range.
        """
        known = GenerationOptions.__annotations__
        for name in self.options:
            if name not in known:
                raise GenerationError(
                    f"unknown generation option {name!r:.80}; valid are {', '.join(known)}"
                )
        given = {"max_new_tokens", "max_length"} & set(self.options)
        return limits.bounded(policy.replace(**self.options), bool(given))


def asked(question: Question, image: bytes) -> Asked:
    """Reads a question whose fields have the right types.

    Raises:
        RefusalError: The question has both a task and a list of tasks.
    """
    options: dict[str, Any] = dict(question.options)
    if question.min_score is not None:
        options["min_score"] = question.min_score
    one = AskedTask(question.task, question.text, question.region, question.prompt, question.answer)
    if question.tasks is not None and one != AskedTask():
        raise RefusalError(
            422,
            "task_error",
            "give tasks, or task, text, region, prompt and answer beside it, not both",
        )
    tasks = [one] if question.tasks is None else question.tasks
    is_list = question.tasks is not None
    tiles = cast("TilesOption | None", question.tiles)  # Checked with the request.
    return Asked(
        image, tasks, question.model, cast(GenerationOptions, options), tiles, is_list=is_list
    )


def asked_in_json(question: PictureQuestion) -> Asked:
    """Reads a question that holds its picture.

    Raises:
        RefusalError: The picture is not in base64, or there are both a task and a list of tasks.
    """
    return asked(question, picture_bytes(question.image))


def picture_bytes(text: str) -> bytes:
    """Decodes a picture in base64, with or without the head of a data URI.

    Raises:
        RefusalError: The text is not base64 but, for example, a path or a URL. Neither is opened.
    """
    head = _DATA_URI.match(text)
    body = text[head.end() :] if head else text
    try:
        return base64.b64decode(_BLANKS.sub("", body), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusalError(
            422,
            "image_error",
            "the image must be the bytes of a picture file in base64, or a data URI of these; "
            "paths and URLs are not opened",
        ) from error
