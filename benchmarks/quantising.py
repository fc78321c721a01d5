"""Measures the making of lower precisions: time per step, memory, and the errors of the graphs.

    python -m benchmarks.quantising
    python -m benchmarks.quantising --precision q8 q4 --pictures ./photos
    python -m benchmarks.quantising --model large --fast-only --measured 3 \
        --out benchmarks/results/quantising-large-cpu.json

The command line quantises an export, each precision in a new process, as usual and with `--fast`.
The time is from the start of the process to its end. Errors of both ways are measured on the drawn
pictures that are usual for errors, for which no weights are rounded.

The peak memory is the peak of the resident set, pages of mapped files included. The system can drop
these pages at any time; the private memory does not include these pages.
"""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.checkpoint import prepare
from benchmarks.harness.command import Run, run
from benchmarks.harness.common import make_parser, progress, publish
from benchmarks.harness.measuring import describe
from florence_onnx_export.quantization.fidelity import PICTURES
from florence_onnx_export.quantization.reference import Reference

STEPS = {
    "running": "float32 graphs on what errors are measured on",
    "writing and measuring vision": "vision encoder",
    "writing and measuring embed": "token embedding",
    "writing and measuring encoder": "encoder",
    "writing and measuring decoder": "decoder",
    "comparing": "comparing with float32",
}
"""Beginning of a line on stderr -> name of the step that begins with the line."""
ERRORS = {
    "image_features": "error of the image features",
    "first_logits": "error of the first logits",
    "token_agreement": "tokens of greedy answers that are equal",
}


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=1)
    parser.set_defaults(precision=["q8"])
    parser.add_argument("--pictures", metavar="FOLDER", help="pictures to round weights for")
    parser.add_argument("--fast-only", action="store_true", help="quantise with --fast only")
    parser.add_argument(
        "--measured", type=int, default=PICTURES, help="drawn pictures that errors are measured on"
    )
    arguments = parser.parse_args(argv)
    precisions, arguments.precision = arguments.precision, ["fp32"]
    setup = prepare(arguments)
    own = [f"--pictures={arguments.pictures}"] if arguments.pictures else []
    ways = (" --fast",) if arguments.fast_only else ("", " --fast")
    sides = {f"{p}{way}": (p, way.split()) for p in precisions for way in ways}
    measured: dict[str, tuple[list[Run], dict[str, Any]]] = {}
    reference = Reference(setup.exported, arguments.measured)
    for side, (precision, way) in sides.items():
        progress(side)
        with tempfile.TemporaryDirectory(dir=setup.home) as place:
            folder = Path(shutil.copytree(setup.exported, Path(place, "model")))
            command = ["quantize", str(folder), "--precision", precision, "--force", *own, *way]
            runs = [run(command, {}) for _ in range(arguments.repeats)]
            measured[side] = runs, reference.fidelity(folder, precision).to_dict()
    name = Path(arguments.model).name
    values: dict[str, dict[str, Any]] = {}
    for side, found in measured.items():
        for case, value in costs(*found).items():
            values.setdefault(case, {})[f"{side}, {name}"] = value
    notes = []
    if arguments.measured != PICTURES:
        notes.append(f"{name}: errors are measured on {arguments.measured} of the drawn pictures.")
    content = {"unit": "s", "values": values, "ratios": {}, "notes": notes}
    publish("quantising", arguments, argv, content, setup.provider)


def costs(runs: Sequence[Run], fidelity: dict[str, Any]) -> dict[str, Any]:
    """Case -> measured values of one precision."""
    found = {
        "quantise": describe([r.seconds for r in runs]),
        **{step: describe([seconds(r, step) for r in runs]) for step in STEPS.values()},
        "processor time": describe([r.processor for r in runs]),
        "peak memory": {**describe([r.peak for r in runs]), "unit": "MB"},
        "peak of private memory": {**describe([r.private for r in runs]), "unit": "MB"},
    }
    for key, case in ERRORS.items():
        found[case] = {**describe([100 * fidelity[key]]), "unit": "%"}
    return found


def seconds(run: Run, step: str) -> float:
    """Sums the seconds of a step over all its runs in a command."""
    begun = [(line.seconds, _step(line.text)) for line in run.lines]
    ends = [*(second for second, _ in begun[1:]), run.seconds]
    return sum(end - start for (start, name), end in zip(begun, ends, strict=True) if name == step)


def _step(text: str) -> str:
    said = text.split("] ")[-1]
    return next((step for word, step in STEPS.items() if said.startswith(word)), "")


if __name__ == "__main__":
    main(sys.argv[1:])
