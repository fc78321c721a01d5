"""Snippets of Python and of commands for the questions on the page."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from florence_onnx.page.form import Question
from florence_onnx.requests import Request

_FLAGS = {
    "num_beams": "--beams",
    "max_new_tokens": "--max-new-tokens",
    "min_score": "--min-score",
    "labels": "--labels",
    "recall": "--recall",
}
"""Option -> flag of ``run``, where the flag has a value."""


@dataclass(frozen=True)
class Source:
    """Source of an opened model."""

    model: str
    """Folder, hub id, or ``demo``."""
    options: Mapping[str, Any]
    """Options of `Florence2.load`."""
    flags: Sequence[str]
    """Options as flags of the command line."""


def as_python(asked: Sequence[Question], source: Source) -> str:
    """Writes a program that asks the same questions and prints the same records."""
    image = _literal(picture_name(asked[0].request))
    opened = ", ".join((_literal(source.model), *_keywords(source.options)))
    head = f"from florence_onnx import Florence2\n\nmodel = Florence2.load({opened})\n"
    if len(asked) == 1:
        return f"{head}result = {_call(image, asked[0])}\nprint(result.record())\n"
    calls = "".join(f"    {_call('encoded', question)},\n" for question in asked)
    return (
        f"{head}encoded = model.encode({image})\nresults = [\n{calls}]\n"
        "for result in results:\n    print(result.record())\n"
    )


def as_command(asked: Sequence[Question], source: Source) -> str:
    """Writes a command for every question, which prints the same record."""
    return "".join(f"{shlex.join(_words(question, source))}\n" for question in asked)


def picture_name(request: Request) -> str:
    """Name of the uploaded file, without the folder."""
    return Path(str(request.image)).name


def _call(image: str, question: Question) -> str:
    request = question.request
    arguments = [image]
    if request.task is not None:
        arguments.append(_literal(_task(question)))
    if request.text is not None:
        arguments.append(_literal(request.text))
    given = {
        name: value
        for name in ("region", "prompt", "answer")
        if (value := getattr(request, name)) is not None
    }
    verb = "model" if question.cascade is None else "model.cascade"
    return f"{verb}({', '.join((*arguments, *_keywords({**given, **question.options})))})"


def _task(question: Question) -> str:
    return str(question.request.task) if question.cascade is None else question.cascade.name


def _keywords(options: Mapping[str, Any]) -> list[str]:
    return [f"{name}={_literal(value)}" for name, value in options.items()]


def _literal(value: Any) -> str:
    """Writes a value in Python's syntax, text in the quotes that formatters prefer."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))})"
    if isinstance(value, Mapping):
        pairs = (f"{_literal(key)}: {_literal(item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    return repr(value)


def _words(question: Question, source: Source) -> list[str]:
    request = question.request
    name = picture_name(request)
    words = ["florence-onnx", "run", f"./{name}" if name.startswith("-") else name]
    if request.task is not None:
        words += ["--task", _task(question)]
    for flag, value in (
        ("--text", request.text),
        ("--region", request.region),
        ("--prompt", request.prompt),
        ("--answer", request.answer),
    ):
        if value is not None:
            words += _flag(flag, value)
    for option, given in question.options.items():
        words += ["--constrain"] if option == "constrain" else _flag(_FLAGS[option], given)
    words += ["--model", source.model, *source.flags, "--json"]
    return words


def _flag(flag: str, value: Any) -> list[str]:
    """Writes a flag and its value, in one word where the value looks like a flag."""
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return [f"{flag}={text}"] if text.startswith("-") else [flag, text]
