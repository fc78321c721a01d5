"""Records of the scripts, and the parts that several pages have."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.common import RESULTS
from benchmarks.report.tables import ratio, spread, table

Record = Mapping[str, Any]
"""Record of a script."""


def read_records(folder: Path = RESULTS) -> dict[str, Record]:
    """Reads the published records: file name without suffix -> record."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json"))
    }


def values_table(record: Record, left_out: str | None = None) -> str:
    """Makes a table of measurements: a line per case, a column per side.

    Args:
        record: The results.
        left_out: Word in the names of sides that get no column.
    """
    unit = record["unit"]
    named = dict.fromkeys(side for case in record["values"].values() for side in case)
    sides = [side for side in named if left_out is None or left_out not in side]

    def cell(value: Mapping[str, Any] | None) -> str:
        return "" if value is None else spread(value, value.get("unit", unit))

    rows = (
        [case, *(cell(values.get(side)) for side in sides)]
        for case, values in record["values"].items()
    )
    return table(["", *sides], rows)


def ratios_table(record: Record) -> str:
    """Makes a table of ratios, ours over theirs, a line per ratio."""
    rows = ([name, ratio(value)] for name, value in record["ratios"].items())
    return table(["ratio", "median (range)"], rows)


def machine(record: Record) -> str:
    """Conditions of a record: machine, versions, command."""
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
