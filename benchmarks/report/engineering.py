"""Page benchmarks/README.md: targets, all results in full, and the diary of trials."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from benchmarks.report.records import Record, machine, ratios_table, values_table
from benchmarks.report.tables import ratio, table
from benchmarks.report.targets import TARGETS, Target

DIARY = Path(__file__).with_name("diary.md")
"""Diary, written by hand: trials, and reasons for missed targets."""

_OPENVINO = "onnxruntime-openvino"

ORDER = {
    "compare": "Whole requests",
    "stages": "Stages of a request",
    "batching": "Batches and shared pictures",
    "scaling": "Scaling",
    "gpu": "A GPU",
    "cold_start": "Cold start and memory",
    "streaming": "Memory of a long stream",
    "transformers_js": "A token beside transformers.js",
    "captions": "An answer beside transformers.js, 8 bits",
    "annotating": "Folders of pictures",
    "annotating_memory": "Memory of an annotation",
    "actors": "Actors of Ray",
    "serving": "Service with several clients",
    "serving_memory": "Memory of the service",
    "size": "Installed size",
    "filling": "From a checkpoint to a model",
    "preprocess": "Preprocessing a large picture",
    "profile": "Profile of the encoders",
    "choices": "Ways to quantise",
    "quantising": "Quantising",
    "accuracy": "Accuracy of the demo model",
    "scores": "Scores and constraints",
    "lists": "Ends of lists",
    "constraints": "Cost of constraints",
    "tiles": "Large pictures in tiles",
}
"""Script -> title of the section. A line here gives a new script a section."""

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

[docs/performance.md](../docs/performance.md) is the page for users. To compare two versions of the
code, run a script in both trees in turn, each with `PYTHONPATH=TREE:TREE/export` and an `--out` of
its own.

Run from the repository, with the `export` extra installed (and `openvino`, if it is to be
compared):

```
python -m benchmarks.compare   # or another script; --help says what each takes
python -m benchmarks.report
```

Every script beside this page makes one table and one file in `results/`: `compare`, `stages`,
`batching`, `scaling`, `cold_start`, `streaming`, `annotating` (a folder), `annotating_memory`,
`actors` (of Ray), `size`, `filling` (exports without torch and with it), `preprocess`, `profile`
(operators of the encoders), `choices` (ways to quantise), `quantising` (its time and memory),
`accuracy` (of the demo model), `scores` (what ranks detections, how far scores are probabilities,
and constraints), `tiles` (what is found on large pictures, as a whole and in tiles),
`transformers_js` (a token in Node, on one folder), `captions` (answers in Node, 8 bits), `serving`
(of the service), `serving_memory`, `constraints` (what a step costs), `lists` (ends of lists).
`gpu` checks and times a GPU, see [GPU.md](GPU.md).
What the scripts share is in `harness/`, the sides that are compared are in `peers/`, and `report/`
writes the pages. A new table is a new script and a line in `ORDER` of `report/engineering.py`. The
OpenVINO provider's columns come from an environment with the `openvino` extra instead of `cpu`:

```
python -m benchmarks.stages --out benchmarks/results/stages-openvino.json
```

[GPU.md](GPU.md) tells of `python -m benchmarks.gpu`, which checks and times a GPU in one call.
`--provider CUDAExecutionProvider` makes the tables of the other scripts there.

Ways to quantise: `dynamic8` has one scale for all activations of a call and one per column of
weights (DynamicQuantizeMatMul). `smooth8` is the same after the largest channels have been made
smaller (SmoothQuant). `blocks8` and `blocks4` have one scale for every row and 32 values of both
(MatMulNBits). `stored8` keeps weights in 8 bits, `stored16` in 16, and both compute in float32.
`channels8` is `stored8` with the two matmuls over all tokens of a channel attention in 8 bits. `q8`
and `q4` are the mixtures that these precisions start from, before any matmul is given more bits for
its error.
"""


def render(records: Mapping[str, Record]) -> str:
    """Makes the content of benchmarks/README.md."""
    parts = [INTRODUCTION, "## Targets\n\n" + _targets(records)]
    for script, title in ORDER.items():
        for record in records.values():
            if record["benchmark"] == script:
                parts.append(f"## {title}{_distinction(record)}\n\n{_section(record)}")
    parts.append(DIARY.read_text(encoding="utf-8"))
    return "\n".join(parts)


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
    parts = [values_table(record)]
    if record["ratios"]:
        parts.append(ratios_table(record))
    for case, shares in record.get("equal_tokens", {}).items():
        if not shares:  # Transformers was no side.
            continue
        listed = ", ".join(f"{side} {share:.0%}" for side, share in shares.items())
        parts.append(
            f"{case}, share of an answer before the first token that is not that of transformers "
            f"fp32: {listed}.\n"
        )
    parts += [f"{note}\n" for note in record.get("notes", ())]
    parts.append(f"{machine(record)}\n")
    return "\n".join(parts)


def _distinction(record: Record) -> str:
    """Key that differs between the sections of one script."""
    if record["benchmark"] == "accuracy":
        first = next(iter(next(iter(record["values"].values()))))
        return f", {record['scenes']} scenes, beside {first}"
    if record["benchmark"] in ("choices", "filling", "quantising", "serving_memory"):
        return f", {record['model']}"
    if record["benchmark"] == "serving":
        return f", {next(reversed(record['values'])).partition(',')[0]}"
    sides = {side for values in record["values"].values() for side in values}
    if any(side.startswith("openvino int8") for side in sides):
        return " beside OpenVINO int8"
    if "engine within" in sides:
        return ", the engine timed inside the annotation"
    provider = record["environment"]["provider"].removesuffix("ExecutionProvider")
    if provider != "CPU":
        return f" on {provider}"
    return " with onnxruntime-openvino" if _OPENVINO in record["environment"]["packages"] else ""
