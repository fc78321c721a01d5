"""Times a token of transformers.js in Node and of this package, on the same folder.

    npm --prefix tests/node ci --ignore-scripts
    python -m benchmarks.transformers_js

The folder has the layout of transformers.js. transformers.js answers by greedy search, its only
search; this package by greedy search and with 3 beams. The sides take turns. The time of a token is
the median of the times between tokens in an answer of 60 tokens.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from benchmarks.harness.checkpoint import random_checkpoint
from benchmarks.harness.common import (
    BEAMS,
    ROOT,
    BenchmarkError,
    make_parser,
    make_picture,
    publish,
)
from benchmarks.harness.measuring import alternate, summarise
from florence_onnx import Florence2
from florence_onnx.cli.program import main as run_command
from florence_onnx.profiling import time_stages

TOKENS = 60
SCRIPT = Path(__file__).parent / "peers" / "transformers_js.mjs"


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=5, precisions=False)
    parser.add_argument(
        "--exported", type=Path, help="export in the layout of transformers.js (default: made once)"
    )
    parser.add_argument(
        "--packages",
        type=Path,
        default=ROOT / "tests" / "node",
        help="folder with node_modules (default: tests/node)",
    )
    arguments = parser.parse_args(argv)
    folder = arguments.exported or _exported(arguments.model, arguments.work)
    model = Florence2.load(folder, providers=[arguments.provider], threads=arguments.threads)
    picture = make_picture()

    def ours(beams: int) -> Callable[[], float]:
        return lambda: time_stages(
            model, picture, tokens=TOKENS, repeats=1, warmup=0, num_beams=beams
        )["per_token"]

    with tempfile.TemporaryDirectory() as place, _node(arguments, folder, model, place) as node:
        sides = {
            "transformers.js greedy": node,
            "ours greedy": ours(1),
            f"ours {BEAMS} beams": ours(BEAMS),
        }
        rounds = alternate(sides, arguments.repeats)
    content = {
        "settings": {"tokens": TOKENS, "beams": BEAMS, "picture": list(picture.shape)},
        **summarise({"token": rounds}),
        "notes": [f"Node {_output('node', '--version')}, transformers.js {_version(arguments)}"],
    }
    publish("transformers_js", arguments, argv, content, arguments.provider)


def _exported(model: str, work: Path) -> Path:
    home = random_checkpoint(model, work)
    folder = home / "transformers.js"
    command = ["export", str(home / "checkpoint"), str(folder), "--layout", "transformers.js"]
    if not folder.is_dir() and run_command(command) != 0:
        raise BenchmarkError("the checkpoint could not be exported")
    return folder


@contextmanager
def _node(
    arguments: argparse.Namespace, folder: Path, model: Florence2, place: str
) -> Iterator[Callable[[], float]]:
    """Runs transformers.js until the block ends; yields a function that times a token."""
    values = model.assets.preprocessor(make_picture())[None]
    pixels = Path(place) / "pixels"
    pixels.write_bytes(values.tobytes())
    shape = json.dumps(values.shape)
    sizes = [shape, str(arguments.threads), str(TOKENS)]
    command = ["node", str(SCRIPT), str(arguments.packages), str(folder), str(pixels), *sizes]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        stdin, stdout = cast(IO[str], process.stdin), cast(IO[str], process.stdout)

        def token() -> float:
            stdin.write("\n")
            stdin.flush()
            line = stdout.readline()
            if not line:
                raise BenchmarkError("transformers.js ended; see above")
            return float(line) / 1000

        try:
            yield token
        finally:
            stdin.close()


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _version(arguments: argparse.Namespace) -> str:
    package = arguments.packages / "node_modules" / "@huggingface" / "transformers" / "package.json"
    return str(json.loads(package.read_text(encoding="utf-8"))["version"])


if __name__ == "__main__":
    main(sys.argv[1:])
