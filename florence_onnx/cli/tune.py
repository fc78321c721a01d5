"""Command ``florence-onnx tune``: the fastest precision and providers on this machine."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from florence_onnx.cli.options import (
    add_hub_options,
    add_model,
    requested_access,
    whole_number,
)
from florence_onnx.engine.present import present_precisions
from florence_onnx.engine.providers import OTHERS, available_providers, require_onnxruntime
from florence_onnx.errors import PrecisionError
from florence_onnx.profiling import (
    NOISE,
    TOKENS,
    Placement,
    Trial,
    attempt,
    choose,
    load_line,
    placements,
)
from florence_onnx.resolver import resolve
from florence_onnx.terminal import say, show

NAME = "tune"
SUMMARY = "Time a model's precisions and this machine's providers, and choose."
EXAMPLES = f"""examples:
  florence-onnx tune MODEL
  florence-onnx tune MODEL --repeats 7 --json

The choice has the fastest caption of {TOKENS} tokens. Times within {NOISE - 1:.0%} are a tie, which
goes to the more exact precision. How far a precision is from fp32 is in MODEL/export_report.json;
a provider may add to the difference, as OpenVINO's bfloat16 does on processors with AMX.
From the hub, only fp32 is fetched; other precisions are timed if they are in the cache.
"""

_COLUMNS = {"vision": "vision", "first_token": "first token", "per_token": "per token"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_model(parser)
    parser.add_argument(
        "--repeats", type=whole_number(1), default=3, help="counted runs of each (default 3)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_hub_options(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    require_onnxruntime()
    access = requested_access(arguments)
    folder = resolve(arguments.model, access=access)
    trials = list(_attempts(folder, arguments.repeats))
    choice = choose(trials)
    line = load_line(arguments.model, choice, access)
    if arguments.json:
        content = {
            "tokens": TOKENS,
            "trials": [asdict(trial) for trial in trials],
            "choice": asdict(choice),
            "load": line,
        }
        show(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        _print(trials, choice, line)
    return 0


def _attempts(folder: Path, repeats: int) -> Iterator[Trial]:
    present = present_precisions(folder)
    if not present:
        raise PrecisionError(f"{folder} holds the graphs of no precision completely")
    for precision in present:
        for providers in placements(available_providers()):
            say(f"timing {precision} on {_place(providers)}")
            yield attempt(folder, precision, providers, repeats)


def _print(trials: list[Trial], choice: Trial, line: str) -> None:
    heads = [*_COLUMNS.values(), f"{TOKENS} tokens"]
    show("precision  " + "".join(f"{head:>13}" for head in heads) + "  providers")
    for trial in trials:
        if trial.seconds is None:
            show(f"{trial.precision:11}{_place(trial.providers)}: {trial.error}")
            continue
        seconds = [trial.seconds[name] for name in (*_COLUMNS, "total")]
        times = "".join(f"{1000 * value:10.1f} ms" for value in seconds)
        show(f"{trial.precision:11}{times}  {_place(trial.providers)}")
    show(f"\nfastest: {choice.precision} on {_place(choice.providers)}\n{line}")


def _place(providers: Placement) -> str:
    """Writes providers in the form of ``--provider``."""
    if isinstance(providers, list):
        return ", ".join(providers)
    parts = [(graph, name) for graph, names in providers.items() for name in names]
    return ", ".join(name if graph == OTHERS else f"{graph}={name}" for graph, name in parts)
