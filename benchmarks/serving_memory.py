"""Measures the memory of our service over 5,000 requests, which must not grow with their number.

    python -m benchmarks.serving_memory
    python -m benchmarks.serving_memory --model FOLDER --precision q8 --requests 48

8 clients ask the demo model for captions, boxes and text of small pictures, each time another
picture of another size. The resident set of the service's process is read after the first 200
answers, after the last answer, and after the model has been idle and is closed. It takes 5 minutes.
"""

import base64
import io
import json
import sys
import time
import urllib.request
from collections.abc import Sequence

from PIL import Image

from benchmarks.harness.common import make_parser, make_picture, progress, publish
from benchmarks.harness.load import Ask, free_port, load, service
from benchmarks.harness.measuring import describe

REQUESTS, FIRST, CLIENTS = 5000, 200, 8
IDLE = 5
"""Seconds without a request after which the service closes the model."""
TASKS = ("caption", "od", "ocr")
LIMIT = 50
"""Megabytes, 10^6 bytes, that the resident set may grow after the first requests."""


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=1, precisions=False)
    parser.set_defaults(model="demo")
    parser.add_argument("--precision", default="fp32", help="our precision (default: fp32)")
    parser.add_argument(
        "--requests", type=int, default=REQUESTS, help=f"requests (default: {REQUESTS})"
    )
    arguments = parser.parse_args(argv)
    first = min(FIRST, max(CLIENTS, arguments.requests // 25))
    port = free_port()
    given = [
        "serve",
        f"--model={arguments.model}",
        f"--port={port}",
        f"--threads={arguments.threads}",
        f"--precision={arguments.precision}",
        f"--idle={IDLE}",
    ]
    values: dict[str, dict[str, object]] = {}
    with service("florence_onnx", given, port, "/readyz") as found:
        done, sizes = 0, []
        for count in (first, arguments.requests):
            while done < count:
                part = min(first, count - done)
                load(port, [_ask(done + number) for number in range(part)], CLIENTS)
                done += part
                progress(f"{done} of {arguments.requests}: {found.resident_bytes() / 1e6:.0f} MB")
            sizes.append(found.resident_bytes() / 1e6)
            values[f"resident after {count} requests"] = {"ours": describe(sizes[-1:])}
        while "florence_onnx_models_open 0.0" not in _metrics(port):
            time.sleep(IDLE / 10)
        closed = found.resident_bytes() / 1e6
        values["resident after the model is closed"] = {"ours": describe([closed])}
    grown = sizes[1] - sizes[0]
    met = "within" if grown <= LIMIT else "beyond"
    content = {
        "settings": {
            "clients": CLIENTS,
            "tasks": TASKS,
            "precision": arguments.precision,
            "idle": IDLE,
        },
        "unit": "MB",
        "values": values,
        "ratios": {},
        "notes": [f"{grown:+.0f} MB, {met} the limit of {LIMIT} MB."],
    }
    publish("serving_memory", arguments, argv, content)


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return str(answer.read(), "ascii")


def _ask(seed: int) -> Ask:
    file = io.BytesIO()
    width, height = 160 + seed % 320, 120 + seed % 240
    Image.fromarray(make_picture(width, height, seed)).save(file, "JPEG")
    body = {
        "image": base64.b64encode(file.getvalue()).decode(),
        "task": TASKS[seed % len(TASKS)],
        "options": {"max_new_tokens": 10},
    }
    return Ask("/v1/answer", json.dumps(body).encode(), {"Content-Type": "application/json"})


if __name__ == "__main__":
    main(sys.argv[1:])
