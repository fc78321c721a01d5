"""Prompts for the model: a task and its input, as in the reference."""

import math
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any, SupportsFloat

import numpy.typing as npt

from florence_onnx.errors import RegionError, TaskError
from florence_onnx.locations import BINS, check_image_size, to_bins, to_text
from florence_onnx.tasks import AnswerKind, InputKind, Task, refuse_tags, resolve_task

Box = Sequence[SupportsFloat] | npt.NDArray[Any]
Region = str | Box
"""Region: x1, y1, x2, y2 in pixels of the picture, or four location tokens."""


def what_is_asked(
    task: Task | str | None, prompt: str | None, answer: AnswerKind | str | None
) -> tuple[Task | str, AnswerKind]:
    """Finds the task, or the prompt in place of a task, and the kind of the answer.

    Args:
        task: a task, its name, or the prompt of a fine-tune that cannot be taken for a name.
        prompt: any prompt of a fine-tune, instead of a task.
        answer: kind of the answer to a prompt; text by default.

    Raises:
        TaskError: if there is no task and no prompt, or both, or an answer kind for a task.
    """
    if prompt is None:
        if task is None:
            names = ", ".join(known.name.lower() for known in Task)
            raise TaskError(
                f"give task= (--task), one of {names}; "
                "or prompt= (--prompt), the words of a fine-tune"
            )
        asked = resolve_task(task)
    else:
        if task is not None:
            raise TaskError(f"give task or prompt, not both: got {task!r} and {prompt!r:.80}")
        asked = _checked_prompt(prompt)
    if not isinstance(asked, Task):
        return asked, AnswerKind.TEXT if answer is None else AnswerKind.parse(answer)
    if answer is not None:
        raise TaskError(
            f"answer= says how the answer to a prompt is read; that to {asked} is always read as "
            f"{asked.answer_kind.name.lower()}"
        )
    return asked, asked.answer_kind


def build_prompt(
    task: Task | str,
    text: str | None = None,
    region: Region | None = None,
    image_size: tuple[int, int] | None = None,
) -> str:
    """Builds the prompt of a request, as transformers' Florence2Processor._construct_prompts does.

    Args:
        task: a task, its name, or the whole prompt of a fine-tune, which is returned as it is.
        text: text, for the tasks that take text.
        region: for the tasks that take one: a box (x1, y1, x2, y2) in pixels, or location tokens.
        image_size: (width, height) in pixels; only a pixel box needs the size.

    Raises:
        TaskError: if the task is unknown, lacks its input or takes none.
        RegionError: if the region is malformed, reversed or outside the picture.
    """
    return fill_prompt(resolve_task(task), text, region, image_size)


def fill_prompt(
    asked: Task | str,
    text: str | None,
    region: Region | None,
    image_size: tuple[int, int] | None,
) -> str:
    """Does the work of `build_prompt`, for a result of `what_is_asked`."""
    check_input(asked, text, region)
    if not isinstance(asked, Task):
        return asked
    if region is not None:
        return asked.prompt.format(input=region_to_text(region, image_size))
    return asked.prompt if text is None else asked.prompt.format(input=text.strip())


def check_input(asked: Task | str, text: str | None, region: Region | None) -> None:
    """Checks, without a picture, that a task gets the input that it takes.

    Raises:
        TaskError: if input is missing, or the task takes no input, or the text is not usable.
        RegionError: if the region is malformed or reversed.
    """
    kind = asked.input_kind if isinstance(asked, Task) else InputKind.NONE
    if text is not None and kind is not InputKind.TEXT:
        raise TaskError(f"{str(asked)!r} takes no text{_instead(asked)}")
    if region is not None and kind is not InputKind.REGION:
        raise TaskError(f"{str(asked)!r} takes no region{_instead(asked)}")
    if kind is InputKind.TEXT:
        _check_text(asked, text)
    if kind is InputKind.REGION:
        if region is None:
            raise TaskError(f"{asked} needs region= (--region), a box (x1, y1, x2, y2) in pixels")
        if isinstance(region, str):
            _token_bins(region)
        else:
            _pixel_box(region)


def _instead(asked: Task | str) -> str:
    if not isinstance(asked, Task):
        return ": write the whole prompt as prompt= (--prompt)"
    return {
        InputKind.NONE: "",
        InputKind.TEXT: "; it takes text= (--text)",
        InputKind.REGION: "; it takes region= (--region), in pixels or as four location tokens",
    }[asked.input_kind]


def _checked_prompt(prompt: str) -> str:
    if not isinstance(prompt, str) or not prompt.strip():
        raise TaskError(f"prompt= must be a str with the fine-tune's words, got {prompt!r:.80}")
    refuse_tags(prompt)
    return prompt


def _check_text(task: Task | str, text: str | None) -> None:
    if text is not None and not isinstance(text, str):
        raise TaskError(
            f"text= must be one str, got {type(text).__name__} {text!r:.80}; ask once per text"
        )
    if text is None or not text.strip():
        raise TaskError(f"{task} needs text= (--text) to say what to look for, got {text!r}")
    refuse_tags(text)


_FORMS = (
    "a region is four numbers x1, y1, x2, y2 in pixels, or four location tokens such as "
    "'<loc_52><loc_332><loc_932><loc_774>'"
)


def region_to_text(region: Region, image_size: tuple[int, int] | None) -> str:
    """Writes a region as four location tokens.

    Args:
        region: a box (x1, y1, x2, y2) in pixels of the picture, or its four location tokens.
        image_size: (width, height) in pixels; only a pixel box needs the size.

    Raises:
        RegionError: if the region is malformed, reversed or outside the picture.
    """
    if isinstance(region, str):
        return to_text(_token_bins(region))
    box = _pixel_box(region)
    if image_size is None:
        raise RegionError("a region in pixels needs image_size=(width, height)")
    width, height = check_image_size(image_size)
    x1, y1, x2, y2 = box
    if min(x1, y1) < 0 or x2 > width or y2 > height:
        raise RegionError(f"the region {box} is outside the picture of {width}x{height} pixels")
    return to_text(to_bins(box, (width, height)))


def _token_bins(region: str) -> tuple[int, int, int, int]:
    found = re.fullmatch(r"<loc_([0-9]+)>" * 4, region.strip())
    if found is None:
        raise RegionError(f"{region!r} is not a region: {_FORMS}")
    # Long runs of digits are out of range, and int() refuses very long ones.
    if any(len(digits.lstrip("0")) > len(str(BINS - 1)) for digits in found.groups()):
        raise RegionError(f"{region!r} has a location beyond <loc_{BINS - 1}>")
    x1, y1, x2, y2 = (int(digits) for digits in found.groups())
    if x2 < x1 or y2 < y1:
        raise RegionError(f"the region {region!r} is reversed: it must have x1 <= x2 and y1 <= y2")
    return x1, y1, x2, y2


def _pixel_box(region: Box) -> tuple[float, float, float, float]:
    try:
        if isinstance(region, bytes | Mapping | Set) or any(map(_is_no_number, region)):
            raise TypeError
        x1, y1, x2, y2 = map(float, region)
    except (TypeError, ValueError, OverflowError):
        raise RegionError(
            f"{region!r:.80} of type {type(region).__name__} is not a region: {_FORMS}"
        ) from None
    box = x1, y1, x2, y2
    if not all(map(math.isfinite, box)):
        raise RegionError(f"the region {region!r} holds a value that is not finite")
    if x2 <= x1 or y2 <= y1:
        raise RegionError(f"the region {region!r} is reversed or empty: x1 < x2 and y1 < y2 needed")
    return box


def _is_no_number(value: object) -> bool:
    return isinstance(value, str | bytes | bool)
