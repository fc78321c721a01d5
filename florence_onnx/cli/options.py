"""Options that several commands share."""

import argparse
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from florence_onnx.engine import contract
from florence_onnx.engine.precision import AUTO
from florence_onnx.engine.providers import OTHERS, Provider
from florence_onnx.model import Florence2
from florence_onnx.terminal import say


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """How a model is opened, besides its name."""
    parser.add_argument(
        "--precision",
        default="fp32",
        metavar="P",
        help=f"graphs to open: {', '.join(contract.PRECISIONS)}, or {AUTO} for what suits the "
        "machine (default fp32)",
    )
    parser.add_argument(
        "--provider",
        action="append",
        metavar="[GRAPH=]NAME",
        help="ONNX Runtime provider of all graphs, or of one (vision_encoder=NAME), most wanted "
        "first; may be repeated "
        "(default: CUDAExecutionProvider where it loads, else CPUExecutionProvider)",
    )
    parser.add_argument(
        "--threads",
        type=whole_number(1),
        metavar="N",
        help="threads (default: one per physical core that this process may use)",
    )


def open_model(arguments: argparse.Namespace) -> Florence2:
    """The model that the options name; says on stderr which precision ``auto`` came to."""
    model = Florence2.load(
        arguments.model,
        precision=arguments.precision,
        providers=requested_providers(arguments),
        threads=arguments.threads,
    )
    if arguments.precision == AUTO:
        say(f"precision: {model.precision}")
    return model


def requested_providers(arguments: argparse.Namespace) -> dict[str, list[Provider]] | None:
    """The providers that the options name, per graph; None without any."""
    if not arguments.provider:
        return None
    requested: dict[str, list[Provider]] = {}
    for text in arguments.provider:
        graph, equals, name = text.rpartition("=")
        requested.setdefault(graph if equals else OTHERS, []).append(name)
    return requested


def path(text: str) -> Path:
    """A path, with the home that a shell leaves to programs in ``--draw=~/drawn``."""
    with suppress(RuntimeError):  # There is no home.
        return Path(text).expanduser()
    return Path(text)


def whole_number(least: int) -> Callable[[str], int]:
    """What reads a whole number of at least ``least``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return value

    return read
