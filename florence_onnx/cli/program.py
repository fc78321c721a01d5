"""Program of the command line: ``florence-onnx run | pull | export | quantize | …``."""

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from florence_onnx import __version__
from florence_onnx.cli import (
    annotate,
    bench,
    convert,
    demo,
    doctor,
    export,
    info,
    mcp,
    models,
    pull,
    quantize,
    remove,
    run,
    serve,
    train,
    tune,
    verify,
)
from florence_onnx.cli.status import exit_status
from florence_onnx.terminal import printable

COMMANDS = (
    run,
    demo,
    serve,
    mcp,
    annotate,
    convert,
    pull,
    models,
    remove,
    verify,
    doctor,
    export,
    quantize,
    train,
    info,
    bench,
    tune,
)


_NEGATIVE = re.compile(r"-(\.?[0-9]|inf|nan)", re.IGNORECASE)
"""Beginning of a negative number, or of a list of numbers."""


class _Parser(argparse.ArgumentParser):
    """Parser whose errors hold no control characters of the input."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # No option begins so. Otherwise argparse takes -5,0,10,10 for one, and misses the value.
        self._negative_number_matcher = _NEGATIVE

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))

    def check_command(self, name: str) -> None:
        """Ends the program for an unknown command, and offers a similar command."""
        names = [command.NAME for command in COMMANDS]
        if name in names:
            return
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        self.error(f"{name!r} is not a command; {hint}commands: {', '.join(names)}")


def build_parser() -> _Parser:
    """Builds the parser of all commands."""
    parser = _Parser(
        prog="florence-onnx",
        description="Run Florence-2 on ONNX Runtime: captions, boxes, grounding, polygons, OCR.",
        epilog="florence-onnx COMMAND --help shows a command's options and examples.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
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
        argv: The arguments; by default those of the process.

    Returns:
        The exit status: 0, or 2 after a known error, printed as one line on stderr.
    """

    def command() -> int:
        parser = build_parser()
        given = sys.argv[1:] if argv is None else argv
        if given and not given[0].startswith("-"):
            parser.check_command(given[0])
        for argument in given:
            if argument.startswith("--") and argument.endswith("=--"):
                # Older versions of argparse take this for an empty list.
                parser.error(f"argument {argument[:-3]}: expected one argument")
        arguments = parser.parse_args(given)
        status: int = arguments.execute(arguments)
        return status

    return exit_status(command)
