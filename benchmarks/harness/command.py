"""Commands of the package in new processes, with time, lines and memory."""

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.common import ROOT, BenchmarkError

_PAUSE = 0.01
"""Seconds between two readings of the memory."""


@dataclass(frozen=True)
class Line:
    """Line that a command printed on stderr."""

    seconds: float
    """Seconds since the start of the command."""
    peak: float
    """Peak of the command's memory until the line, in megabytes."""
    text: str


@dataclass(frozen=True)
class Run:
    """Run of a command that has ended."""

    seconds: float
    """Seconds from start to end."""
    processor: float
    """Seconds of processor time of all threads."""
    peak: float
    """Peak of the resident set, in megabytes."""
    private: float
    """Peak of the private memory, in megabytes."""
    lines: tuple[Line, ...]

    def line(self, word: str) -> Line:
        """Finds the first line that begins with a word, after the time in brackets."""
        return next(line for line in self.lines if line.text.split("] ")[-1].startswith(word))


def run(command: Sequence[str], variables: Mapping[str, str]) -> Run:
    """Runs a command of the package in a new process.

    Raises:
        BenchmarkError: The command failed. The message is that of the command.
    """
    path = os.pathsep.join([str(ROOT), str(ROOT / "export")])
    start, used = time.perf_counter(), _processor_seconds()
    lines: list[Line] = []
    with subprocess.Popen(
        [sys.executable, "-m", "florence_onnx", *command],
        env={**os.environ, "PYTHONPATH": path, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        memory = _Memory(process.pid)
        memory.start()
        assert process.stderr  # noqa: S101
        for text in process.stderr:
            memory.read()
            lines.append(Line(time.perf_counter() - start, memory.peak, text.strip()))
    seconds = time.perf_counter() - start
    memory.join()
    if process.returncode:
        last = lines[-1].text if lines else "it said nothing"
        raise BenchmarkError(f"florence-onnx {' '.join(command)} failed: {last}")
    processor = _processor_seconds() - used
    return Run(seconds, processor, memory.peak, memory.private, tuple(lines))


def _processor_seconds() -> float:
    """Processor time of the child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class _Memory(threading.Thread):
    """Thread that reads the memory of another process until the process ends."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.status = Path(f"/proc/{pid}/status")
        self.peak = self.private = 0.0

    def run(self) -> None:
        """Reads the memory every few milliseconds."""
        while self.read():
            time.sleep(_PAUSE)

    def read(self) -> bool:
        """Reads the memory; tells whether the process still has memory."""
        try:
            text = self.status.read_text()
        except OSError:
            return False
        sizes = dict(line.split(":", 1) for line in text.splitlines())
        if "VmHWM" not in sizes:
            return False
        self.peak = max(self.peak, int(sizes["VmHWM"].split()[0]) * 1024 / 1e6)
        self.private = max(self.private, int(sizes["RssAnon"].split()[0]) * 1024 / 1e6)
        return True
