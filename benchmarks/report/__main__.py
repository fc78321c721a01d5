"""Writes pages of results, and tables in other pages, from benchmarks/results.

    python -m benchmarks.report

docs/performance.md is for users, benchmarks/README.md for those who work on the package. Tables go
between the two marker lines of the top README and of the demo model's card.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness.common import ROOT
from benchmarks.report.engineering import render
from benchmarks.report.front import accuracy_table, between_markers, fronttable
from benchmarks.report.machines import machines
from benchmarks.report.performance import performance
from benchmarks.report.records import Record, read_records
from florence_onnx.files import write_whole

README = ROOT / "README.md"
CARD = ROOT / "florence_onnx" / "demo" / "README.md"


def main(argv: Sequence[str]) -> None:
    """Writes all pages."""
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    for path, content in pages(read_records()).items():
        write_whole(path, content)


def pages(records: Mapping[str, Record]) -> dict[Path, str]:
    """Page -> content of the page."""
    return {
        ROOT / "benchmarks" / "README.md": render(records),
        ROOT / "docs" / "performance.md": f"{performance(records)}\n{machines()}",
        README: between_markers(README.read_text(encoding="utf-8"), fronttable(records)),
        CARD: between_markers(CARD.read_text(encoding="utf-8"), accuracy_table(records)),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
