"""Times a token of transformers.js in Node and of this package, on the same folder.

    npm --prefix tests/node ci --ignore-scripts
    python -m benchmarks.transformers_js

The folder has the layout of transformers.js. transformers.js answers by greedy search, its only
search; this package by greedy search and with 3 beams. The sides take turns. The time of a token is
the median of the times between tokens in an answer of 60 tokens.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.harness.checkpoint import MODELS, random_checkpoint
from benchmarks.harness.common import BEAMS, BenchmarkError, make_parser, make_picture, publish
from benchmarks.harness.measuring import alternate, summarise
from benchmarks.harness.node import add_packages, transformers_js, version_note
from florence_onnx import Florence2
from florence_onnx.cli.program import main as run_command
from florence_onnx.profiling import time_stages

TOKENS = 60


def main(argv: Sequence[str]) -> None:
    """Measures and publishes."""
    parser = make_parser(__doc__, repeats=5, precisions=False)
    parser.add_argument(
        "--exported", type=Path, help="export in the layout of transformers.js (default: made once)"
    )
    add_packages(parser)
    arguments = parser.parse_args(argv)
    folder = arguments.exported or exported(arguments.model, arguments.work)
    model = Florence2.load(folder, providers=[arguments.provider], threads=arguments.threads)
    picture = make_picture()

    def ours(beams: int) -> Callable[[], float]:
        return lambda: time_stages(
            model, picture, tokens=TOKENS, repeats=1, warmup=0, num_beams=beams
        )["per_token"]

    pixels = model.assets.preprocessor(picture)[None]
    with transformers_js(arguments.packages, folder, "fp32", pixels, arguments.threads) as answer:
        sides = {
            "transformers.js greedy": lambda: answer(TOKENS)["token"],
            "ours greedy": ours(1),
            f"ours {BEAMS} beams": ours(BEAMS),
        }
        rounds = alternate(sides, arguments.repeats)
    content = {
        "settings": {"tokens": TOKENS, "beams": BEAMS, "picture": list(picture.shape)},
        **summarise({"token": rounds}),
        "notes": [version_note(arguments.packages)],
    }
    publish("transformers_js", arguments, argv, content, arguments.provider)


def exported(model: str, work: Path) -> Path:
    """Exports a random checkpoint in the layout of transformers.js, once.

    Raises:
        BenchmarkError: ``model`` is no name of `MODELS`, or cannot be exported.
    """
    if model not in MODELS:
        raise BenchmarkError(f"--model is {model!r} here, and must be one of {', '.join(MODELS)}")
    home = random_checkpoint(model, work)
    folder = home / "transformers.js"
    command = ["export", str(home / "checkpoint"), str(folder), "--layout", "transformers.js"]
    if not folder.is_dir() and run_command(command) != 0:
        raise BenchmarkError("the checkpoint could not be exported")
    return folder


if __name__ == "__main__":
    main(sys.argv[1:])
