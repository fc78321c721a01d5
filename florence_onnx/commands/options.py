"""Options that several commands share."""

import argparse

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
        "--threads", type=positive, metavar="N", help="threads (default: ONNX Runtime's choice)"
    )


def open_model(arguments: argparse.Namespace) -> Florence2:
    """The model that the options name."""
    return Florence2.load(
        arguments.model,
        precision=arguments.precision,
        providers=arguments.provider,
        threads=arguments.threads,
    )


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value
