"""Fresh processes, each for one answer of one peer."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.common import BEAMS, ROOT, BenchmarkError, Setup, make_picture
from benchmarks.peers import open_peer
from florence_onnx.machine import peak_bytes

TASK, TOKENS = "<CAPTION>", 20


@dataclass(frozen=True)
class FreshRun:
    """Costs of one answer in a fresh process."""

    seconds: float
    """Seconds from the start of the process to the answer."""
    megabytes: float
    """Peak of the resident memory, 10^6 bytes."""
    name: str
    """Peer's name in tables."""


def run_fresh(peer: str, setup: Setup) -> FreshRun:
    """Runs a process that answers once.

    Args:
        peer: ``MODULE:VARIANT``.
        setup: Model and device of the peer.

    Raises:
        BenchmarkError: The process failed. The message of the process is on stderr.
    """
    options = {
        "checkpoint": setup.checkpoint,
        "exported": setup.exported,
        "home": setup.home,
        "provider": setup.provider,
        "threads": setup.threads,
    }
    given = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "benchmarks.harness.fresh", peer, *given]
    path = os.pathsep.join([str(ROOT), str(ROOT / "export")])
    start = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout  # noqa: S101
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
    if process.returncode or not line:
        raise BenchmarkError(f"{peer} failed in a fresh process")
    answer = json.loads(line)
    if answer["tokens"] != TOKENS:
        raise BenchmarkError(f"{peer} generated {answer['tokens']} tokens, not {TOKENS}")
    return FreshRun(seconds, answer["peak_bytes"] / 1e6, answer["name"])


def main(argv: Sequence[str]) -> None:
    """Runs in the fresh process: prints the answer's length and the peak memory as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer")
    for name, kind in (("checkpoint", Path), ("exported", Path), ("home", Path)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--provider", required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = vars(parser.parse_args(argv))
    peer = open_peer(options.pop("peer"), Setup(**options))
    (answer,) = peer.answer([make_picture()], TASK, TOKENS, BEAMS)
    line = {
        "name": peer.name,
        "tokens": len(answer.token_ids) - 1,
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
