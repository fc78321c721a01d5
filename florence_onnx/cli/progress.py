"""Progress of an annotation on stderr: a bar at a terminal, else lines."""

import datetime
import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from florence_onnx.annotate.pipeline import Summary
from florence_onnx.terminal import say, standard_error

Watch = Callable[[Summary], object]
_PAUSE = 30.0
"""Seconds between two lines."""


@contextmanager
def progress(total: int, limit: int | None) -> Iterator[Watch]:
    """Yields a function to call with the state of an annotation.

    Args:
        total: Pictures of all sources.
        limit: Limit of the pictures that are asked about.
    """
    began = time.monotonic()

    def text(summary: Summary) -> str:
        return state(summary, total, limit, time.monotonic() - began)

    if standard_error().isatty() and importlib.util.find_spec("rich") is not None:
        with _bar(total, text) as watch:
            yield watch
    else:
        yield lines(text)


def state(summary: Summary, total: int, limit: int | None, seconds: float) -> str:
    """Writes a line of pictures, rate, remaining time and errors.

    Args:
        summary: Summary so far.
        total: Pictures of all sources.
        limit: Limit of the pictures that are asked about.
        seconds: Time since the beginning.
    """
    asked = summary.pictures - summary.skipped
    left = total - summary.pictures
    if limit is not None:
        left = min(left, limit - asked)
    parts = [f"{summary.pictures} of {total} pictures"]
    if asked and seconds > 0:
        duration = datetime.timedelta(seconds=round(left * seconds / asked))
        parts += [f"{asked / seconds:.2f} a second", f"{duration} left"]
    if summary.skipped:
        parts.append(f"{summary.skipped} skipped")
    if summary.errors:
        parts.append(f"{summary.errors} error{'s' * (summary.errors > 1)}")
    return ", ".join(parts)


def lines(text: Callable[[Summary], str], clock: Callable[[], float] = time.monotonic) -> Watch:
    """Makes a function that prints a line now and then.

    Args:
        text: Makes the line.
        clock: Gives the time in seconds.
    """
    last = clock()

    def watch(summary: Summary) -> None:
        nonlocal last
        if clock() - last >= _PAUSE:
            last = clock()
            say(text(summary))

    return watch


@contextmanager
def _bar(total: int, text: Callable[[Summary], str]) -> Iterator[Watch]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    with Progress(
        BarColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(file=standard_error()),
        refresh_per_second=2,
        redirect_stdout=False,
    ) as bar:
        task = bar.add_task("", total=total)
        yield lambda summary: bar.update(
            task, completed=summary.pictures, description=text(summary)
        )
