"""Writes benchmarks/README.md, and tables in other pages, from benchmarks/results.

    python -m benchmarks.report

Tables go between the two marker lines of the top README and of the demo model's card.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from benchmarks.harness.common import RESULTS, ROOT
from benchmarks.report.tables import amount, ratio, spread, table
from benchmarks.report.targets import ACCURACY, TARGETS, Target
from florence_onnx.files import write_whole

README = ROOT / "benchmarks" / "README.md"
FRONT = ROOT / "README.md"
CARD = ROOT / "florence_onnx" / "demo" / "README.md"
PROFILES = ROOT / "benchmarks" / "profiles.md"
"""Written by hand: why targets are missed."""
START, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"

_OPENVINO = "onnxruntime-openvino"

Record = Mapping[str, Any]
"""What a script has published."""

ORDER = {
    "compare": "Whole requests",
    "stages": "Stages of a request",
    "batching": "Batches and shared pictures",
    "scaling": "Scaling",
    "cold_start": "Cold start",
    "memory": "Peak memory",
    "size": "Installed size",
    "preprocess": "Preprocessing a large picture",
    "profile": "Profile of the encoders",
    "choices": "Ways to quantise",
    "accuracy": "Accuracy of the demo model",
    "scores": "Scores and constraints",
}
"""Script -> title of its section."""

FRONT_FILES = {
    "compare-cpu": "",
    "cold_start-cpu": "process start to a caption",
    "memory-cpu": "its peak memory",
}
"""Results in the top README -> the heading of their column, where it is not their case."""

INTRODUCTION = """# Benchmarks

Made by `python -m benchmarks.report` from the files in `results/`; do not edit.

Scripts that time make a checkpoint with random weights in the released base geometry, export it as
`florence-onnx export` does, within its bounds, and time all sides of a table in one run, in turn
(A B C A B C), after a round that is not counted. Accuracy is measured on the demo model.

A ratio is ours over theirs, taken round by round; below 1 we are faster or smaller. Tables hold
the median of the rounds with the smallest and the largest value. Answers are forced to their
length on every side, and our fp32 and transformers' fp32 must generate the same tokens or there is
no result.

Not timed: reading and decoding image files, downloads, exporting, tracing, compiling, and, except
in the cold start, importing and opening the model. Every side uses the same number of threads.

Run from the repository, with the `export` extra installed (and `openvino`, if it is to be
compared):

```
python -m benchmarks.compare   # or another script; --help says what each takes
python -m benchmarks.report
```

`compare`, `stages`, `batching`, `scaling`, `cold_start`, `memory`, `size`, `preprocess`, `profile`
(operators of the encoders), `choices` (ways to quantise), `accuracy` (of the demo model),
`scores` (what ranks its detections, how far they are probabilities, and constraints). The
OpenVINO provider's columns come from an environment with the `openvino` extra instead of `cpu`:

```
python -m benchmarks.stages --out benchmarks/results/stages-openvino.json
```

`--provider CUDAExecutionProvider` makes the same tables on a GPU.

Ways to quantise: `dynamic8` has one scale for all activations of a call and one per column of
weights (DynamicQuantizeMatMul); `smooth8` is the same after the largest channels have been made
smaller; `blocks8` and `blocks4` have one scale for every row and 32 values of both (MatMulNBits);
`stored8` keeps weights in 8 bits and computes in float32; `q8` and `q4` are the mixtures that these
precisions start from, before any precision is mixed.
"""


def main(argv: Sequence[str]) -> None:
    """Writes all pages."""
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    records = read_records()
    write_whole(README, render(records))
    for page, content in ((FRONT, fronttable(records)), (CARD, accuracy_table(records))):
        text = page.read_text(encoding="utf-8")
        write_whole(page, between_markers(text, content))


def read_records(folder: Path = RESULTS) -> dict[str, Record]:
    """The published records by file name, without its suffix."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json"))
    }


def render(records: Mapping[str, Record]) -> str:
    """The content of benchmarks/README.md."""
    parts = [INTRODUCTION, "## Targets\n\n" + _targets(records)]
    for script, title in ORDER.items():
        for record in records.values():
            if record["benchmark"] == script:
                parts.append(f"## {title}{_distinction(record)}\n\n{_section(record)}")
    if PROFILES.exists():
        parts.append(PROFILES.read_text(encoding="utf-8"))
    return "\n".join(parts)


def between_markers(page: str, content: str) -> str:
    """A page with new content between its markers."""
    before, rest = page.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{content}{END}{after}"


def accuracy_table(records: Mapping[str, Record]) -> str:
    """What the demo model reaches, beside what it was to reach."""
    record = records["accuracy-cpu"]
    sides = list(next(iter(record["values"].values())))
    rows = []
    for title, values in record["values"].items():
        shown = [f"{values[side]['median']:.1f}" for side in sides]
        rows.append([title, ACCURACY.get(title, ""), *shown])
    return table(["%", "target", *sides], rows) + f"\n`{record['environment']['command']}`\n"


def fronttable(records: Mapping[str, Record]) -> str:
    """Whole requests, cold start and memory on a CPU, one line per side."""
    columns: dict[str, dict[str, str]] = {}
    for name, title in FRONT_FILES.items():
        for case, sides in records.get(name, {"values": {}})["values"].items():
            columns[title or case] = {
                side: amount(value["median"], records[name]["unit"])
                for side, value in sides.items()
            }
    if not columns:
        return "Not measured yet.\n"
    rows = dict.fromkeys(side for sides in columns.values() for side in sides)
    front = table(
        ["", *columns],
        ([side, *(sides.get(side, "") for sides in columns.values())] for side in rows),
    )
    place = next(records[name] for name in FRONT_FILES if name in records)["environment"]
    return (
        f"{front}\nMedians on {place['threads']} cores of {place['cpu']}; 3 beams, base geometry. "
        "All tables, versions and commands: [benchmarks](benchmarks/README.md).\n"
    )


def _targets(records: Mapping[str, Record]) -> str:
    rows = ([t.what, t.against, f"{t.limit:.2f}", *_outcome(t, records)] for t in TARGETS)
    return table(["", "against", "target", "measured", ""], rows)


def _outcome(target: Target, records: Mapping[str, Record]) -> list[str]:
    ratios: dict[str, Any] = {}
    for record in records.values():
        if record["benchmark"] == target.benchmark and record["environment"]["gpu"] is None:
            ratios = {**record["ratios"], **ratios}
    found = {name: value for name, value in ratios.items() if fnmatchcase(name, target.ratio)}
    if not found:
        return ["not measured", ""]
    best = min(found, key=lambda name: found[name]["median"])
    measured = ratio(found[best])
    if "*" in target.ratio:
        measured += f", {_precision(best)}"
    return [measured, "met" if found[best]["median"] <= target.limit else "**missed**"]


def _precision(ratio: str) -> str:
    return ratio.partition("ours ")[2].partition(" ")[0]


def _section(record: Record) -> str:
    unit = record["unit"]
    parts = []
    sides = list(dict.fromkeys(side for case in record["values"].values() for side in case))
    rows = (
        [case, *(_cell(values[side], unit) if side in values else "" for side in sides)]
        for case, values in record["values"].items()
    )
    parts.append(table(["", *sides], rows))
    if record["ratios"]:
        ratios = ([name, ratio(value)] for name, value in record["ratios"].items())
        parts.append(table(["ratio", "median (range)"], ratios))
    for case, shares in record.get("equal_tokens", {}).items():
        listed = ", ".join(f"{side} {share:.0%}" for side, share in shares.items())
        parts.append(
            f"Tokens equal to transformers fp32 up to the first other, {case}: {listed}.\n"
        )
    parts += [f"{note}\n" for note in record.get("notes", ())]
    parts.append(f"{_machine(record)}\n")
    return "\n".join(parts)


def _cell(value: Mapping[str, Any], unit: str) -> str:
    return spread(value, value.get("unit", unit))


def _machine(record: Record) -> str:
    place = record["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in place["packages"].items())
    flags = " ".join(place["cpu_flags"])
    where = f"{place['gpu']}, " if place["gpu"] else ""
    rounds = f"; median of {record['repeats']}" if record["repeats"] > 1 else ""
    return (
        f"Measured {place['date']} on {where}{place['cpu']} ({flags}), {place['threads']} of "
        f"{place['cores']} cores, {place['memory_gb']} GB, {place['platform']}, Python "
        f"{place['python']}, {packages}{rounds}.\n`{place['command']}`"
    )


def _distinction(record: Record) -> str:
    """What tells a section from another of the same script."""
    if record["benchmark"] == "accuracy":
        first = next(iter(next(iter(record["values"].values()))))
        return f", {record['scenes']} scenes, beside {first}"
    if record["benchmark"] == "choices":
        return f", {record['model']}"
    provider = record["environment"]["provider"].removesuffix("ExecutionProvider")
    if provider != "CPU":
        return f" on {provider}"
    return " with onnxruntime-openvino" if _OPENVINO in record["environment"]["packages"] else ""


if __name__ == "__main__":
    main(sys.argv[1:])
