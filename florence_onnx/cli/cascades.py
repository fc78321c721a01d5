"""Cascades of ``run``: two tasks, the second about the answer to the first."""

import argparse
from collections.abc import Iterator

from florence_onnx.cascading import Cascade, CascadeResult
from florence_onnx.errors import TaskError
from florence_onnx.generation.options import GenerationOptions
from florence_onnx.model import Florence2
from florence_onnx.prompts import check_input
from florence_onnx.requests import Failure, Request
from florence_onnx.tasks import Task
from florence_onnx.tiling import Tiles, check_tiles


def named_cascade(
    arguments: argparse.Namespace, tiles: Tiles | None, options: GenerationOptions
) -> Cascade | None:
    """Finds the cascade that ``--task`` names; None for a task, and for words with a plus sign.

    Raises:
        InputError: The tasks do not go together, or an option is not for cascades.
    """
    first, plus, _ = (arguments.task or "").partition("+")
    try:
        Task.parse(first)
    except TaskError:
        return None
    if not plus:
        return None
    cascade = Cascade.parse(arguments.task)
    if arguments.prompt is not None or arguments.answer is not None:
        raise TaskError(f"--prompt and --answer are not for two tasks, as in {cascade.name}")
    check_input(cascade.first, arguments.text, arguments.region)
    cascade.options(options)
    if tiles is not None:
        check_tiles(cascade.first, cascade.first.answer_kind)
    return cascade


def answers_of(
    model: Florence2,
    cascade: Cascade,
    arguments: argparse.Namespace,
    tiles: Tiles | None,
    options: GenerationOptions,
) -> Iterator[CascadeResult | Failure]:
    """Yields the answers about one picture after the other."""
    for image in arguments.images:
        try:
            yield model.cascade(
                image,
                cascade.name,
                arguments.text,
                tiles=tiles,
                image_size=arguments.image_size,
                **options,
            )
        except Exception as error:
            yield Failure(Request(image, cascade.first), error)
