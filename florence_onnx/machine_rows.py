"""Rows of the table that compares machines, as ``bench --report`` measures them.

The table is in docs/performance.md. All rows time the same request, so rows can be compared.
"""

import datetime
import errno
import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from florence_onnx.engine.providers import CPU, runtime_version
from florence_onnx.errors import InputError, OutputExistsError
from florence_onnx.files import write_whole
from florence_onnx.machine import describe_machine, peak_bytes
from florence_onnx.model import Florence2
from florence_onnx.profiling import STAGES

TOKENS, BEAMS = 32, 3
"""Request of every row: length of the answer, and beams."""

_MODELS = {(768, 6, 768, 768): "base", (1024, 12, 768, 768): "large"}
"""Width, layers of the decoder, height and width of pictures -> the name of the released model."""

_LONGEST_NAME = 100
"""Characters of a file's name without its ending. Most file systems take 255 bytes."""

_HEAD = (
    *("machine", "cores", "memory", "model", "precision", "ONNX Runtime"),
    *(stage.replace("_", " ") for stage in STAGES),
    *("whole request", "peak memory", "measured"),
)


def describe_run(
    model: Florence2, fast_math: bool, threads: int | None, name: str | None
) -> dict[str, Any]:
    """Describes the machine and the model of a row, for JSON.

    Args:
        model: The model that is to be timed.
        fast_math: Whether the model was opened with this option.
        threads: The threads it was opened with; None for as many as suit the machine.
        name: Name of the machine; None for the processor's.
    """
    machine = describe_machine()
    geometry, (height, width) = model.graphs.geometry, model.assets.preprocessor.size
    shape = (geometry["hidden_size"], geometry["decoder_layers"], height, width)
    return {
        "benchmark": "bench",
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "machine": name or machine["cpu"],
        **machine,
        "onnxruntime": runtime_version(),
        "threads": threads,
        "model": _MODELS.get(shape, "other, width {}, {} layers, {}x{}".format(*shape)),
        "precision": model.precision,
        "fast_math": fast_math,
        "providers": sorted({first for first, *_ in model.providers.values()}),
        "tokens": TOKENS,
        "beams": BEAMS,
    }


def place_for(given: Path, run: Mapping[str, Any]) -> Path:
    """Chooses the JSON file of a row and makes the folder of that file.

    Args:
        given: A file whose name ends in ``.json``, or a folder.
        run: What `describe_run` returned, which names the file in a folder.

    Raises:
        InputError: There is a file of another kind.
        OutputExistsError: There is such a file, or such a row.
        OSError: The folder cannot be made, or nothing can be written there.
    """
    words = " ".join(run[key] for key in ("machine", "model", "precision"))
    name = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:_LONGEST_NAME]
    is_file = given.suffix == ".json" and not given.is_dir()
    path = given if is_file else given / f"{name}.json"
    if not is_file and (given.is_file() or given.suffix == ".md"):
        raise InputError(f"{given} is no folder and no name of a JSON file, such as mine.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    for file in (path, path.with_suffix(".md")):
        with suppress(FileNotFoundError):
            file.lstat()
            raise OutputExistsError(f"{file} exists already; remove it or name another file")
    if not os.access(path.parent, os.W_OK):  # Told before minutes of timing.
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path.parent))
    return path


def write_row(
    path: Path, run: Mapping[str, Any], seconds: Mapping[str, float], repeats: int
) -> None:
    """Writes what was measured as JSON, and as a table of one row beside it.

    Args:
        path: The JSON file.
        run: What `describe_run` returned.
        seconds: What `profiling.time_stages` returned for `TOKENS` tokens and `BEAMS` beams.
        repeats: Counted requests.
    """
    peak = peak_bytes()
    measured = {
        "repeats": repeats,
        "seconds": dict(seconds),
        "peak_mb": None if peak is None else round(peak / 1e6),
    }
    record = {**run, **measured}
    write_whole(path, json.dumps(record, indent=1) + "\n")
    write_whole(path.with_suffix(".md"), table([record]))


def table(records: Iterable[Mapping[str, Any]]) -> str:
    """Writes the table in Markdown, a row per record, equal models and precisions together."""
    rows = sorted(
        records,
        key=lambda one: (one["model"], one["precision"], one["seconds"]["total"], one["machine"]),
    )
    lines = [_HEAD, ("---",) * len(_HEAD), *map(_cells, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(one: Mapping[str, Any]) -> list[str]:
    others = [name.removesuffix("ExecutionProvider") for name in one["providers"] if name != CPU]
    precision = one["precision"] + (", fast_math" if one["fast_math"] else "")
    return [
        _words(one["machine"]),
        str(one["cores"]) if one["threads"] is None else f"{one['threads']} of {one['cores']}",
        "" if one["memory_gb"] is None else f"{one['memory_gb']:.0f} GB",
        one["model"],
        precision + (f" on {'+'.join(others)}" if others else ""),
        one["onnxruntime"],
        *(_time(one["seconds"][stage]) for stage in (*STAGES, "total")),
        "" if one["peak_mb"] is None else f"{one['peak_mb']} MB",
        one["date"],
    ]


def _time(seconds: float) -> str:
    value, unit = (1000 * seconds, "ms") if seconds < 1 else (seconds, "s")
    return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"


def _words(name: str) -> str:
    """Writes a name on one line, without a sign that ends a cell or begins a tag."""
    return " ".join(name.split()).replace("|", "/").replace("<", "(").replace(">", ")")
