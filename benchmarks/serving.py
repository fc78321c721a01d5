"""Measures our service, and a service around transformers, with 1, 8 and 32 clients.

    python -m benchmarks.serving --precision q8

Every client sends the next request as soon as there is an answer, so one client means one request
at a time. A request has the JPEG file of a picture of 1280x960, each time another picture, and asks
for an OD of 50 tokens with 3 beams. The other service is as a user would write one: FastAPI around
transformers in bfloat16, one request at a time.
"""

import argparse
import base64
import io
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence

from PIL import Image

from benchmarks.harness.checkpoint import prepare
from benchmarks.harness.common import BEAMS, Setup, make_parser, make_picture, progress, publish
from benchmarks.harness.load import Ask, free_port, load, service
from benchmarks.harness.measuring import describe, ratio

REQUESTS = {1: 4, 8: 16, 32: 32}
"""Number of clients -> number of requests in a round."""
TOKENS = 50
THEIRS = "transformers bf16 in FastAPI"
EACH = "seconds per request"
MEDIAN = "median time to an answer"
TAIL = "time to an answer, 95 of 100"
_JSON = {"Content-Type": "application/json"}
_SLOW = "3600"
"""Limit of a request in seconds, which no request reaches."""

Cases = Mapping[str, list[float]]
"""Number of clients and measure -> one value per round."""


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=1)
    parser.add_argument(
        "--clients", type=int, nargs="+", default=[*REQUESTS], choices=REQUESTS, help="default: all"
    )
    arguments = parser.parse_args(argv)
    setup = prepare(arguments)
    ours = {f"ours {name}": _load_ours(setup, name, arguments) for name in arguments.precision}
    theirs = _load_theirs(setup, arguments)
    ratios = {}
    for side, cases in ours.items():
        for clients in map(_clients, arguments.clients):
            each, tail = (f"{clients}, {name}" for name in (EACH, TAIL))
            ratios[f"{each}: {side} / {THEIRS}"] = ratio(cases[each], theirs[each])
            slowest = f"{tail}: {side} / {MEDIAN}, {THEIRS}"
            ratios[slowest] = ratio(cases[tail], theirs[f"{clients}, {MEDIAN}"])
    content = {
        "settings": {"beams": BEAMS, "picture": [960, 1280, 3], "tokens": TOKENS},
        "unit": "s",
        "values": {
            case: {side: describe(cases[case]) for side, cases in {**ours, THEIRS: theirs}.items()}
            for case in theirs
        },
        "ratios": ratios,
    }
    publish("serving", arguments, argv, content, setup.provider)


def _load_ours(setup: Setup, precision: str, arguments: argparse.Namespace) -> Cases:
    port = free_port()
    given = [
        f"--model=it={setup.exported}",
        f"--precision={precision}",
        f"--threads={setup.threads}",
        f"--port={port}",
        f"--timeout={_SLOW}",
    ]

    def ask(content: bytes) -> Ask:
        options = {"num_beams": BEAMS, "min_new_tokens": TOKENS, "max_new_tokens": TOKENS}
        body = {"image": base64.b64encode(content).decode(), "task": "od", "options": options}
        return Ask("/v1/answer", json.dumps(body).encode(), _JSON)

    with service("florence_onnx", ["serve", *given], port, "/readyz") as found:
        return _cases(f"ours {precision}", found.port, ask, arguments)


def _load_theirs(setup: Setup, arguments: argparse.Namespace) -> Cases:
    port = free_port()
    given = [str(setup.checkpoint), str(port), str(setup.threads)]

    def ask(content: bytes) -> Ask:
        return Ask(f"/answer?task=%3COD%3E&tokens={TOKENS}", content, {})

    with service("benchmarks.harness.transformers_service", given, port, "/docs") as found:
        return _cases(THEIRS, found.port, ask, arguments)


def _cases(
    side: str, port: int, ask: Callable[[bytes], Ask], arguments: argparse.Namespace
) -> Cases:
    asks = [ask(_picture(seed)) for seed in range(max(REQUESTS.values()))]
    load(port, asks[:1], 1)  # The first answer is not counted.
    cases: dict[str, list[float]] = {}
    for clients in arguments.clients:
        for number in range(arguments.repeats):
            progress(f"{side}, {_clients(clients)}, round {number + 1} of {arguments.repeats}")
            lasted, seconds = load(port, asks[: REQUESTS[clients]], clients)
            for name, value in (
                (EACH, lasted / len(seconds)),
                (MEDIAN, statistics.median(seconds)),
                (TAIL, percentile(seconds, 0.95)),
            ):
                cases.setdefault(f"{_clients(clients)}, {name}", []).append(value)
    return cases


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the smallest value that at least a share of all values is at or below."""
    ordered = sorted(values)
    return next(value for place, value in enumerate(ordered, 1) if place >= share * len(ordered))


def _clients(count: int) -> str:
    return f"{count} client{'s' if count > 1 else ''}"


def _picture(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(make_picture(seed=seed)).save(file, "JPEG")
    return file.getvalue()


if __name__ == "__main__":
    main(sys.argv[1:])
