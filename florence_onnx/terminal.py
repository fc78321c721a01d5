"""Text for the terminal, without characters that control the terminal."""

import io
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

# Control characters, line separators, what reverses the direction of text, and halves of letters.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]",
)
_LONGEST = 2000
"""Limit of a line in characters, which only foreign names reach."""


def printable(text: str, keep: str = "") -> str:
    r"""Spells out the characters of ``text`` that could control a terminal, as in ``\u001b``.

    The spelling is that of JSON, so JSON stays JSON.

    Args:
        text: Any text: a file name, a label, an error message of another package.
        keep: Control characters that stay.
    """
    return _CONTROLS.sub(
        lambda found: found[0] if found[0] in keep else f"\\u{ord(found[0]):04x}", text
    )


def one_line(error: object) -> str:
    """Writes the message of an error on one line, safe to print and of limited length."""
    line = printable(" ".join(str(error).split()))
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} [...]"


def size_text(count: int) -> str:
    """Writes a number of bytes for people, as in ``463 MB``."""
    for unit, name in ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")):
        if count >= unit:
            value = count / unit
            return f"{value:.0f} {name}" if value >= 10 else f"{value:.1f} {name}"
    return f"{count} bytes"


def show(text: str) -> None:
    """Prints text of one or more lines on stdout without delay."""
    print(printable(text, keep="\n\t"), flush=True)


def say(line: str) -> None:
    """Prints a line on stderr, if stderr is open."""
    with suppress(OSError):
        print(printable(line), file=standard_error(), flush=True)


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[int], object]]:
    """Shows a progress bar on stderr for a person at a terminal, if tqdm is installed.

    Args:
        total: Bytes to come.

    Yields:
        A function to call with the number of bytes that are done.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda count: None
        return
    options = {"unit": "B", "unit_scale": True, "disable": None, "leave": False}
    with tqdm(total=total, file=standard_error(), **options) as bar:
        yield bar.update


def standard_error() -> TextIO:
    """Returns stderr, or a stream that nobody reads where stderr is closed or None, as in services.

    ``print(file=None)`` would print on stdout.
    """
    if sys.stderr is None or sys.stderr.closed:
        return io.StringIO()
    return sys.stderr
