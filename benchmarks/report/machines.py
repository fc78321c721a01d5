"""Section about machines other than ours, whose rows users add."""

import json
from pathlib import Path
from typing import Any

from benchmarks.harness.common import RESULTS
from florence_onnx.machine_rows import table

MACHINES = RESULTS / "machines"
"""Files that `florence-onnx bench --report` wrote."""

_TEXT = """## Machines

Each row is one run of `florence-onnx bench MODEL --report FOLDER`: a picture of 1280x960, `<OD>` of
32 tokens, 3 beams, medians, and the peak memory of the process. Add
yours (`.github/CONTRIBUTING.md`).

{rows}
x86 without VNNI, such as AVX2 alone: `precision="auto"` opens fp32. The fast 8-bit instructions of
these processors add in 16 bits, where sums can be too large, and answers become wrong. So a q8 that
is asked for by name uses slower and exact instructions, with ONNX Runtime 1.30 or later
(`session.x64quantprecision`). The slower instructions have not been measured. Windows names no
features, so every processor counts as one without VNNI there.

Arm: `"auto"` opens q8 where there are 8-bit dot products (`asimddp`, and every Mac with Arm), and
fp32 elsewhere. `fast_math=True` (`--fast-math`) computes float32 matmuls in bfloat16, on Linux and
processors with `bf16`. It is off by default and refused elsewhere. We have no such machine, so
neither its speed nor its error is measured.
"""


def machines(folder: Path = MACHINES) -> str:
    """Writes the section; the table has a row for each file."""
    return _TEXT.format(rows=table(read_machines(folder)))


def read_machines(folder: Path = MACHINES) -> list[dict[str, Any]]:
    """Reads the published rows."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
