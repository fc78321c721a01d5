"""docs/commands.md, made of ``--help``: ``python -m tests.helpers.command_docs`` writes it."""

import io
import os
from contextlib import redirect_stdout, suppress
from unittest.mock import patch

from florence_onnx.cli.program import COMMANDS, main
from tests.helpers.pages import DOCS

_HEAD = """# Command line

Made of `florence-onnx COMMAND --help` by `python -m tests.helpers.command_docs`.

Answers go to stdout, progress and errors to stderr. An error is one line, and the exit status is 2
then. `python -m florence_onnx` is the same program.
"""
_WIDTH = "100"


def page() -> str:
    """The whole page."""
    parts = [_HEAD, _block(_help())]
    for command in COMMANDS:
        parts += [f"## {command.NAME}\n", _block(_help(command.NAME))]
    return "\n".join(parts)


def _block(text: str) -> str:
    return f"```text\n{text.strip()}\n```\n"


def _help(*command: str) -> str:
    """What a command prints about itself, the same on every machine."""
    out = io.StringIO()
    own = {name for name in os.environ if name.startswith("FLORENCE_ONNX_")}
    kept = {name: value for name, value in os.environ.items() if name not in own}
    with (
        patch.dict(os.environ, {**kept, "COLUMNS": _WIDTH}, clear=True),
        redirect_stdout(out),
        suppress(SystemExit),
    ):
        main([*command, "--help"])
    return out.getvalue()


if __name__ == "__main__":
    (DOCS / "commands.md").write_text(page(), encoding="utf-8")
