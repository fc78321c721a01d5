"""What the model is asked: a task and its input as the prompt the reference builds."""

from collections.abc import Iterable

from florence_onnx.errors import TaskError
from florence_onnx.regions import region_to_text
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
