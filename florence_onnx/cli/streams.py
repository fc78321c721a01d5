"""Standard streams that a service, or the reader of the output, has closed."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO


@contextmanager
def standard_streams() -> Iterator[None]:
    """Makes stdout and stderr accept any output while the block runs."""
    _take_free_numbers()
    with ExitStack() as stack:
        for stream, redirect in ((sys.stdout, redirect_stdout), (sys.stderr, redirect_stderr)):
            if stream is None or stream.closed:
                sink = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123
                stack.enter_context(redirect(sink))
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A label or file name that the terminal cannot show must not cost the answer.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            yield
        finally:
            _settle(sys.stdout)


def _take_free_numbers() -> None:
    """Opens closed descriptors 0 to 2.

    Otherwise the next opened file gets such a number, with everything that libraries print.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def _settle(stream: TextIO) -> None:
    """Drops output that cannot be written, which Python would try to write again on exit."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
