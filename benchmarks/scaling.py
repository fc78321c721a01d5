"""Times requests of different numbers of tokens, beams and pictures, and of different sizes.

    python -m benchmarks.scaling

Only one number varies at a time. The usual request has 50 tokens, 3 beams, a picture of 1280x960.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.harness.checkpoint import prepare
from benchmarks.harness.common import BEAMS, make_parser, make_picture, publish
from benchmarks.harness.measuring import Samples, alternate, seconds, summarise
from benchmarks.peers import PEERS_HELP, Peer, open_peers


@dataclass(frozen=True)
class Load:
    """Work of one measured call."""

    tokens: int = 50
    beams: int = BEAMS
    batch: int = 1
    picture: tuple[int, int] = (1280, 960)
    """Width and height in pixels."""


AXES: dict[str, tuple[Any, ...]] = {
    "tokens": (20, 50, 100, 200, 400),
    "beams": (1, 2, 3, 5),
    "batch": (1, 2, 4, 8),
    "picture": ((320, 240), (1280, 960), (4000, 3000)),
}


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=3)
    parser.add_argument(
        "--peers", nargs="*", default=["transformers_eager:fp32"], metavar="PEER", help=PEERS_HELP
    )
    arguments = parser.parse_args(argv)
    setup = prepare(arguments)
    ours = [f"ours:{precision}" for precision in arguments.precision]
    peers, notes = open_peers([*ours, *arguments.peers], setup)
    cases: dict[str, Samples] = {}
    for axis, values in AXES.items():
        for value in values:
            load = replace(Load(), **{axis: value})
            named = "x".join(map(str, value)) if isinstance(value, tuple) else value
            sides = {peer.name: _call(peer, load) for peer in peers}
            cases[f"{axis} {named}"] = alternate(sides, arguments.repeats)
    publish("scaling", arguments, argv, {**summarise(cases), "notes": notes}, setup.provider)


def _call(peer: Peer, load: Load) -> Callable[[], float]:
    pictures = [make_picture(*load.picture, seed=seed) for seed in range(load.batch)]
    return lambda: seconds(lambda: peer.answer(pictures, "<OD>", load.tokens, load.beams))


if __name__ == "__main__":
    main(sys.argv[1:])
