"""Command ``florence-onnx bench``: seconds per stage on this machine."""

import argparse
import json
import platform

from florence_onnx.cli.options import (
    add_hub_options,
    add_model,
    add_model_options,
    open_model,
    whole_number,
)
from florence_onnx.engine.providers import runtime_version
from florence_onnx.profiling import STAGES, random_picture, time_stages
from florence_onnx.terminal import say, show

NAME = "bench"
SUMMARY = "Time every stage of a request on this machine."
EXAMPLES = """examples:
  florence-onnx bench MODEL
  florence-onnx bench MODEL --beams 1 --tokens 100 --repeats 15 --json

The picture is 1280x960 random pixels: speed does not depend on what a picture shows.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_model(parser)
    parser.add_argument(
        "--beams", type=whole_number(1), metavar="N", help="beams (default: the checkpoint's)"
    )
    # A first token, a token to time, and the last token, which may be forced without a step.
    parser.add_argument(
        "--tokens", type=whole_number(3), default=32, help="answer length (default 32, least 3)"
    )
    parser.add_argument(
        "--repeats", type=whole_number(1), default=7, help="counted runs (default 7)"
    )
    parser.add_argument(
        "--warmup", type=whole_number(0), default=1, help="runs not counted (default 1)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_model_options(parser)
    add_hub_options(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    model = open_model(arguments)
    say(f"timing {arguments.warmup} + {arguments.repeats} runs")
    seconds = time_stages(
        model,
        random_picture(),
        tokens=arguments.tokens,
        repeats=arguments.repeats,
        warmup=arguments.warmup,
        **({"num_beams": arguments.beams} if arguments.beams else {}),
    )
    if arguments.json:
        content = {
            "seconds": seconds,
            "tokens": arguments.tokens,
            "repeats": arguments.repeats,
            "beams": arguments.beams or model.policy.num_beams,
            "precision": model.precision,
            "providers": model.providers,
            "onnxruntime": runtime_version(),
            "machine": platform.machine(),
        }
        show(json.dumps(content, indent=2))
    else:
        for stage in (*STAGES, "total"):
            show(f"{stage:14} {1000 * seconds[stage]:10.1f} ms")
    return 0
