"""Process of the service: a socket, signals, and a graceful end."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from florence_onnx.serving.logs import log
from florence_onnx.serving.models import OPENING

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

_GRACE = 5.0
"""Seconds that a stopping service needs in addition to the longest request."""
_BACKLOG = 2048


def log_address(host: str, port: int) -> None:
    """Writes a line with the address that is listened at."""
    log("listening", host=host, port=port)


def serve(
    make_app: "Callable[[Callable[[BaseException], None]], FastAPI]",
    host: str,
    port: int,
    seconds: float,
    announce: Callable[[str, int], None] = log_address,
) -> None:
    """Serves until a signal ends the process, and then answers the accepted requests.

    Args:
        make_app: Makes the application, from a function to call when no model can be opened.
        host: The address to listen at.
        port: The port; 0 for a free port.
        seconds: The longest time of a request.
        announce: A function to call with the address and the port.

    Raises:
        FlorenceError: The first models cannot be opened.
        OSError: The address cannot be used.
    """
    import uvicorn

    failures: list[BaseException] = []

    def fail(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    config = uvicorn.Config(
        make_app(fail),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        timeout_graceful_shutdown=int(seconds + _GRACE),
    )
    server = uvicorn.Server(config)
    _raise_file_limit()
    with _signals_end(server):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family, backlog=_BACKLOG) as listening:
            announce(host, listening.getsockname()[1])
            server.run([listening])
    if failures:
        raise failures[0]
    if any(thread.name == OPENING for thread in threading.enumerate()):
        # Python's end would break a thread off inside the engine, and so abort the process.
        logging.shutdown()
        os._exit(0)


@contextmanager
def _signals_end(server: "uvicorn.Server") -> Iterator[None]:
    """Makes the process end with status 0 after a graceful end.

    The HTTP server handles signals only after its start, and raises them again after its end, for
    earlier handlers.
    """

    def end(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_file_limit() -> None:
    """Raises the limit of open files as far as the system allows: a connection is a file."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
