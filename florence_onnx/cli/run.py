"""Command ``florence-onnx run``: answers a task on pictures."""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from florence_onnx.cascading import CascadeResult
from florence_onnx.cli.cascades import answers_of, named_cascade
from florence_onnx.cli.drawings import plan_drawings, write_drawing
from florence_onnx.cli.opening import open_model
from florence_onnx.cli.options import (
    add_generation_options,
    add_hub_options,
    add_model_option,
    add_model_options,
    add_picture_options,
    add_prompt_options,
    generation_options,
    path,
    requested_tiles,
)
from florence_onnx.constraining import check_min_score, check_rules
from florence_onnx.errors import FlorenceError, ImageError, MissingDependencyError, TaskError
from florence_onnx.generation.options import GenerationOptions
from florence_onnx.generation.policy import ANY_MODEL
from florence_onnx.images.pixels import check_file
from florence_onnx.packages import require_packages
from florence_onnx.plain_text import lines
from florence_onnx.prompts import check_input, what_is_asked
from florence_onnx.requests import Failure, Request
from florence_onnx.results import Result
from florence_onnx.tasks import AnswerKind, Task
from florence_onnx.terminal import one_line, printable, say, show
from florence_onnx.tiling import Tiles, check_tiles, kind_in_tiles

Answer = Result | CascadeResult

NAME = "run"
SUMMARY = "Answer a task on one or more pictures."
EXAMPLES = """examples:
  florence-onnx run photo.jpg --task od
  florence-onnx run photo.jpg --task caption_to_phrase_grounding --text "a green car"
  florence-onnx run photo.jpg --task region_to_category --region 34,160,597,372
  florence-onnx run photo.jpg --task caption+grounding --draw drawn.png
  florence-onnx run plan.png --task ocr --tiles auto
  florence-onnx run photo.jpg --prompt detect --answer boxes --model MODEL
  florence-onnx run photo.jpg --task od --draw drawn.png --model microsoft/Florence-2-large-ft
  florence-onnx run *.jpg --task ocr --json > answers.jsonl

The weights of a hub id are fetched once, and the model made of the weights is kept in a cache.
One picture that cannot be read does not stop the others; the exit status is then 2.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="picture files")
    parser.add_argument(
        "--task",
        help=f"{', '.join(task.name.lower() for task in Task)}; or two, the second about the "
        "answer to the first, as in caption+grounding or od+region_to_category",
    )
    add_prompt_options(parser)
    add_model_option(parser)
    parser.add_argument(
        "--region",
        type=_region,
        metavar="X1,Y1,X2,Y2",
        help="for the tasks that take a region: pixels, or four location tokens",
    )
    add_picture_options(parser)
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
    parser.add_argument(
        "--font",
        type=path,
        metavar="FILE",
        help="TrueType or OpenType file for the labels of --draw (default: fonts of this machine "
        "that have the letters)",
    )
    add_model_options(parser)
    add_hub_options(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    tiles, options = requested_tiles(arguments), _options(arguments)
    cascade = named_cascade(arguments, tiles, options)
    kind = (
        _checked_kind(arguments, tiles, options) if cascade is None else cascade.located.answer_kind
    )
    drawings = plan_drawings(arguments.images, kind, arguments.draw, arguments.font)
    require_packages(("PIL", "tqdm"), "the command line", "cli")
    errors = _errors_of_all(arguments.images)
    if errors:
        for image, error in zip(arguments.images, errors, strict=True):
            _say_error(image, error)
        return 2
    model = open_model(arguments)
    model.assets.at_size(arguments.image_size)  # A wrong size concerns all pictures.
    requests = (
        Request(
            image,
            arguments.task,
            arguments.text,
            arguments.region,
            arguments.prompt,
            arguments.answer,
            tiles,
            arguments.image_size,
        )
        for image in arguments.images
    )
    answers: Iterable[Answer | Failure] = (
        model.stream(requests, on_error="return", **options)
        if cascade is None
        else answers_of(model, cascade, arguments, tiles, options)
    )
    status = 0
    for image, answer in zip(
        arguments.images, _with_progress(answers, len(arguments.images)), strict=True
    ):
        if isinstance(answer, Failure):
            wrong: Exception | None = answer.error
        else:
            _print_result(image, answer, arguments)
            wrong = _drawing_error(image, answer, drawings, arguments.font)
        # The second task of a cascade is asked about words of the model, another task is not.
        concerns_all = isinstance(wrong, TaskError) and cascade is None
        if wrong is not None and (concerns_all or isinstance(wrong, MissingDependencyError)):
            raise wrong
        if wrong is not None:
            status = 2
            _say_error(image, wrong)
    return status


def _checked_kind(
    arguments: argparse.Namespace, tiles: Tiles | None, options: GenerationOptions
) -> AnswerKind:
    """Finds the kind of the answers, and checks the options.

    Raises:
        InputError: The task, the input of the task or an option is wrong.
    """
    asked, kind = what_is_asked(arguments.task, arguments.prompt, arguments.answer)
    _refuse_file(asked, arguments.task)
    check_input(asked, arguments.text, arguments.region)
    rules = ANY_MODEL.replace(**options)
    check_rules(asked, kind, rules)
    check_min_score([(asked, kind if tiles is None else kind_in_tiles(asked, kind))], rules)
    if tiles is not None:
        check_tiles(asked, kind)
    return kind


def _errors_of_all(images: Sequence[str]) -> list[ImageError]:
    """Finds the reasons why no picture file can be opened; none where at least one can.

    This comes before a model is opened, because a model may have to be fetched.
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
        type=number,
        metavar="X",
        help="list more boxes: until the end is at least as likely as X below 1, or until there "
        "are X boxes",
    )


def number(text: str) -> int | float:
    """Reads a count, such as 1, or a probability, such as 1.0, which are not the same."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _options(arguments: argparse.Namespace) -> GenerationOptions:
    options = generation_options(arguments)
    if arguments.constrain:
        options["constrain"] = True
    if arguments.labels is not None:
        options["labels"] = [label for label in arguments.labels.split(",") if label.strip()]
    if arguments.recall is not None:
        options["recall"] = arguments.recall
    return options


def _refuse_file(asked: Task | str, task: str | None) -> None:
    """Refuses a task that is the name of a file: a prompt may be any other text."""
    with suppress(OSError):  # A prompt may be too long for a file name.
        if task is not None and not isinstance(asked, Task) and Path(task).is_file():
            raise TaskError(
                f"--task is {task!r}, which is a file; pictures are given without an option"
            )


def _region(text: str) -> str | list[float]:
    """Reads numbers with commas between; returns any other text, such as location tokens."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return text


def _with_progress(answers: Iterable[Answer | Failure], total: int) -> Iterable[Answer | Failure]:
    """Counts answers on stderr at a terminal."""
    from tqdm import tqdm

    progress: Iterable[Answer | Failure] = tqdm(
        answers, total=total, unit="picture", disable=None if total > 1 else True
    )
    return progress


def _drawing_error(
    image: str, result: Answer, drawings: Mapping[str, Path], font: Path | None
) -> FlorenceError | None:
    """Draws an answer, if drawings are wanted; returns the error, if any."""
    try:
        if image in drawings:
            drawn = result.drawn if isinstance(result, CascadeResult) else result
            write_drawing(image, drawn, drawings[image], font)
    except FlorenceError as error:
        return error
    return None


def _print_result(image: str, result: Answer, arguments: argparse.Namespace) -> None:
    if arguments.json:
        show(json.dumps(result.record(image), ensure_ascii=False))
        return
    several = len(arguments.images) > 1
    if several:
        show(f"{printable(image)}:")
    for line in lines(result):
        show(f"  {line}" if several else line)
    parts = [result.first, *result.then] if isinstance(result, CascadeResult) else [result]
    if any(part.truncated for part in parts):
        say(f"note: {printable(image)}: the limit of the length (--max-new-tokens) cut the answer")
