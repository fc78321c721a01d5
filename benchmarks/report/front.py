"""Tables that stand between two marker lines of other pages."""

from collections.abc import Mapping

from benchmarks.report.records import Record
from benchmarks.report.tables import amount, table
from benchmarks.report.targets import ACCURACY

START, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"

FRONT_FILES = ("compare-cpu", "cold_start-cpu")
"""Results in the top README. Each case of the results is a column."""


def between_markers(page: str, content: str) -> str:
    """Replaces the content between the markers of a page."""
    before, rest = page.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{content}{END}{after}"


def accuracy_table(records: Mapping[str, Record]) -> str:
    """Makes a table of the demo model's accuracy beside the targets."""
    record = records["accuracy-cpu"]
    sides = list(next(iter(record["values"].values())))
    rows = []
    for title, values in record["values"].items():
        shown = [f"{values[side]['median']:.1f}" for side in sides]
        rows.append([title, ACCURACY.get(title, ""), *shown])
    return table(["%", "target", *sides], rows) + f"\n`{record['environment']['command']}`\n"


def fronttable(records: Mapping[str, Record]) -> str:
    """Makes a table of requests, cold start and memory on a CPU, a line per side."""
    columns: dict[str, dict[str, str]] = {}
    for name in FRONT_FILES:
        for case, sides in records.get(name, {"values": {}})["values"].items():
            columns[case] = {
                side: amount(value["median"], value.get("unit", records[name]["unit"]))
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
        "All tables, versions and commands: [performance](docs/performance.md).\n"
    )
