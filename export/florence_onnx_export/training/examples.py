"""Examples of the user, read from JSON lines and all checked before the first step."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from florence_onnx.assets.reading import Assets
from florence_onnx.errors import ImageError, InputError, TaskError
from florence_onnx.fields import Fields
from florence_onnx.files import open_regular, parse_json, refuse_lfs_pointer
from florence_onnx.images.pixels import to_rgb
from florence_onnx.tasks import Task, refuse_tags
from florence_onnx.tokenizer import LOCATION_TOKENS
from florence_onnx_export.training.batches import Example, expand_prompt

_LONGEST_LINE = 1 << 20
_LOCATION = re.compile(r"<\s*loc[^<>]*>", re.IGNORECASE)
_AT_ONCE = 256


def read_examples(path: Path, assets: Assets) -> list[Example]:
    """Reads lines of {"image": path, "prompt": "<DocVQA>question", "answer": "..."}.

    Paths are relative to the folder of the file. A prompt may be the tag of a task, followed by the
    text or region of the task; any other prompt stays as it is. Every picture is decoded once.

    Args:
        path: The file. Blank lines and unknown fields are skipped.
        assets: Assets of the model to train, with the tokenizer and the number of positions.

    Raises:
        InputError: The file or an example cannot be used. The message names the line.
    """
    examples: list[Example] = []
    lines: dict[Path, str] = {}
    for place, line in _lines(path):
        example = _example(place, line, path.parent, assets)
        examples.append(example)
        lines.setdefault(example.image, place)
    if not examples:
        raise InputError(f"{path} holds no example")
    _check_pictures(lines)
    return examples


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yields place (``file:number``) and content of every line that is not blank."""
    refuse_lfs_pointer(path, InputError)
    try:
        with open_regular(path) as file:
            number = 0
            while line := file.readline(_LONGEST_LINE + 1):
                number += 1
                if len(line) > _LONGEST_LINE:
                    raise InputError(f"{path}:{number} is longer than {_LONGEST_LINE} bytes")
                if line.strip():
                    yield f"{path}:{number}", line
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _example(place: str, line: bytes, folder: Path, assets: Assets) -> Example:
    fields = Fields(parse_json(line, place, InputError), place, InputError)
    image, prompt, answer = (fields.text(name) for name in ("image", "prompt", "answer"))
    if not prompt.strip():
        raise fields.refused("prompt", "text that is not blank")
    task = _named(prompt)
    if task is not None and prompt != task.value:
        raise fields.refused("prompt", f"{task}, the task's tag")
    try:
        expanded = expand_prompt(prompt)
        refuse_tags(expanded)
        _check_locations(prompt, "prompt")
        _check_locations(answer, "answer")
        assets.encode_prompt(expanded)
        length = len(assets.tokenizer.encode_text(answer))
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    if length > assets.max_positions:
        raise InputError(
            f"{place}: the answer is {length} tokens long, and the model has "
            f"{assets.max_positions} positions; shorten it"
        )
    return Example(folder / image, expanded, answer)


def _named(prompt: str) -> Task | None:
    """Returns the task if the prompt is the name of a task, in any spelling."""
    try:
        return Task.parse(prompt)
    except TaskError:
        return None


def _check_locations(text: str, field: str) -> None:
    """Refuses location tokens beyond the last: the model would learn to spell such text."""
    for location in _LOCATION.findall(text):
        if location not in LOCATION_TOKENS:
            raise InputError(
                f"{field} holds {location[:80]!r}, which is no location; "
                f"they go from {LOCATION_TOKENS[0]} to {LOCATION_TOKENS[-1]}"
            )


def _check_pictures(lines: dict[Path, str]) -> None:
    """Decodes each picture once. ``lines`` has the line that names a picture first."""
    named = list(lines.items())
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(named), _AT_ONCE):
            list(pool.map(_check_picture, *zip(*named[start : start + _AT_ONCE], strict=True)))


def _check_picture(image: Path, place: str) -> None:
    try:
        to_rgb(image)
    except ImageError as error:
        raise InputError(f"{place}: {error}") from error
