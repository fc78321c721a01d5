"""Measures the memory of a stream of 2,000 small pictures, which must not grow with their number.

    python -m benchmarks.streaming
    python -m benchmarks.streaming --model base --precision q8

All pictures differ. A picture is given as the bytes of a JPEG file, and the model writes a caption
with its own search. The resident set is read after the first 50 answers and after the last answer.
"""

import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from benchmarks.harness.checkpoint import prepare
from benchmarks.harness.common import (
    DEMO,
    BenchmarkError,
    Setup,
    make_parser,
    make_picture,
    progress,
    publish,
)
from benchmarks.harness.measuring import describe
from florence_onnx import Florence2, Request, Task

PICTURES, FIRST = 2000, 50
WIDTH, HEIGHT = 320, 240
LIMIT = 150
"""Megabytes, 10^6 bytes, that the resident set may grow after the first pictures."""
BATCH = 8


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=1)
    parser.set_defaults(model=str(DEMO))
    arguments = parser.parse_args(argv)
    setup = prepare(arguments)
    sides = {f"ours {precision}": resident(setup, precision) for precision in arguments.precision}
    values: dict[str, dict[str, object]] = {}
    notes = []
    for side, (first, last) in sides.items():
        for title, megabytes in ((FIRST, first), (PICTURES, last)):
            case = values.setdefault(f"resident after {title} pictures", {})
            case[side] = describe([megabytes])
        met = "within" if last - first <= LIMIT else "beyond"
        notes.append(f"{side}: {last - first:+.0f} MB, {met} the limit of {LIMIT} MB.")
    content = {
        "settings": {"batch_size": BATCH, "picture": [HEIGHT, WIDTH, 3]},
        "unit": "MB",
        "values": values,
        "ratios": {},
        "notes": notes,
    }
    publish("streaming", arguments, argv, content, setup.provider)


def resident(setup: Setup, precision: str) -> tuple[float, float]:
    """Measures the resident megabytes after the first pictures, and after all pictures."""
    model = Florence2.load(
        setup.exported, precision=precision, providers=setup.providers, threads=setup.threads
    )
    first = 0.0
    for number, _ in enumerate(model.stream(_requests(), batch_size=BATCH), 1):
        if number == FIRST:
            first = resident_bytes() / 1e6
        if number % 200 == 0:
            progress(f"{number} of {PICTURES}: {resident_bytes() / 1e6:.0f} MB")
    return first, resident_bytes() / 1e6


def resident_bytes() -> int:
    """Reads the resident set of this process in bytes.

    Raises:
        BenchmarkError: The system does not tell the size.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        raise BenchmarkError("the resident set is read from /proc, which Linux has")
    (line,) = (one for one in status.read_text().splitlines() if one.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def _requests() -> Iterator[Request]:
    for seed in range(PICTURES):
        file = io.BytesIO()
        Image.fromarray(make_picture(WIDTH, HEIGHT, seed)).save(file, "JPEG")
        yield Request(file.getvalue(), Task.CAPTION)


if __name__ == "__main__":
    main(sys.argv[1:])
