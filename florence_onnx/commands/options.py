"""Options that several commands share."""

import argparse
from collections.abc import Callable

from florence_onnx import graphs
from florence_onnx.model import Florence2


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """How a model is opened, besides its name."""
    parser.add_argument(
        "--precision",
        default="fp32",
        metavar="P",
        help=f"graphs to open: {', '.join(graphs.PRECISIONS)} (default fp32)",
    )
    parser.add_argument(
        "--provider",
        action="append",
        metavar="NAME",
        help="ONNX Runtime provider, most wanted first; may be repeated "
        "(default: CUDAExecutionProvider where it loads, else CPUExecutionProvider)",
    )
    parser.add_argument(
        "--threads",
        type=whole_number(1),
        metavar="N",
        help="threads (default: ONNX Runtime's choice)",
    )


def open_model(arguments: argparse.Namespace) -> Florence2:
    """The model that the options name."""
    return Florence2.load(
        arguments.model,
        precision=arguments.precision,
        providers=arguments.provider,
        threads=arguments.threads,
    )


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
