"""Measures two ways from a checkpoint to a model: filling without torch, and tracing with torch.

    python -m benchmarks.filling
    python -m benchmarks.filling --model large --out benchmarks/results/filling-large-cpu.json
    python -m benchmarks.filling --wheels BEFORE.whl NOW.whl

The command line exports a float32 checkpoint in safetensors with random weights of a released
geometry, each time in a new process. The time is from the start of the process to its end: imports,
reading, checking values, writing, checking graphs, digests. Then a hub on this machine serves the
checkpoint to an empty cache, and a new process fetches the files, makes the model and answers.

The peak memory is the peak of the resident set, pages of mapped files included. The system can drop
these pages at any time; the private memory does not include these pages. The memory is read every
10 ms. Tracing ``large`` takes 16 GB.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness.checkpoint import kept
from benchmarks.harness.command import Run, run
from benchmarks.harness.common import (
    ROOT,
    BenchmarkError,
    make_parser,
    make_picture,
    progress,
    publish,
)
from benchmarks.harness.measuring import describe
from benchmarks.size import required
from florence_onnx.assets.report import read_report
from florence_onnx.terminal import size_text

NAME = "org/model"
"""Hub id of the served checkpoint."""
TOKENS = "20"
"""Length of the first answer in tokens. A model with random weights ends no answer by itself."""
NEEDED = {"ours": "florence-onnx[cpu]", "torch": "florence-onnx[cpu,export]"}
"""Extras to install for each way."""
STEPS = {
    "": "process start",
    "fetching": "fetching",
    "reading": "reading and checking values",
    "filling": "filling",
    "asking": "smoke check, digests, opening and answering",
}
"""Beginning of a line on stderr -> name of the step that begins with the line."""

Values = dict[str, dict[str, Any]]
"""Case -> side -> measured values."""


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=3, precisions=False)
    parser.add_argument(
        "--wheels", nargs=2, type=Path, metavar="FILE", help="an earlier wheel, and the present one"
    )
    parser.add_argument("--filled-only", action="store_true", help="leave out tracing with torch")
    arguments = parser.parse_args(argv)
    checkpoint = find_checkpoint(arguments.model, arguments.work)
    home = arguments.work / "filling"
    ours, torch = (f"{way}, {Path(arguments.model).name}" for way in NEEDED)
    export(checkpoint, home / "filled")  # From now on, the files are in the system's cache.
    runs: dict[str, list[Run]] = {ours: []}
    checks, notes = [], []
    for _ in range(arguments.repeats):
        runs[ours].append(export(checkpoint, home / "filled"))
        checks.append(read_report(home / "filled")["seconds"]["check"])
    if not arguments.filled_only:
        runs[torch] = [export(checkpoint, home / "traced", "--with", "torch")]
        notes.append(comparison(home))
        shutil.rmtree(home / "traced")
    shutil.rmtree(home / "filled")
    values = exports(runs, checks)
    packages = zip((ours, torch), NEEDED.values(), strict=True)
    values["packages installed"] = {
        side: {**describe([len(required([needed]))]), "unit": "packages"}
        for side, needed in packages
    }
    answer, fetched = first_answer(checkpoint, home)
    values["first answer from a hub"] = {ours: describe([answer.seconds])}
    notes.append(f"{ours}: the first answer is {steps(answer)}. {size_text(fetched)} are fetched.")
    if arguments.wheels:
        before, now = (path.stat().st_size / 1e6 for path in arguments.wheels)
        notes.append(f"The wheel has {now:.3f} MB; before there were skeletons {before:.3f} MB.")
    content = {"unit": "s", "values": values, "ratios": {}, "notes": notes}
    publish("filling", arguments, argv, content)


def find_checkpoint(model: str, work: Path) -> Path:
    """Finds the checkpoint that is given, or makes one of a released geometry.

    Raises:
        BenchmarkError: ``model`` is neither.
    """
    if (Path(model) / "config.json").is_file():
        return Path(model)
    if model not in ("base", "large"):
        raise BenchmarkError(f"{model!r} is neither base nor large nor the folder of a checkpoint")
    helpers = ROOT / "tests" / "helpers"
    sources = [helpers / f"{name}.py" for name in ("checkpoints", "random_models", "tokenizers")]
    return kept(work, f"filling-{model}", sources, partial(make, model)) / "checkpoint"


def make(model: str, home: Path) -> None:
    """Writes a checkpoint in transformers' format, tensor by tensor."""
    from tests.helpers.checkpoints import save_random
    from tests.helpers.random_models import BASE, LARGE

    save_random({"base": BASE, "large": LARGE}[model], home / "checkpoint")


def export(checkpoint: Path, out: Path, *options: str) -> Run:
    """Exports to a new folder."""
    shutil.rmtree(out, ignore_errors=True)
    progress(f"exporting to {out}")
    return run(["export", str(checkpoint), str(out), *options], {})


def exports(runs: Mapping[str, Sequence[Run]], checks: Sequence[float]) -> Values:
    """Collects times and memory of both ways.

    Args:
        runs: Side -> exports of the side, ours first.
        checks: Seconds of the smoke check in each of our exports.
    """
    ours = next(iter(runs))
    sides = {
        "export": {side: [one.seconds for one in found] for side, found in runs.items()},
        "processor time of the export": {
            side: [one.processor for one in found] for side, found in runs.items()
        },
        "export without its smoke check": {
            ours: [one.seconds - check for one, check in zip(runs[ours], checks, strict=True)]
        },
    }
    memory = {
        "peak memory": {side: [one.peak for one in found] for side, found in runs.items()},
        "peak memory before the smoke check": {
            ours: [one.line("asking").peak for one in runs[ours]]
        },
        "peak of private memory": {
            side: [one.private for one in found] for side, found in runs.items()
        },
    }
    megabytes = {
        case: {side: {**describe(found), "unit": "MB"} for side, found in measured.items()}
        for case, measured in memory.items()
    }
    return {
        **{case: {s: describe(found) for s, found in one.items()} for case, one in sides.items()},
        **megabytes,
    }


def comparison(home: Path) -> str:
    """Compares the digests of both ways' files, and names the packages that traced."""
    filled, traced = (read_report(home / name) for name in ("filled", "traced"))
    names = filled["files"].keys() | traced["files"].keys()
    other = sorted(n for n in names if filled["files"].get(n) != traced["files"].get(n))
    found = f"differ in {', '.join(other)}" if other else f"are equal, all {len(names)} of them"
    versions = traced["versions"]
    packages = ", ".join(f"{name} {versions[name]}" for name in ("torch", "onnxscript", "onnx"))
    return f"Byte by byte, the files of both ways {found}; the graphs were traced by {packages}."


def first_answer(checkpoint: Path, home: Path) -> tuple[Run, int]:
    """Runs a process that answers with an empty cache; also returns the bytes fetched."""
    from PIL import Image

    from tests.helpers.hub import serve_hub

    cache, picture = home / "cache", home / "photo.png"
    shutil.rmtree(cache, ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
    Image.fromarray(make_picture()).save(picture)
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    progress("from an empty cache to an answer")
    with serve_hub(NAME, files) as hub:
        variables = {"HF_HOME": str(cache), "HF_ENDPOINT": hub.url}
        asked = ["run", str(picture), "--task", "od", "--max-new-tokens", TOKENS, "--model", NAME]
        done = run(asked, variables)
        fetched = sum(len(files[name]) for name in hub.fetched)
    shutil.rmtree(home)
    return done, fetched


def steps(answer: Run) -> str:
    """Returns a sentence with the seconds of every step."""
    starts = [0.0, *(answer.line(word).seconds for word in STEPS if word), answer.seconds]
    ends = zip(STEPS.values(), starts, starts[1:], strict=False)
    return ", ".join(f"{step} {end - start:.1f} s" for step, start, end in ends)


if __name__ == "__main__":
    main(sys.argv[1:])
