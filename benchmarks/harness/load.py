"""Services in new processes, and clients that send all requests of a list."""

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.common import ROOT, BenchmarkError

_START_SECONDS = 300


@dataclass(frozen=True)
class Service:
    """Service that listens."""

    port: int
    """Port on 127.0.0.1."""
    pid: int
    """Process of the service."""

    def resident_bytes(self) -> int:
        """Resident set of the process in bytes, on Linux."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise BenchmarkError("this system does not tell the resident set of a process")


@dataclass(frozen=True)
class Ask:
    """Request that a client sends."""

    path: str
    """Path of the request."""
    body: bytes
    """Body of the request."""
    headers: Mapping[str, str]
    """Headers of the request."""


@contextmanager
def service(module: str, arguments: Sequence[str], port: int, ready: str) -> Iterator[Service]:
    """Starts a service, and ends the service with the block.

    Args:
        module: Module that ``python -m`` runs.
        arguments: Arguments of the module.
        port: Port in these arguments.
        ready: Path that the service answers when it is ready.

    Raises:
        BenchmarkError: The service has not become ready.
    """
    path = os.pathsep.join([str(ROOT), str(ROOT / "export")])
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + _START_SECONDS
        while not _is_ready(port, ready):
            if process.poll() is not None or time.monotonic() > end:
                raise BenchmarkError(f"{module} has not started")
            time.sleep(0.2)
        yield Service(port, process.pid)
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """Finds a free port."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def load(port: int, asks: Sequence[Ask], clients: int) -> tuple[float, list[float]]:
    """Sends requests by several clients. A client sends the next request after each answer.

    Args:
        port: Port of the service.
        asks: Requests, each of which is sent once.
        clients: Number of clients.

    Returns:
        Seconds until the last answer, and of every request.

    Raises:
        BenchmarkError: A request was not answered with status 200.
    """
    waiting, lock = iter(asks), threading.Lock()
    seconds: list[float] = []
    failures: list[str] = []

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_START_SECONDS)
        while not failures:
            with lock:
                ask = next(waiting, None)
            if ask is None:
                break
            start = time.perf_counter()
            connection.request("POST", ask.path, ask.body, dict(ask.headers))
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                failures.append(f"{answer.status}: {content[:200]!r}")
            seconds.append(time.perf_counter() - start)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures or len(seconds) != len(asks):
        raise BenchmarkError(f"a request failed: {failures or 'no answer'}")
    return time.perf_counter() - begin, seconds


def _is_ready(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
