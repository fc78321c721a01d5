"""Measures a fresh process that writes a caption of 20 tokens: its time and its peak memory.

    python -m benchmarks.cold_start
    python -m benchmarks.cold_start --precision fp32 q8 --peers transformers_eager:fp32

The time is from the start of the process to its answer: imports, opening the model from disk and
the answer. The files are in the system's cache, because a first round is not counted. The memory is
the peak of the resident set, which includes pages of mapped files; for CUDA, the memory of the
host.
"""

import sys
from collections.abc import Sequence
from functools import partial

from benchmarks.harness.checkpoint import prepare
from benchmarks.harness.common import BEAMS, make_parser, publish
from benchmarks.harness.fresh import TOKENS, run_fresh
from benchmarks.harness.measuring import alternate, compare_sides, describe
from benchmarks.peers import PEERS_HELP

TIME = f"process start to a CAPTION of {TOKENS} tokens"
MEMORY = "peak memory of that process"


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=7)
    parser.add_argument(
        "--peers", nargs="*", default=["transformers_eager:fp32"], metavar="PEER", help=PEERS_HELP
    )
    arguments = parser.parse_args(argv)
    setup = prepare(arguments)
    started = [*(f"ours:{precision}" for precision in arguments.precision), *arguments.peers]
    runs = alternate({peer: partial(run_fresh, peer, setup) for peer in started}, arguments.repeats)
    seconds = {found[0].name: [run.seconds for run in found] for found in runs.values()}
    memory = {found[0].name: [run.megabytes for run in found] for found in runs.values()}
    content = {
        "settings": {"beams": BEAMS},
        "unit": "s",
        "values": {
            TIME: {side: describe(samples) for side, samples in seconds.items()},
            MEMORY: {side: {**describe(s), "unit": "MB"} for side, s in memory.items()},
        },
        "ratios": {**compare_sides(TIME, seconds), **compare_sides(MEMORY, memory)},
    }
    publish("cold_start", arguments, argv, content, setup.provider)


if __name__ == "__main__":
    main(sys.argv[1:])
