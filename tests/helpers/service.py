"""The HTTP service in this process, or in one of its own."""

import base64
import io
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from PIL import Image

from florence_onnx import Florence2
from florence_onnx.serving.app import Access, make_app
from florence_onnx.serving.limits import Limits
from florence_onnx.serving.metrics import Metrics
from florence_onnx.serving.models import Models
from tests.helpers.tiny import TINY, picture

TOKENS: dict[str, Any] = {"max_new_tokens": 8}


def png(seed: int = 0, height: int = 24, width: int = 32) -> bytes:
    """A picture file."""
    file = io.BytesIO()
    Image.fromarray(picture(seed, height, width)).save(file, "PNG")
    return file.getvalue()


def encoded(data: bytes) -> str:
    """Bytes in base64."""
    return base64.b64encode(data).decode()


def asking(image: bytes | None = None, **fields: Any) -> dict[str, Any]:
    """A body for /v1/answer of a short answer."""
    asked = {} if {"task", "tasks", "prompt"} & set(fields) else {"task": "od"}
    return {"image": encoded(image or png()), "options": TOKENS, **asked, **fields}


@contextmanager
def client(
    limits: Limits | None = None,
    access: Access | None = None,
    sources: Mapping[str, str] | None = None,
    open_model: Callable[[str], Florence2] = Florence2.load,
    **settings: Any,
) -> Iterator[Any]:
    """A client of a service in this process, its first model open.

    Args:
        limits: Of every request.
        access: Who may use it.
        sources: Name -> model; the tiny one by default.
        open_model: Opens a model.
        **settings: Others of `Models`.
    """
    from starlette.testclient import TestClient

    named = sources or {"tiny": str(TINY)}

    def make_models(metrics: Metrics) -> Models:
        return Models(named, open_model, metrics, **settings)

    app = make_app(make_models, limits or Limits(), access or Access())
    with TestClient(app) as found:
        until(lambda: found.get("/readyz").status_code == 200)
        yield found


def until(holds: Callable[[], bool]) -> None:
    """Waits for what another thread brings about."""
    for _ in range(3000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("what was waited for has not come")


class Process:
    """A service in a process of its own."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "florence_onnx", "serve", *arguments],
            env={**os.environ, "FLORENCE_ONNX_SERVE_PORT": "0", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.log: list[dict[str, Any]] = []
        """The lines read so far."""
        threading.Thread(target=self._read, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.line('listening')['port']}"

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def line(self, event: str) -> dict[str, Any]:
        """The next line of the log about an event."""
        while True:
            text = self._lines.get(timeout=60)
            assert text is not None, (event, self.log, self.process.communicate()[1])
            self.log.append(json.loads(text))
            if self.log[-1]["event"] == event:
                return self.log[-1]

    def end(self) -> int:
        """Waits for the end of the process, and reads the rest of its log."""
        while (text := self._lines.get(timeout=60)) is not None:
            self.log.append(json.loads(text))
        return self.process.wait(60)


@contextmanager
def process(*arguments: str, **environment: str) -> Iterator[Process]:
    """A service in a process of its own, which ends with the block."""
    served = Process(arguments, environment)
    try:
        yield served
    finally:
        served.process.kill()
        served.process.wait()
        for stream in (served.process.stdout, served.process.stderr):
            assert stream
            stream.close()
