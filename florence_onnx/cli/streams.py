"""Standard streams that a service has closed, or that whoever read them has."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO


@contextmanager
def standard_streams() -> Iterator[None]:
    """Has stdout and stderr take what is printed while the block runs, wherever it goes."""
    _take_free_numbers()
    with ExitStack() as stack:
        for stream, redirect in ((sys.stdout, redirect_stdout), (sys.stderr, redirect_stderr)):
            if stream is None or stream.closed:
                sink = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123
                stack.enter_context(redirect(sink))
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A label or file name that the terminal cannot show is no reason to lose the answer.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            yield
        finally:
            _settle(sys.stdout)


def _take_free_numbers() -> None:
    """Opens closed descriptors 0 to 2.

    Otherwise the next file that is opened gets such a number, and what libraries write to it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def _settle(stream: TextIO) -> None:
    """Drops output that cannot be written, which Python would try and fail to write on exit."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
