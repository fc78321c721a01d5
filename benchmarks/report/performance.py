"""Page docs/performance.md: speed, memory, accuracy and size, for users."""

from collections.abc import Mapping

from benchmarks.report.records import Record, machine, ratios_table, values_table

_HEAD = """# Performance

Made by `python -m benchmarks.report` from the files in `benchmarks/results`; do not edit.

Each table is one run of one script, all sides in turn, on the CPU. Times and memory are of the base
geometry (0.23B parameters) with random weights, because the speed does not depend on the weights.
A cell is the median of the rounds, with the smallest and the largest in brackets. A ratio below 1
says that we are faster or smaller.

"ours" is this package. "transformers" is its Florence-2 on PyTorch, "torch.compile" the same,
compiled, and "openvino" OpenVINO on graphs that are traced from transformers, with our search.
`benchmarks/README.md` has every result, the methods, and what was tried.
"""

_SECTIONS = {
    "compare-cpu": (
        "Requests",
        "From a decoded picture of 1280x960 to the parsed answer, 3 beams, the model open.",
    ),
    "cold_start-cpu": (
        "Cold start and memory",
        "A new process imports the package, opens the model from disk, and writes a caption of 20 "
        "tokens.",
    ),
    "streaming-cpu": (
        "A long run",
        "The demo model answers 2,000 small pictures through `stream`. The memory of the process "
        "does not grow with the pictures.",
    ),
    "annotating-cpu": (
        "Folders",
        "`annotate` on JPEG files of 1280x960, a caption of 20 tokens and an OD of 200 each, in "
        "batches of 8: all of it, and the vision encoder and decoder alone on pictures that are in "
        "memory, resized.",
    ),
    "serving-cpu": (
        "Service",
        "`serve` and a plain service around transformers, asked for an OD of 50 tokens by clients "
        "that ask again after each answer.",
    ),
    "batching-cpu": (
        "Batches and shared pictures",
        "`run` with a batch of 8 pictures, and `encode` for 5 tasks on one picture.",
    ),
    "accuracy-cpu": (
        "Precision and accuracy",
        "The demo model on held-out drawn scenes, 3 beams.",
    ),
    "filling-cpu": (
        "From a checkpoint to a model",
        "`florence-onnx export` of a float32 checkpoint, base or large, and the first answer of a "
        "machine with an empty cache, whose hub is this machine. The peak memory counts the pages "
        "of mapped files, which the system can drop at any time; the private memory does not.",
    ),
    "quantising-cpu": (
        "Making 8-bit graphs",
        "`florence-onnx quantize MODEL --precision q8`, as usual and with `--fast`: from process "
        "start to end, step by step. Errors of both are measured on the same 105 requests about "
        "drawn pictures that no weights are rounded for.",
    ),
    "size-cpu": (
        "Installed size",
        "All files that pip installs for `florence-onnx[cpu]`, the demo model included.",
    ),
}
"""File of results -> title of the section, and a sentence about the measurement."""


_BESIDE = {
    "filling-cpu": "filling-large-cpu",
    "quantising-cpu": "quantising-large-cpu",
    "serving-cpu": "serving-32-cpu",
}
"""File of results -> another file, whose sides and cases are in the same table."""

_FOLDED = ("serving-cpu",)
"""Files of results whose tables are folded."""

_LEFT_OUT = "greedy"
"""Word of sides and notes that are on the other page only."""


def performance(records: Mapping[str, Record]) -> str:
    """Makes the content of docs/performance.md. Missing results are left out."""
    told = [name for name in _SECTIONS if name in records]
    sections = [
        _section(*_SECTIONS[name], _joined(name, records), name in _FOLDED) for name in told
    ]
    told += [name for name in _BESIDE.values() if name in records]
    if "accuracy-transformers-cpu" in records:
        told.append("accuracy-transformers-cpu")
        sections.append(_transformers(records["accuracy-transformers-cpu"]))
    places = [f"- {machine(records[name])}" for name in told]
    return "\n".join([_HEAD, *sections, _folded("Machines and commands", "\n".join(places) + "\n")])


def _joined(name: str, records: Mapping[str, Record]) -> Record:
    """Joins a record with the sides, ratios and notes of another record."""
    record, other = records[name], records.get(_BESIDE.get(name, ""))
    if other is None:
        return record
    values = {
        case: {**record["values"].get(case, {}), **other["values"].get(case, {})}
        for case in {**record["values"], **other["values"]}
    }
    notes = dict.fromkeys((*record.get("notes", ()), *other.get("notes", ())))
    ratios = {**record["ratios"], **other["ratios"]}
    return {**record, "values": values, "ratios": ratios, "notes": notes}


def _section(title: str, measured: str, record: Record, is_folded: bool) -> str:
    table = values_table(record, _LEFT_OUT)
    parts = [f"## {title}\n", f"{measured}\n", _folded("Times", table) if is_folded else table]
    if notes := [note for note in record.get("notes", ()) if _LEFT_OUT not in note]:
        parts.append(" ".join(notes) + "\n")
    if record["ratios"]:
        parts.append(_folded("Ratios", ratios_table(record)))
    return "\n".join(parts)


def _transformers(record: Record) -> str:
    """Returns sentences without a table, because all measures are equal as shown."""
    return "\n".join(["## Answers beside transformers\n", *(f"{n}\n" for n in record["notes"])])


def _folded(summary: str, content: str) -> str:
    return f'<details markdown="1"><summary>{summary}</summary>\n\n{content}\n</details>\n'
