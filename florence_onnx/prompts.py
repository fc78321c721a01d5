"""What the model is asked: a task and its input as the prompt the reference builds."""

import math
import re
from collections.abc import Iterable

from florence_onnx.errors import RegionError, TaskError
from florence_onnx.locations import BINS, check_image_size, to_bins, to_text
from florence_onnx.tasks import InputKind, Task, refuse_tags, resolve_task


def build_prompt(
    task: Task | str,
    text: str | None = None,
    region: str | Iterable[float] | None = None,
    image_size: tuple[int, int] | None = None,
) -> str:
    """The prompt of a request, as transformers Florence2Processor._construct_prompts builds it.

    Args:
        task: a task, its name, or the whole prompt of a fine-tune, which is returned as it is.
        text: what the tasks look for that take text; for those that take a region, its location
            tokens, as the reference has them.
        region: for the tasks that take one: a box (x1, y1, x2, y2) in pixels, or location tokens.
        image_size: (width, height) in pixels; only a pixel box needs it.

    Raises:
        TaskError: if the task is unknown, lacks its input or takes none.
        RegionError: if the region is malformed, reversed or outside the picture.
    """
    task = resolve_task(task)
    if not isinstance(task, Task) or task.input_kind is InputKind.NONE:
        _refuse(task, text=text, region=region)
        return task.prompt if isinstance(task, Task) else task
    if task.input_kind is InputKind.TEXT:
        _refuse(task, region=region)
        given = _checked_text(task, text)
    else:
        given = _region_tokens(task, text, region, image_size)
    return task.prompt.format(input=given)


def _refuse(task: Task | str, **inputs: object) -> None:
    for name, value in inputs.items():
        if value is not None:
            hint = "" if isinstance(task, Task) else ": write the whole prompt as the task"
            raise TaskError(f"{str(task)!r} takes no {name}{hint}")


def _checked_text(task: Task, text: str | None) -> str:
    if not isinstance(text, str) or not text.strip():
        raise TaskError(f"{task} needs text= (--text) to say what to look for, got {text!r}")
    refuse_tags(text)
    return text.strip()


def _region_tokens(
    task: Task,
    text: str | None,
    region: str | Iterable[float] | None,
    image_size: tuple[int, int] | None,
) -> str:
    if text is not None and region is not None:
        raise TaskError(f"{task} takes region= or its location tokens as text=, not both")
    given = text if region is None else region
    if given is None:
        raise TaskError(f"{task} needs region= (--region), a box (x1, y1, x2, y2) in pixels")
    return region_to_text(given, image_size)


_FORMS = (
    "a region is four numbers x1, y1, x2, y2 in pixels, or four location tokens such as "
    "'<loc_52><loc_332><loc_932><loc_774>'"
)


def region_to_text(region: str | Iterable[float], image_size: tuple[int, int] | None = None) -> str:
    """The region as four location tokens.

    Args:
        region: a box (x1, y1, x2, y2) in pixels of the picture, or its four location tokens.
        image_size: (width, height) in pixels; only a pixel box needs it.

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
        raise RegionError(f"the region {box} is outside the picture of {width} x {height} pixels")
    return to_text(to_bins(box, (width, height)))


def _token_bins(region: str) -> tuple[int, int, int, int]:
    found = re.fullmatch(r"<loc_([0-9]+)>" * 4, region.strip())
    if found is None:
        raise RegionError(f"{region!r} is not a region: {_FORMS}")
    # Long runs of digits are out of range, and int() refuses them beyond some length.
    if any(len(digits.lstrip("0")) > len(str(BINS - 1)) for digits in found.groups()):
        raise RegionError(f"{region!r} has a location beyond <loc_{BINS - 1}>")
    x1, y1, x2, y2 = (int(digits) for digits in found.groups())
    if x2 < x1 or y2 < y1:
        raise RegionError(f"the region {region!r} is reversed: it must have x1 <= x2 and y1 <= y2")
    return x1, y1, x2, y2


def _pixel_box(region: Iterable[float]) -> tuple[float, float, float, float]:
    try:
        x1, y1, x2, y2 = (float(value) for value in region)
    except (TypeError, ValueError):
        raise RegionError(f"{region!r} is not a region: {_FORMS}") from None
    if not all(math.isfinite(value) for value in (x1, y1, x2, y2)):
        raise RegionError(f"the region {region!r} holds a value that is not finite")
    if x2 <= x1 or y2 <= y1:
        raise RegionError(f"the region {region!r} is reversed or empty: x1 < x2 and y1 < y2 needed")
    return x1, y1, x2, y2
