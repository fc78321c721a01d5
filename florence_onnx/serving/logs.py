"""Logs for programs: one JSON object per line, without anything of a user's.

A line of a request has its id, route, status, seconds and bytes. Paths are those of routes, and of
errors there is the code: what a user typed or sent is in none of these.
"""

import datetime
import json
import logging
import sys
import traceback
from typing import TextIO

LOGGER = logging.getLogger("florence_onnx.serving")

_FIELDS = "fields"
_FRAMES = 4
"""Innermost calls that are logged of an error."""


def log(event: str, level: int = logging.INFO, **fields: object) -> None:
    """Writes a line.

    Args:
        event: What happened, a word.
        level: Of the logging library.
        **fields: More of it, ready for JSON.
    """
    LOGGER.log(level, event, extra={_FIELDS: fields})


def log_failure(event: str, error: BaseException, **fields: object) -> None:
    """Writes a line about an error that is nobody's request's fault.

    It holds the error's type and where it was raised. Its message may quote a request.
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-_FRAMES:]]
    log(event, logging.ERROR, type=type(error).__name__, where=where, **fields)


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        line = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        return json.dumps(line)


def write_logs(stream: TextIO | None = None) -> None:
    """Has the service's lines written, and the HTTP server's own.

    Args:
        stream: Where to; stdout by default.
    """
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(_Lines())
    for name in (LOGGER.name, "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
