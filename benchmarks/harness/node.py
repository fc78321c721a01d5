"""transformers.js in Node, as a side of a benchmark."""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from benchmarks.harness.common import ROOT, BenchmarkError

SCRIPT = ROOT / "benchmarks" / "peers" / "transformers_js.mjs"

Answer = Callable[[int], dict[str, float]]
"""Function that answers with a number of tokens, and returns the seconds of the whole ``answer``
and from one ``token`` to the next."""


def add_packages(parser: argparse.ArgumentParser) -> None:
    """Adds the option that names the folder of transformers.js."""
    parser.add_argument(
        "--packages",
        type=Path,
        default=ROOT / "tests" / "node",
        help="folder with node_modules (default: tests/node)",
    )


@contextmanager
def transformers_js(
    packages: Path,
    folder: Path,
    dtype: str,
    pixel_values: npt.NDArray[np.float32],
    threads: int,
) -> Iterator[Answer]:
    """Opens a model in transformers.js until the block ends.

    Args:
        packages: Folder with node_modules.
        folder: Model folder in the layout of transformers.js.
        dtype: Precision, by transformers.js's name.
        pixel_values: The picture, float32 [1,3,H,W].
        threads: Threads inside an operator.

    Raises:
        BenchmarkError: transformers.js ended.
    """
    with tempfile.TemporaryDirectory() as place:
        pixels = Path(place) / "pixels"
        pixels.write_bytes(pixel_values.tobytes())
        command = ["node", str(SCRIPT), str(packages), str(folder), dtype, str(pixels)]
        command += [json.dumps(pixel_values.shape), str(threads)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            stdin, stdout = cast(IO[str], process.stdin), cast(IO[str], process.stdout)

            def answer(tokens: int) -> dict[str, float]:
                stdin.write(f"{tokens}\n")
                stdin.flush()
                line = stdout.readline()
                if not line:
                    raise BenchmarkError("transformers.js ended; see above")
                return {name: value / 1000 for name, value in json.loads(line).items()}

            try:
                yield answer
            finally:
                stdin.close()


def version_note(packages: Path) -> str:
    """Names the versions of Node and transformers.js."""
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    package = packages / "node_modules" / "@huggingface" / "transformers" / "package.json"
    version = json.loads(package.read_text(encoding="utf-8"))["version"]
    return f"Node {node.stdout.strip()}, transformers.js {version}"
