"""Logs for programs: one JSON object per line, without data of users.

The line of a request has id, route, status, seconds and bytes. Instead of paths and messages, lines
have routes and codes of errors, so a log has no text that a user typed or sent.
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
"""Number of innermost calls in the log of an error."""


def log(event: str, level: int = logging.INFO, **fields: object) -> None:
    """Writes a line.

    Args:
        event: Name of the event, a word.
        level: Level of the logging library.
        **fields: Further fields, ready for JSON.
    """
    LOGGER.log(level, event, extra={_FIELDS: fields})


def log_failure(event: str, error: BaseException, **fields: object) -> None:
    """Writes a line about an error that no request has caused.

    The line has the type and the place of the error, but no message, which may quote a request.
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
    """Starts the logs of the service and of the HTTP server.

    Args:
        stream: Stream for the lines; stdout by default.
    """
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(_Lines())
    for name in (LOGGER.name, "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
