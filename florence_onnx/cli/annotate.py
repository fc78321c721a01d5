"""Command ``florence-onnx annotate``: answers tasks on many pictures, in one run or several."""

import argparse
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from florence_onnx.annotate.output import ANNOTATIONS, ERRORS, MODES, Output, open_output
from florence_onnx.annotate.questions import Plan, plan_questions
from florence_onnx.annotate.sources import find_items
from florence_onnx.annotate.video import is_video
from florence_onnx.cli.annotators import add_ray_options, here, on_ray
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
    whole_number,
)
from florence_onnx.cli.progress import progress
from florence_onnx.errors import InputError
from florence_onnx.files import read_json
from florence_onnx.generation.policy import ANY_MODEL
from florence_onnx.packages import require_packages
from florence_onnx.terminal import say, show

NAME = "annotate"
SUMMARY = "Answer tasks on many pictures into a file of JSON lines, which a second run continues."
EXAMPLES = f"""examples:
  florence-onnx annotate photos --task od caption ocr --out labelled
  florence-onnx annotate 'photos/**/*.jpg' shard-00.tar --task caption+grounding --out labelled
  find photos -name '*.png' | florence-onnx annotate - --task od --out labelled --json
  florence-onnx annotate photos --task open_vocabulary_detection --text "a car" --out labelled
  florence-onnx annotate /mnt/photos --task od --out labelled --ray auto --gpus-per-actor 0.5

OUT/{ANNOTATIONS} has one line per picture and task, OUT/{ERRORS} what failed in the last run.
A picture is encoded once for all tasks. Run the same command again to go on after Ctrl-C, a kill or
a full disk: pictures whose answers are there, by path and content, are not asked again.
The exit status is 2 if something failed, 130 after Ctrl-C.
"""
_NULL = "null"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="picture, folder (with all folders in it), quoted pattern, .tar file, video, .txt "
        "file of paths, or - for paths on the standard input",
    )
    parser.add_argument(
        "--task",
        nargs="+",
        action="extend",
        default=[],
        metavar="TASK",
        help="tasks of florence-onnx run; caption+grounding grounds the caption",
    )
    parser.add_argument(
        "--every",
        type=_seconds,
        metavar="SECONDS",
        help="time between two frames of a video (default: 1)",
    )
    add_prompt_options(parser)
    _add_run_options(parser)
    add_model_option(parser)
    add_picture_options(parser)
    add_generation_options(parser)
    add_model_options(parser)
    add_hub_options(parser)
    add_ray_options(parser)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for the output, and for the number of pictures at a time."""
    parser.add_argument(
        "--out", metavar="DIR", required=True, help=f"folder to write; {_NULL} writes nothing"
    )
    parser.add_argument(
        "--mode",
        choices=MODES,
        help="fill adds to the annotations that are there; append also does with another model or "
        "other options; replace begins anew and keeps the old annotations in "
        "annotations.previous.jsonl (default: fill)",
    )
    parser.add_argument(
        "--labels",
        type=path,
        metavar="FILE",
        help="JSON object: label to the label that takes its place, or to null to leave it out",
    )
    parser.add_argument(
        "--batch-size",
        type=_batch_size,
        default=8,
        metavar="N",
        help="questions that are answered together, fewer where their texts are long; auto to "
        "find the fastest size (default: 8)",
    )
    parser.add_argument(
        "--limit", type=whole_number(1), metavar="N", help="largest number of pictures to ask about"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the number of pictures, and do nothing"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as a JSON object")


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    plan = _plan(arguments)
    ANY_MODEL.replace(**plan.options)
    items = find_items(arguments.sources, arguments.every or 1.0)
    if arguments.every is not None and not any(is_video(item.source) for item in items):
        raise InputError("--every is about videos, and no source is a video")
    if arguments.out == _NULL and arguments.mode is not None:
        raise InputError(f"--mode is about an output, and --out {_NULL} has none")
    if arguments.dry_run:
        names = [question.name for question in plan.questions]
        errors = [item.error for item in items if item.error is not None]
        for error in errors:
            say(f"note: {error}")
        found = len(items) - len(errors)
        count = min(found, arguments.limit or found)
        _tell({"pictures": count, "tasks": names}, arguments.json)
        return 0
    require_packages(("PIL",), NAME, "annotate")
    mode = arguments.mode or MODES[0]
    with ExitStack() as stack:
        annotator = (
            here(arguments, plan) if arguments.ray is None else on_ray(arguments, plan, stack)
        )
        output = stack.enter_context(
            nullcontext(Output(annotator.digest, plan.settings()))
            if arguments.out == _NULL
            else open_output(Path(arguments.out), mode, annotator.digest, plan.settings())
        )
        for note in output.notes:
            say(f"note: {note}")
        watch = stack.enter_context(progress(len(items), plan.limit))
        stopped = stack.enter_context(_interrupts())
        began = time.perf_counter()
        summary = annotator.run(items, output, stopped, watch)
        seconds = time.perf_counter() - began
    asked = summary.pictures - summary.skipped
    rate = {"seconds": round(seconds, 3), "pictures_per_second": round(asked / seconds, 3)}
    opened = {"precision": annotator.precision, "model": annotator.digest}
    _tell({**vars(summary), **rate, **opened}, arguments.json)
    if summary.interrupted:
        return 130
    return 2 if summary.errors else 0


def _plan(arguments: argparse.Namespace) -> Plan:
    questions = plan_questions(arguments.task, arguments.text, arguments.prompt, arguments.answer)
    return Plan(
        questions,
        generation_options(arguments),
        {} if arguments.labels is None else _names_of(arguments.labels),
        arguments.batch_size,
        arguments.limit,
        requested_tiles(arguments),
        arguments.image_size,
    )


def _names_of(file: Path) -> dict[str, str | None]:
    """Reads new names of labels from a JSON file."""
    if not file.exists():
        raise InputError(f"{file} is missing; --labels takes a JSON object of labels")
    labels = read_json(file, InputError)
    for label, name in labels.items():
        if name is not None and not isinstance(name, str):
            raise InputError(f"{file}: {label!r} is {name!r}, not a label or null")
    return labels


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.001 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds of at least 0.001")
    return value


def _batch_size(text: str) -> int | None:
    return None if text == "auto" else whole_number(1)(text)


def _tell(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show(json.dumps(summary))
        return
    for name, value in summary.items():
        if isinstance(value, dict):
            value = [f"{key} {entry}" for key, entry in value.items()]
        text = ", ".join(value) if isinstance(value, list) else value
        show(f"{name.replace('_', ' ')}: {text}")


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a request to stop; a second one acts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    stop = threading.Event()
    before: dict[int, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()
        restore()
        say(
            "stopping after the pictures in memory are answered; press Ctrl-C again to stop at once"
        )

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, ask)
    try:
        yield stop.is_set
    finally:
        restore()
