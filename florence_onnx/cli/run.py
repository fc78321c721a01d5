"""Command ``florence-onnx run``: answers a task on pictures."""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from florence_onnx.cli.drawings import plan_drawings, write_drawing
from florence_onnx.cli.options import (
    add_generation_options,
    add_hub_options,
    add_model_option,
    add_model_options,
    add_prompt_options,
    generation_options,
    open_model,
    path,
)
from florence_onnx.constraining import check_rules
from florence_onnx.errors import FlorenceError, ImageError, MissingDependencyError, TaskError
from florence_onnx.generation.options import GenerationOptions
from florence_onnx.generation.policy import ANY_MODEL
from florence_onnx.images.pixels import check_file
from florence_onnx.packages import require_packages
from florence_onnx.prompts import check_input, what_is_asked
from florence_onnx.requests import Failure, Request
from florence_onnx.results import Result
from florence_onnx.tasks import AnswerKind, Task
from florence_onnx.terminal import one_line, printable, say, show

NAME = "run"
SUMMARY = "Answer a task on one or more pictures."
EXAMPLES = """examples:
  florence-onnx run photo.jpg --task od
  florence-onnx run photo.jpg --task caption_to_phrase_grounding --text "a green car"
  florence-onnx run photo.jpg --task region_to_category --region 34,160,597,372
  florence-onnx run photo.jpg --prompt detect --answer boxes --model MODEL
  florence-onnx run photo.jpg --task od --draw drawn.png --model microsoft/Florence-2-large-ft
  florence-onnx run *.jpg --task ocr --json > answers.jsonl

The weights of a hub id are fetched once, and the model made of the weights is kept in a cache.
One picture that cannot be read does not stop the others; the exit status is then 2.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="picture files")
    parser.add_argument("--task", help=", ".join(task.name.lower() for task in Task))
    add_prompt_options(parser)
    add_model_option(parser)
    parser.add_argument(
        "--region",
        type=_region,
        metavar="X1,Y1,X2,Y2",
        help="for the tasks that take a region: pixels, or four location tokens",
    )
    add_generation_options(parser)
    _add_rules(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object per picture and line")
    parser.add_argument(
        "--draw",
        type=path,
        metavar="PATH",
        help="also write the picture with its answer drawn: a file for one picture, a folder of "
        "PNG files for several; replaces nothing but drawings",
    )
    add_model_options(parser)
    add_hub_options(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    asked, kind = what_is_asked(arguments.task, arguments.prompt, arguments.answer)
    _refuse_file(asked, arguments.task)
    check_input(asked, arguments.text, arguments.region)
    options = _options(arguments)
    check_rules(asked, kind, ANY_MODEL.replace(**options))
    drawings = plan_drawings(arguments.images, kind, arguments.draw)
    require_packages(("PIL", "tqdm"), "the command line", "cli")
    errors = _errors_of_all(arguments.images)
    if errors:
        for image, error in zip(arguments.images, errors, strict=True):
            _say_error(image, error)
        return 2
    model = open_model(arguments)
    requests = (
        Request(
            image,
            arguments.task,
            arguments.text,
            arguments.region,
            arguments.prompt,
            arguments.answer,
        )
        for image in arguments.images
    )
    answers = model.stream(requests, on_error="return", **options)
    status = 0
    for image, answer in zip(
        arguments.images, _with_progress(answers, len(arguments.images)), strict=True
    ):
        if isinstance(answer, Failure):
            wrong: Exception | None = answer.error
        else:
            _print_result(image, answer, arguments)
            wrong = _drawing_error(image, answer, drawings)
        if isinstance(wrong, MissingDependencyError | TaskError):
            raise wrong  # The error concerns all pictures.
        if wrong is not None:
            status = 2
            _say_error(image, wrong)
    return status


def _errors_of_all(images: Sequence[str]) -> list[ImageError]:
    """The reasons why no picture file can be opened; none where at least one can.

    A model may have to be fetched first, so this is found out before.
    """
    errors = []
    for image in images:
        try:
            check_file(image)
        except ImageError as error:
            errors.append(error)
        else:
            return []
    return errors


def _say_error(image: str, error: Exception) -> None:
    name = "" if isinstance(error, FlorenceError) else f"{type(error).__name__}: "
    say(f"florence-onnx: {image}: {name}{one_line(error)}")


def _add_rules(parser: argparse.ArgumentParser) -> None:
    """Adds the rules for answers."""
    parser.add_argument(
        "--constrain",
        action="store_true",
        help="keep the grammar of the task: whole groups of locations, labels of grounding from "
        "the caption",
    )
    parser.add_argument(
        "--labels", metavar="A,B", help="the only labels that may be used, with commas between"
    )
    parser.add_argument(
        "--recall",
        type=float,
        metavar="X",
        help="list more boxes: until the end is at least as likely as X below 1, or until there "
        "are X boxes",
    )


def _options(arguments: argparse.Namespace) -> GenerationOptions:
    options = generation_options(arguments)
    if arguments.constrain:
        options["constrain"] = True
    if arguments.labels is not None:
        options["labels"] = [label for label in arguments.labels.split(",") if label.strip()]
    if arguments.recall is not None:
        recall = arguments.recall
        options["recall"] = int(recall) if recall.is_integer() else recall
    return options


def _refuse_file(asked: Task | str, task: str | None) -> None:
    """A task that is no name may be a prompt, but not the name of a picture."""
    with suppress(OSError):  # A prompt may be too long for a name.
        if task is not None and not isinstance(asked, Task) and Path(task).is_file():
            raise TaskError(
                f"--task is {task!r}, which is a file; pictures are given without an option"
            )


def _region(text: str) -> str | list[float]:
    """Numbers that commas part, or else the text, which may be location tokens."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return text


def _with_progress(answers: Iterable[Result | Failure], total: int) -> Iterable[Result | Failure]:
    """Counts answers on stderr while a person is watching."""
    from tqdm import tqdm

    progress: Iterable[Result | Failure] = tqdm(
        answers, total=total, unit="picture", disable=None if total > 1 else True
    )
    return progress


def _drawing_error(
    image: str, result: Result, drawings: Mapping[str, Path]
) -> FlorenceError | None:
    """Draws an answer that is to be drawn; returns what went wrong."""
    try:
        if image in drawings:
            write_drawing(image, result, drawings[image])
    except FlorenceError as error:
        return error
    return None


def _print_result(image: str, result: Result, arguments: argparse.Namespace) -> None:
    if arguments.json:
        show(json.dumps(result.record(image), ensure_ascii=False))
        return
    several = len(arguments.images) > 1
    if several:
        show(f"{printable(image)}:")
    for line in _lines(result):
        show(f"  {line}" if several else line)


def _lines(result: Result) -> Iterator[str]:
    """A result for people: the text, or a label and pixels per line."""
    if result.answer_kind is AnswerKind.TEXT:
        yield result.text
    for found in result.detections:
        for points in found.polygons or (found.quad or found.box,):
            numbers = " ".join(f"{value:.1f}" for value in points)
            yield f"{printable(found.label)}: {numbers}" if found.label else numbers
