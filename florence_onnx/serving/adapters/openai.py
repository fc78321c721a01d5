"""Adapter for OpenAI's chat completions: a picture as a data URI, and a task in words.

The text of the message is a task (``<OD>``, ``od``), a tag with text or region behind
(``<CAPTION_TO_PHRASE_GROUNDING> a green car``), or the prompt of a fine-tune. Without text, the
picture is described. The answer is text or, for tasks that locate things, the JSON of
``Result.to_dict``.
"""

import json
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from florence_onnx.generation.options import GenerationOptions
from florence_onnx.results import Result
from florence_onnx.serving.asking import Asked, picture_bytes
from florence_onnx.serving.refusals import RefusalError
from florence_onnx.serving.schemas import TYPED, AskedTask
from florence_onnx.tasks import AnswerKind, InputKind, Task

_TAG = re.compile(r"\s*(<\w+>)\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class ImageUrl:
    """Picture of a part."""

    __pydantic_config__: ClassVar[dict[str, Any]] = TYPED

    url: str
    """Data URI. URLs are not opened."""


@dataclass(frozen=True)
class Part:
    """Part of a message."""

    __pydantic_config__: ClassVar[dict[str, Any]] = TYPED

    type: str
    """Type of the part: ``text`` or ``image_url``."""
    text: str | None = None
    """Text of the part."""
    image_url: ImageUrl | None = None
    """Picture of the part."""


@dataclass(frozen=True)
class Message:
    """Message of the conversation."""

    __pydantic_config__: ClassVar[dict[str, Any]] = TYPED

    role: str
    """Role of the author. Only the last message of a ``user`` is read."""
    content: str | list[Part] | None = None
    """Content: text, or parts."""


@dataclass(frozen=True)
class ChatBody:
    """Body of /v1/chat/completions. Fields that are not here are ignored."""

    __pydantic_config__: ClassVar[dict[str, Any]] = TYPED

    messages: list[Message]
    """Messages of the conversation."""
    model: str | None = None
    """Name of a model from /v1/models."""
    max_tokens: int | None = None
    """Limit of the answer in tokens."""
    max_completion_tokens: int | None = None
    """Limit of the answer in tokens, under the newer name."""
    stream: bool | None = None
    """Tells whether the answer comes as events. One event has the whole answer."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the search, which OpenAI's interface does not have (``extra_body``)."""


def asked_in_chat(body: ChatBody) -> Asked:
    """Reads the last message of the user.

    Raises:
        RefusalError: The message has no picture, or several.
    """
    messages = [message for message in body.messages if message.role == "user"]
    content = messages[-1].content if messages else None
    parts = content if isinstance(content, list) else [Part("text", content)]
    pictures = [part.image_url.url for part in parts if part.image_url is not None]
    if len(pictures) != 1:
        raise RefusalError(
            422,
            "image_error",
            f"the last message of the user has {len(pictures)} pictures; it must have one, as an "
            "image_url with a data URI",
        )
    text = " ".join(part.text for part in parts if part.text)
    options: dict[str, Any] = dict(body.options)
    most = body.max_completion_tokens or body.max_tokens
    if most is not None:
        options["max_new_tokens"] = most
    return Asked(
        picture_bytes(pictures[0]),
        [_task(text)],
        body.model,
        GenerationOptions(**options),  # type: ignore[typeddict-item]
    )


def completion(result: Result, model: str) -> dict[str, Any]:
    """Makes a chat completion of the answer."""
    message = {"role": "assistant", "content": _content(result), "refusal": None}
    return {
        **_head("chat.completion", model),
        "choices": [
            {"index": 0, "message": message, "finish_reason": _reason(result), "logprobs": None}
        ],
    }


def events(result: Result, model: str) -> Iterator[str]:
    """Makes the events of a stream from the answer."""
    head = _head("chat.completion.chunk", model)
    for delta, reason in (
        ({"role": "assistant", "content": _content(result)}, None),
        ({}, _reason(result)),
    ):
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        yield f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"
    yield "data: [DONE]\n\n"


def _head(kind: str, model: str) -> dict[str, Any]:
    identity = f"chatcmpl-{uuid.uuid4().hex}"
    return {"id": identity, "object": kind, "created": int(time.time()), "model": model}


def _content(result: Result) -> str:
    is_text = result.answer_kind is AnswerKind.TEXT
    return result.text if is_text else json.dumps(result.to_dict())


def _reason(result: Result) -> str:
    return "length" if result.truncated else "stop"


def _task(text: str) -> AskedTask:
    if not text.strip():
        return AskedTask(Task.MORE_DETAILED_CAPTION.value)
    found = _TAG.fullmatch(text)
    tags = [task for task in Task if found and task.value == found[1].upper()]
    if not found or not tags or not found[2]:
        return AskedTask(text)
    (task,) = tags
    if task.input_kind is InputKind.REGION:
        return AskedTask(task.value, region=found[2].strip())
    return AskedTask(task.value, text=found[2])
