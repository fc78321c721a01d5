"""Measures the memory of an annotation of 5,000 pictures, which must not grow with their number.

    python -m benchmarks.annotating_memory --threads 1

The demo model is asked for the first 8 tokens of captions of small pictures in JPEG files, and the
lines are written. The resident set is read after 200 pictures and after the last one.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.annotating import make_photos
from benchmarks.harness.common import make_parser, progress, publish
from benchmarks.harness.measuring import describe
from benchmarks.streaming import resident_bytes
from florence_onnx import Florence2
from florence_onnx.annotate.output import open_output
from florence_onnx.annotate.pipeline import Annotation, Summary
from florence_onnx.annotate.questions import Plan, plan_questions
from florence_onnx.annotate.sources import find_items

FIRST, PICTURES = 200, 5000
WIDTH, HEIGHT = 320, 240
LIMIT = 50
"""Megabytes, 10^6 bytes, that the resident set may grow after the first pictures."""


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=1, precisions=False)
    parser.set_defaults(model="demo")
    arguments = parser.parse_args(argv)
    first, last = resident(arguments.threads)
    met = "within" if last - first <= LIMIT else "beyond"
    content = {
        "settings": {"picture": [HEIGHT, WIDTH, 3]},
        "unit": "MB",
        "values": {
            f"resident after {count} pictures": {"annotate": describe([megabytes])}
            for count, megabytes in ((FIRST, first), (PICTURES, last))
        },
        "ratios": {},
        "notes": [f"{last - first:+.0f} MB, {met} the limit of {LIMIT} MB."],
    }
    publish("annotating_memory", arguments, argv, content)


def resident(threads: int) -> tuple[float, float]:
    """Measures the resident megabytes after the first pictures, and after all pictures."""
    model = Florence2.load("demo", threads=threads)
    found: list[float] = []

    def watch(summary: Summary) -> None:
        if not found and summary.pictures >= FIRST:
            found.append(resident_bytes() / 1e6)
        if summary.pictures % 200 == 0:
            progress(f"{summary.pictures} of {PICTURES}")

    plan = Plan(plan_questions(["caption"], None, None, None), {"max_new_tokens": 8})
    with tempfile.TemporaryDirectory() as folder:
        photos, out = Path(folder) / "photos", Path(folder) / "out"
        make_photos(photos, PICTURES, WIDTH, HEIGHT)
        with open_output(out, "fill", "benchmark", plan.settings()) as output:
            Annotation(model, plan, output, watch=watch).run(find_items([str(photos)]))
            return found[0], resident_bytes() / 1e6


if __name__ == "__main__":
    main(sys.argv[1:])
