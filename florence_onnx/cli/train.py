"""Command ``florence-onnx train``: a fine-tune of a checkpoint, or a model from scratch."""

import argparse
import importlib
import os

from florence_onnx.checkpoints.checkpoint import read_checkpoint
from florence_onnx.cli.options import path, whole_number
from florence_onnx.errors import InputError, OutputExistsError
from florence_onnx.files import open_regular
from florence_onnx.packages import require_packages
from florence_onnx.resolver import local_folder

NAME = "train"
SUMMARY = "Fine-tune a checkpoint on your own examples (needs the [export] extra)."
EXAMPLES = """examples:
  florence-onnx train --from microsoft/Florence-2-base --data train.jsonl --out tuned
  florence-onnx train --from my-fine-tune --data train.jsonl --validation held-out.jsonl --out tuned
  florence-onnx train --config recipe.json --out run

The model is written to OUT/model. A run that was stopped goes on from its last checkpoint in OUT.
Without --from, the model starts from random weights and learns drawn scenes; --config then needs
a "scratch" section.
"""

_NEEDED = ("torch", "transformers", "safetensors", "PIL")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("--from", dest="checkpoint", help="checkpoint to fine-tune: folder, hub id")
    parser.add_argument(
        "--data",
        type=path,
        help='examples to fine-tune on, lines of {"image": path, "prompt": "<DocVQA>What is the '
        'date?", "answer": "May 4"}',
    )
    parser.add_argument(
        "--validation", type=path, help="examples like --data's, to measure at every checkpoint"
    )
    parser.add_argument(
        "--config", type=path, help="recipe in JSON (default: the recipe for fine-tuning)"
    )
    parser.add_argument(
        "--steps", type=whole_number(1), help="optimiser steps, in place of the recipe's"
    )
    parser.add_argument(
        "--out", type=path, required=True, help="folder for checkpoints and the model"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    _check(arguments)
    # Recipes are read without torch, whose import takes seconds.
    config = importlib.import_module("florence_onnx_export.training.config")
    recipe = config.read_recipe(arguments.config, arguments.steps)
    if arguments.checkpoint is None:
        recipe.needed_scratch()
    require_packages(_NEEDED, "training", "export")
    runs = importlib.import_module("florence_onnx_export.training.runs")
    if arguments.checkpoint is None:
        runs.train_from_scratch(recipe, arguments.out)
    else:
        runs.fine_tune(
            recipe, arguments.checkpoint, arguments.data, arguments.out, arguments.validation
        )
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Checks the arguments before the import of torch."""
    if (arguments.checkpoint is None) != (arguments.data is None):
        raise InputError("--from and --data go together: what to fine-tune, and on what")
    if arguments.validation is not None and arguments.data is None:
        raise InputError("--validation goes with --from and --data")
    for file in (arguments.data, arguments.validation):
        try:
            if file is not None:
                open_regular(file).close()
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error.strerror}") from error
    if arguments.checkpoint is not None and local_folder(arguments.checkpoint) is not None:
        read_checkpoint(arguments.checkpoint)
    if os.path.lexists(arguments.out) and not arguments.out.is_dir():
        raise OutputExistsError(f"{arguments.out} exists and is no folder; choose another name")
