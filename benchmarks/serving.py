"""Measures our service, and a service around transformers, with 1, 8 and 32 clients.

    python -m benchmarks.serving --precision q8

Every client sends the next request as soon as there is an answer. A request has the JPEG file of a
picture of 1280x960, each time another picture, and asks for an OD of 50 tokens with 3 beams. The
other service is as a user would write one: FastAPI around transformers in bfloat16, one request at
a time.
"""

import argparse
import base64
import io
import json
import statistics
import sys
from collections.abc import Callable, Sequence

from PIL import Image

from benchmarks.harness.checkpoint import prepare
from benchmarks.harness.common import BEAMS, Setup, make_parser, make_picture, progress, publish
from benchmarks.harness.load import Ask, free_port, load, service
from benchmarks.harness.measuring import describe

CLIENTS = (1, 8, 32)
TOKENS = 50
_JSON = {"Content-Type": "application/json"}
_SLOW = "3600"
"""Limit of a request in seconds, which no request reaches."""


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=3)
    parser.add_argument(
        "--clients", type=int, nargs="+", default=CLIENTS, help="default: 1, 8 and 32"
    )
    arguments = parser.parse_args(argv)
    setup = prepare(arguments)
    sides = {f"ours {name}": _load_ours(setup, name, arguments) for name in arguments.precision}
    theirs = "transformers bf16 in FastAPI"
    sides[theirs] = _load_theirs(setup, arguments)
    values: dict[str, dict[str, object]] = {}
    ratios = {}
    for side, cases in sides.items():
        for case, samples in cases.items():
            values.setdefault(case, {})[side] = describe(samples)
    for side in list(sides)[:-1]:
        for clients in arguments.clients:
            case = f"{clients} clients, requests per second"
            gain = sides[side][case][0] / sides[theirs][case][0]
            ratios[f"{case}: {side} / {theirs}"] = dict.fromkeys(("median", "min", "max"), gain)
    content = {
        "settings": {"beams": BEAMS, "picture": [960, 1280, 3], "tokens": TOKENS},
        "unit": "see each case",
        "values": values,
        "ratios": ratios,
    }
    publish("serving", arguments, argv, content, setup.provider)


def _load_ours(
    setup: Setup, precision: str, arguments: argparse.Namespace
) -> dict[str, list[float]]:
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


def _load_theirs(setup: Setup, arguments: argparse.Namespace) -> dict[str, list[float]]:
    port = free_port()
    given = [str(setup.checkpoint), str(port), str(setup.threads)]

    def ask(content: bytes) -> Ask:
        return Ask(f"/answer?task=%3COD%3E&tokens={TOKENS}", content, {})

    with service("benchmarks.harness.transformers_service", given, port, "/docs") as found:
        return _cases("transformers", found.port, ask, arguments)


def _cases(
    side: str, port: int, ask: Callable[[bytes], Ask], arguments: argparse.Namespace
) -> dict[str, list[float]]:
    asks = [ask(_picture(seed)) for seed in range(max(arguments.clients))]
    load(port, asks[:1], 1)
    cases: dict[str, list[float]] = {}
    for clients in arguments.clients:
        progress(f"{side}, {clients} clients")
        count = clients * arguments.repeats
        lasted, seconds = load(port, (asks * count)[:count], clients)
        cases[f"{clients} clients, requests per second"] = [count / lasted]
        cases[f"{clients} clients, seconds, median"] = [statistics.median(seconds)]
        cases[f"{clients} clients, seconds, 95 of 100"] = [_percentile(seconds, 0.95)]
    return cases


def _percentile(seconds: Sequence[float], part: float) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def _picture(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(make_picture(seed=seed)).save(file, "JPEG")
    return file.getvalue()


if __name__ == "__main__":
    main(sys.argv[1:])
