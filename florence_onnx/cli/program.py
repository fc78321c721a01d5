"""The command line: ``florence-onnx run | export | quantize | info | bench | tune``."""

import argparse
import io
import os
import sys
from collections.abc import Sequence

from florence_onnx.cli import bench, export, info, quantize, run, tune
from florence_onnx.errors import FlorenceError

COMMANDS = (run, export, quantize, info, bench, tune)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="florence-onnx",
        description="Run Florence-2 on ONNX Runtime: captions, boxes, grounding, polygons, OCR.",
        epilog="florence-onnx COMMAND --help shows a command's options and examples.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = commands.add_parser(
            command.NAME,
            help=command.SUMMARY,
            description=command.SUMMARY,
            epilog=command.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
        subparser.set_defaults(execute=command.execute)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: The arguments; those of the process by default.

    Returns:
        The exit status: 0, or 2 after a known error, printed as one line on stderr.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A label or file name that the terminal cannot show is no reason to lose the answer.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        arguments = build_parser().parse_args(argv)
        status: int = arguments.execute(arguments)
        sys.stdout.flush()
    except FlorenceError as error:
        return _fail(error)
    except OSError as error:
        _settle_output()
        # A closed pipe means that whoever read the output has seen enough.
        return 0 if isinstance(error, BrokenPipeError) else _fail(error)
    except KeyboardInterrupt:
        return 130
    return status


def _fail(error: Exception) -> int:
    print(f"florence-onnx: error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def _settle_output() -> None:
    """Drops output that cannot be written, which Python would try and fail to write on exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
