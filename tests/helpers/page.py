"""The form of the page as a browser sends it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from florence_onnx.generation.policy import GenerationPolicy
from florence_onnx.page.form import Question, questions, read_form


def filled(picture: Path | str, tasks: Sequence[str] = ("od",), **fields: Any) -> dict[str, Any]:
    """The fields of the page, as they are at first and with some of them changed."""
    return {
        "picture": {"path": str(picture), "meta": {"_type": "gradio.FileData"}},
        "tasks": list(tasks),
        "text": "",
        "region": "",
        "prompt": "",
        "answer": "text",
        "beams": 3,
        "tokens": 0,
        "precision": "fp32",
        "constrain": False,
        "labels": "",
        "recall": 0,
        "min_score": 0,
        **fields,
    }


def asked(
    policy: GenerationPolicy, picture: Path | str, tasks: Sequence[str] = ("od",), **fields: Any
) -> list[Question]:
    """What the page asks for such fields."""
    return questions(read_form(filled(picture, tasks, **fields)), policy)
