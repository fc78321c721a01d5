"""Command ``florence-onnx bench``: seconds per stage on this machine."""

import argparse
import json
import platform
import shlex

from florence_onnx.cli.opening import open_model
from florence_onnx.cli.options import (
    add_hub_options,
    add_model,
    add_model_options,
    path,
    requested_access,
    whole_number,
)
from florence_onnx.engine.precision import AUTO
from florence_onnx.engine.present import present_precisions
from florence_onnx.engine.providers import runtime_version
from florence_onnx.errors import InputError
from florence_onnx.machine_rows import BEAMS, TOKENS, describe_run, place_for, write_row
from florence_onnx.profiling import STAGES, random_picture, time_stages
from florence_onnx.resolver import cached_folder, is_demo, local_folder
from florence_onnx.terminal import say, show

NAME = "bench"
SUMMARY = "Time every stage of a request on this machine."
EXAMPLES = """examples:
  florence-onnx bench MODEL
  florence-onnx bench MODEL --beams 1 --tokens 100 --repeats 15 --json
  florence-onnx bench MODEL --precision q8 --report my-machine

The picture is 1280x960 random pixels: speed does not depend on what a picture shows.
--report is for the table of machines in docs/performance.md. It writes a JSON file, and beside it a
Markdown file with the row. They tell the machine, the versions, the stages and the peak memory of
this process, and no names of files or people.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_model(parser)
    parser.add_argument(
        "--beams", type=whole_number(1), metavar="N", help="beams (default: the checkpoint's)"
    )
    # A first token, a token to time, and the last token, which may be forced without a step.
    parser.add_argument(
        "--tokens",
        type=whole_number(3),
        default=TOKENS,
        help=f"answer length (default {TOKENS}, least 3)",
    )
    parser.add_argument(
        "--repeats", type=whole_number(1), default=7, help="counted runs (default 7)"
    )
    parser.add_argument(
        "--warmup", type=whole_number(0), default=1, help="runs not counted (default 1)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--report",
        type=path,
        metavar="DIR|FILE.json",
        help=f"also write a row about this machine; of {TOKENS} tokens and {BEAMS} beams",
    )
    parser.add_argument(
        "--machine", metavar="NAME", help="the machine's name in --report (default: its processor)"
    )
    add_model_options(parser)
    add_hub_options(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    _check_report(arguments)
    model = open_model(arguments)
    beams = BEAMS if arguments.report else arguments.beams or model.policy.num_beams
    run = describe_run(model, arguments.fast_math, arguments.threads, arguments.machine)
    row = place_for(arguments.report, run) if arguments.report else None
    say(f"timing {arguments.warmup} + {arguments.repeats} runs")
    seconds = time_stages(
        model,
        random_picture(),
        tokens=arguments.tokens,
        repeats=arguments.repeats,
        warmup=arguments.warmup,
        num_beams=beams,
    )
    if arguments.json:
        content = {
            "seconds": seconds,
            "tokens": arguments.tokens,
            "repeats": arguments.repeats,
            "beams": beams,
            "precision": model.precision,
            "providers": model.providers,
            "onnxruntime": runtime_version(),
            "machine": platform.machine(),
        }
        show(json.dumps(content, indent=2))
    else:
        for stage in (*STAGES, "total"):
            show(f"{stage:14} {1000 * seconds[stage]:10.1f} ms")
    if row is not None:
        write_row(row, run, seconds, arguments.repeats)
        say(f"wrote {row} and {row.with_suffix('.md').name}")
    return 0


def _check_report(arguments: argparse.Namespace) -> None:
    """Refuses a row that could not be compared with others, and a name for no row.

    Raises:
        InputError: That is asked for.
    """
    if arguments.report is None:
        if arguments.machine is not None:
            raise InputError("--machine names the machine in a report; give --report too")
        return
    if arguments.tokens != TOKENS or arguments.beams not in (None, BEAMS):
        raise InputError(
            f"rows of --report compare answers of {TOKENS} tokens with {BEAMS} beams; leave out "
            "--tokens and --beams"
        )
    name = arguments.machine
    if name is not None and not (name.isprintable() and name.strip()):
        raise InputError(f"--machine {name!r} is no line of text; name the machine in words")
    if not _is_there(arguments):
        pull = ["florence-onnx", "pull", arguments.model]
        if isinstance(arguments.precision, str) and arguments.precision != AUTO:
            pull += ["--precision", arguments.precision]
        raise InputError(
            "--report tells the peak memory of this process, to which fetching or making the model "
            f"would count; first run {shlex.join(pull)}"
        )


def _is_there(arguments: argparse.Namespace) -> bool:
    """Tells whether the graphs of the model are on this machine."""
    if is_demo(arguments.model) or local_folder(arguments.model) is not None:
        return True
    folder = cached_folder(arguments.model, requested_access(arguments))
    return folder is not None and bool(present_precisions(folder))
