"""``florence-onnx run``: answer a task on pictures."""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from florence_onnx.cli.drawings import plan_drawings, write_drawing
from florence_onnx.cli.options import add_model_options, open_model
from florence_onnx.errors import ImageError, MissingDependencyError, RegionError
from florence_onnx.results import (
    BoxesOrPolygonsResult,
    BoxesResult,
    PolygonsResult,
    QuadBoxesResult,
    Result,
    TextResult,
)
from florence_onnx.tasks import Task
from florence_onnx.terminal import one_line, printable, say, show

NAME = "run"
SUMMARY = "Answer a task on one or more pictures."
EXAMPLES = """examples:
  florence-onnx run photo.jpg --task od --model MODEL
  florence-onnx run photo.jpg --task caption_to_phrase_grounding --text "a green car" --model MODEL
  florence-onnx run photo.jpg --task region_to_category --region 34,160,597,372 --model MODEL
  florence-onnx run photo.jpg --task od --draw drawn.png --model MODEL
  florence-onnx run *.jpg --task ocr --model MODEL --json > answers.jsonl

One picture that cannot be read does not stop the others; the exit status is then 2.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    names = ", ".join(task.name.lower() for task in Task)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="picture files")
    parser.add_argument(
        "--task", required=True, help=f"{names}; any other text is a fine-tune's prompt"
    )
    parser.add_argument("--model", required=True, help="model folder or hub id")
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--text", help="for the tasks that take text")
    given.add_argument(
        "--region",
        type=_region,
        metavar="X1,Y1,X2,Y2",
        help="for the tasks that take a region: pixels, or four location tokens",
    )
    parser.add_argument("--beams", type=int, metavar="N", help="beams (default: the checkpoint's)")
    parser.add_argument(
        "--max-new-tokens", type=int, metavar="N", help="longest answer (default: the checkpoint's)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per picture and line")
    parser.add_argument(
        "--draw",
        type=Path,
        metavar="PATH",
        help="also write the picture with its answer drawn: a file for one picture, a folder of "
        "PNG files for several",
    )
    add_model_options(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    drawings = plan_drawings(arguments.images, arguments.task, arguments.draw)
    model = open_model(arguments)
    generation = {"num_beams": arguments.beams, "max_new_tokens": arguments.max_new_tokens}
    generation = {name: value for name, value in generation.items() if value is not None}
    status = 0
    for image in _with_progress(arguments.images):
        try:
            result = model(
                image, arguments.task, arguments.text, region=arguments.region, **generation
            )
        except (ImageError, RegionError) as error:  # Any other error concerns all pictures.
            status = 2
            say(f"florence-onnx: {image}: {one_line(error)}")
            continue
        if arguments.json:
            show(json.dumps(_record(image, result), ensure_ascii=False))
        else:
            _print_result(image if len(arguments.images) > 1 else None, result)
        if image in drawings:
            write_drawing(image, result, drawings[image])
    return status


def _region(text: str) -> str | list[float]:
    """Numbers with commas between them, or else the text, which may be location tokens."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return text


def _with_progress(images: list[str]) -> Iterable[str]:
    """The images, counted on stderr while a person is watching."""
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise MissingDependencyError(
            "the command line needs more packages; run pip install 'florence-onnx[cli]'"
        ) from error
    progress: Iterable[str] = tqdm(
        images, unit="picture", disable=None if len(images) > 1 else True
    )
    return progress


def _record(image: str, result: Result) -> dict[str, Any]:
    return {
        "image": image,
        "size": list(result.image_size),
        "answer": result.to_dict(),
        "text": result.text,
        "score": result.score,
    }


def _print_result(image: str | None, result: Result) -> None:
    if image is not None:
        show(f"{printable(image)}:")
    for line in _lines(result):
        show(line if image is None else f"  {line}")


def _lines(result: Result) -> Iterator[str]:
    """A result for people: the text, or a label and pixels per line."""
    if isinstance(result, TextResult):
        yield result.answer
    elif isinstance(result, BoxesResult):
        yield from _rows(result.labels, result.boxes)
    elif isinstance(result, QuadBoxesResult):
        yield from _rows(result.labels, result.quad_boxes)
    elif isinstance(result, PolygonsResult):
        yield from _polygon_rows(result.labels, result.polygons)
    elif isinstance(result, BoxesOrPolygonsResult):
        yield from _rows(result.box_labels, result.boxes)
        yield from _polygon_rows(result.polygon_labels, result.polygons)


def _rows(labels: Iterable[str], shapes: Iterable[Iterable[float]]) -> Iterator[str]:
    for label, points in zip(labels, shapes, strict=True):
        numbers = " ".join(f"{value:.1f}" for value in points)
        yield f"{printable(label)}: {numbers}" if label else numbers


def _polygon_rows(
    labels: Iterable[str], polygons: Iterable[Iterable[Iterable[float]]]
) -> Iterator[str]:
    for label, outlines in zip(labels, polygons, strict=True):
        yield from _rows([label] * len(list(outlines)), outlines)
