"""The command line: ``florence-onnx run | export | info | bench``."""

import argparse
import sys
from collections.abc import Sequence

from florence_onnx.commands import bench, export, info, run
from florence_onnx.errors import FlorenceError

COMMANDS = (run, export, info, bench)


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
    arguments = build_parser().parse_args(argv)
    try:
        status: int = arguments.execute(arguments)
    except FlorenceError as error:
        print(f"florence-onnx: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read the output has closed it; nothing is left to say, not even on exit.
        sys.stdout = None
        return 0
    except KeyboardInterrupt:
        return 130
    return status
