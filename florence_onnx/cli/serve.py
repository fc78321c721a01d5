"""Command ``florence-onnx serve``: answers requests over HTTP."""

import argparse
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from florence_onnx.cli.addresses import add_address_options
from florence_onnx.cli.opening import open_model
from florence_onnx.cli.options import (
    DEFAULT,
    add_hub_options,
    add_model_options,
    default_model,
    whole_number,
)
from florence_onnx.errors import InputError
from florence_onnx.images.limits import MEMORY_VARIABLE
from florence_onnx.model import Florence2
from florence_onnx.packages import require_packages
from florence_onnx.serving.app import Access, make_app
from florence_onnx.serving.limits import Limits
from florence_onnx.serving.logs import write_logs
from florence_onnx.serving.metrics import Metrics
from florence_onnx.serving.models import Models
from florence_onnx.serving.running import serve

if TYPE_CHECKING:
    from fastapi import FastAPI

NAME = "serve"
SUMMARY = "Answer requests over HTTP."
EXAMPLES = """examples:
  florence-onnx serve --model demo
  florence-onnx serve --model microsoft/Florence-2-base-ft --precision auto --idle 600
  florence-onnx serve --model small=demo --model ./finetune --max-models 1 --api-key SECRET
  curl -F image=@photo.jpg -F task=od http://127.0.0.1:8000/v1/answer

Every flag can be set in the environment too: --max-queue as FLORENCE_ONNX_SERVE_MAX_QUEUE. The
values of a flag that may be repeated are separated by commas there.
"""

_PREFIX = "FLORENCE_ONNX_SERVE_"
_PICTURE_MIB = 512


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    usual = Limits()
    parser.add_argument(
        "--model",
        action="append",
        metavar="[NAME=]MODEL",
        help="model folder, hub id, or demo; may be repeated, the first is what requests without a "
        f"model get; NAME is what requests call it {DEFAULT}",
    )
    add_address_options(parser, 8000)
    parser.add_argument(
        "--max-models",
        type=whole_number(1),
        metavar="N",
        help="models in memory at the same time (default: all)",
    )
    parser.add_argument(
        "--idle",
        type=_seconds,
        default=0.0,
        metavar="S",
        help="seconds without a request after which a model leaves the memory (default: never)",
    )
    parser.add_argument(
        "--api-key",
        action="append",
        type=_key,
        metavar="KEY",
        help="ask for this key; may be repeated",
    )
    parser.add_argument(
        "--cors-origin",
        action="append",
        metavar="ORIGIN",
        help="allow requests from pages of this origin; may be repeated; * for all",
    )
    _add_limits(parser, usual)
    add_model_options(parser)
    add_hub_options(parser)
    parser.set_defaults(flags=_flags(parser))


def _add_limits(parser: argparse.ArgumentParser, usual: Limits) -> None:
    for name, value, least, meaning in (
        ("--max-body-mib", usual.body_mib, 1, "MiB of a request's body"),
        ("--max-picture-mib", _PICTURE_MIB, 1, "MiB that decoding a picture may take"),
        ("--max-queue", usual.queue, 1, "requests that wait or are being answered"),
        ("--max-tasks", usual.tasks, 1, "tasks of a request"),
        ("--max-tiles", usual.tiles, 1, "tiles of a picture"),
        ("--max-beams", usual.beams, 1, "beams of a search"),
        ("--max-tokens", usual.tokens, 1, "tokens of an answer"),
    ):
        parser.add_argument(
            name,
            type=whole_number(least),
            default=value,
            metavar="N",
            help=f"{meaning} (default: {value})",
        )
    parser.add_argument(
        "--timeout",
        type=_some_seconds,
        default=usual.seconds,
        metavar="S",
        help=f"seconds of a request, its upload included (default: {usual.seconds:g})",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    require_packages(
        ("fastapi", "fastapi_offline", "uvicorn", "prometheus_client", "python_multipart", "PIL"),
        "serve",
        "serve",
    )
    for flag in arguments.flags:
        _take_from_environment(flag, arguments)
    os.environ[MEMORY_VARIABLE] = str(arguments.max_picture_mib)
    limits = Limits(
        body_mib=arguments.max_body_mib,
        queue=arguments.max_queue,
        seconds=arguments.timeout,
        tasks=arguments.max_tasks,
        tiles=arguments.max_tiles,
        beams=arguments.max_beams,
        tokens=arguments.max_tokens,
    )
    sources = named_sources(arguments.model or [default_model()])
    access = Access(arguments.api_key or (), arguments.cors_origin or ())

    def make_models(metrics: Metrics) -> Models:
        return Models(
            sources,
            lambda source: warmed_up(source, arguments),
            metrics,
            arguments.max_models,
            arguments.idle,
        )

    def application(on_failure: Callable[[BaseException], None]) -> "FastAPI":
        return make_app(make_models, limits, access, on_failure)

    write_logs()
    serve(application, arguments.host, arguments.port, limits.seconds)
    return 0


def named_sources(given: list[str]) -> dict[str, str]:
    """Reads the models: name -> source of the model, in the order given.

    Raises:
        InputError: Two models have one name, or a name is empty.
    """
    sources: dict[str, str] = {}
    for text in given:
        name, equals, source = text.partition("=")
        if not equals:
            source = text
            name = Path(text).resolve().name if Path(text).is_dir() else text
        if not name or not source:
            raise InputError(f"--model is {text!r}; it must be MODEL or NAME=MODEL")
        if name in sources:
            raise InputError(f"two models are called {name!r}; call one NAME=MODEL")
        sources[name] = source
    return sources


def warmed_up(source: str, arguments: argparse.Namespace) -> Florence2:
    """Opens a model and asks for one answer, so that later answers are fast."""
    model = open_model(argparse.Namespace(**{**vars(arguments), "model": source}))
    model(np.zeros((32, 32, 3), np.uint8), "caption", max_new_tokens=3)
    return model


@dataclass(frozen=True)
class _Flag:
    """Flag, with its environment variable and its default."""

    variable: str
    action: argparse.Action
    default: Any


def _flags(parser: argparse.ArgumentParser) -> list[_Flag]:
    """Finds the flags of the command, and removes the defaults, to see which flags are given."""
    found = []
    for action in parser._actions:
        name = next((text for text in action.option_strings if text.startswith("--")), "")
        if name and name != "--help":
            variable = _PREFIX + name[2:].replace("-", "_").upper()
            found.append(_Flag(variable, action, action.default))
            action.default = argparse.SUPPRESS
    return found


def _take_from_environment(flag: _Flag, arguments: argparse.Namespace) -> None:
    """Reads a flag that is not given from the environment; without a variable, takes the default.

    Raises:
        InputError: The flag does not take the value of the variable.
    """
    if not hasattr(arguments, flag.action.dest):
        text = os.environ.get(flag.variable)
        setattr(arguments, flag.action.dest, _read(flag, text) if text else flag.default)


def _read(flag: _Flag, text: str) -> Any:
    action = flag.action
    if action.nargs == 0:
        if text.lower() not in ("0", "1", "true", "false"):
            raise InputError(f"{flag.variable} is {text!r}; it must be 1 or 0")
        return text.lower() in ("1", "true")
    kind = action.type if callable(action.type) else str
    try:
        if not isinstance(action, argparse._AppendAction):
            return kind(text)
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if not parts:
            raise argparse.ArgumentTypeError(f"there is no value in {text!r}")
        return [kind(part) for part in parts]
    except argparse.ArgumentTypeError as error:
        raise InputError(f"{flag.variable}: {error}") from None


def _key(text: str) -> str:
    """Reads a key; an empty key would let in everybody, and headers hold ASCII alone."""
    if not re.fullmatch("[!-~]+", text):
        raise argparse.ArgumentTypeError("a key has visible ASCII characters alone, at least one")
    return text


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 86400")
    return value


def _some_seconds(text: str) -> float:
    value = _seconds(text)
    if not value:
        raise argparse.ArgumentTypeError("it must be more than 0 seconds")
    return value
