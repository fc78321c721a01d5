"""One answer of one peer in a process of its own, for what only a fresh process shows."""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.common import (
    BEAMS,
    ROOT,
    BenchmarkError,
    Setup,
    make_parser,
    make_picture,
    publish,
)
from benchmarks.measuring import alternate, summarise
from benchmarks.peers import PEERS_HELP, open_peer

TASK, TOKENS = "<CAPTION>", 20


@dataclass(frozen=True)
class FreshRun:
    """What a fresh process needed for one answer."""

    seconds: float
    """From its start to its answer."""
    megabytes: float
    """Its peak resident memory, 10^6 bytes."""
    name: str
    """The peer's name in tables."""


def measure(
    name: str,
    description: str,
    argv: Sequence[str],
    quantity: Callable[[FreshRun], float],
    unit: str,
) -> None:
    """Starts ours and the peers in turn, and publishes one quantity.

    Args:
        name: The script's name.
        description: The script's description.
        argv: Its options.
        quantity: What is published of a run.
        unit: Of the quantity.
    """
    from benchmarks.checkpoint import prepare

    parser = make_parser(description, repeats=7)
    parser.add_argument(
        "--peers", nargs="*", default=["transformers_eager:fp32"], metavar="PEER", help=PEERS_HELP
    )
    arguments = parser.parse_args(argv)
    setup = prepare(arguments)
    started = [*(f"ours:{precision}" for precision in arguments.precision), *arguments.peers]
    runs = alternate({peer: partial(run_fresh, peer, setup) for peer in started}, arguments.repeats)
    sides = {found[0].name: [quantity(run) for run in found] for found in runs.values()}
    case = f"CAPTION of {TOKENS} tokens in a fresh process"
    content = {"settings": {"beams": BEAMS}, **summarise({case: sides}, unit)}
    publish(name, arguments, argv, content, setup.provider)


def run_fresh(peer: str, setup: Setup) -> FreshRun:
    """Starts a process, has it answer, and waits for its end.

    Args:
        peer: ``MODULE:VARIANT``.
        setup: What it opens, and where it runs.

    Raises:
        BenchmarkError: The process failed; its own message went to stderr.
    """
    options = {
        "checkpoint": setup.checkpoint,
        "exported": setup.exported,
        "home": setup.home,
        "provider": setup.provider,
        "threads": setup.threads,
    }
    given = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "benchmarks.fresh", peer, *given]
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
    """The fresh process: prints its answer's length and its peak memory as one line of JSON."""
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


def peak_bytes() -> int:
    """The most memory that this process has held, shared pages of files included."""
    status = Path("/proc/self/status")
    if status.exists():  # The usage below starts with what the parent process held.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main(sys.argv[1:])
