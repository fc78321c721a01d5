"""Exit status of a command, and one line for a known error or a warning."""

import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from florence_onnx.cli.streams import standard_streams
from florence_onnx.errors import FlorenceError, ModelWarning
from florence_onnx.terminal import one_line, say


def exit_status(command: Callable[[], int]) -> int:
    """Runs a command.

    Returns:
        The status of the command, or 2 after a known error, printed as one line on stderr, or 130
        after an interrupt.
    """
    with standard_streams(), _warnings_as_notes():
        try:
            status = command()
            sys.stdout.flush()
            return status
        except FlorenceError as error:
            return _fail(one_line(error))
        except MemoryError:
            return _fail("the memory does not suffice")
        except OSError as error:
            # A closed pipe means that the reader of the output wants no more.
            return 0 if isinstance(error, BrokenPipeError) else _fail(one_line(error))
        except KeyboardInterrupt:
            return 130


@contextmanager
def exit_on_termination() -> Iterator[None]:
    """Turns SIGTERM into an exception, so that half-written folders are removed.

    Only the main thread can handle signals. In any other thread, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Prints every warning in one line; warnings about a model every time."""

    def tell(message: Warning | str, *place: Any, **more: Any) -> None:
        say(f"note: {one_line(message)}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", ModelWarning)
        warnings.showwarning = tell
        yield


def _fail(reason: str) -> int:
    say(f"florence-onnx: error: {reason}")
    return 2
