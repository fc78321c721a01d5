"""``florence-onnx train``: a fine-tune of a checkpoint, or a model from scratch."""

import argparse
import importlib

from florence_onnx.cli.options import path, whole_number
from florence_onnx.errors import InputError
from florence_onnx.packages import require_packages

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
    if (arguments.checkpoint is None) != (arguments.data is None):
        raise InputError("--from and --data go together: what to fine-tune, and on what")
    if arguments.validation is not None and arguments.data is None:
        raise InputError("--validation goes with --from and --data")
    require_packages(_NEEDED, "training", "export")
    runs = importlib.import_module("florence_onnx_export.training.runs")
    recipe = runs.read_recipe(arguments.config, arguments.steps)
    if arguments.checkpoint is None:
        runs.train_from_scratch(recipe, arguments.out)
    else:
        runs.fine_tune(
            recipe, arguments.checkpoint, arguments.data, arguments.out, arguments.validation
        )
    return 0
