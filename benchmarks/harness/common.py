"""Code that all benchmark scripts share: options, opened models, the files of results."""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness.environment import environment
from florence_onnx.machine import available_threads

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
DEMO = ROOT / "tests" / "fixtures" / "demo"
"""Checkpoint of the demo model."""
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
BEAMS = 3

Picture = npt.NDArray[np.uint8]
"""Decoded picture, uint8 [H,W,3]."""


class BenchmarkError(Exception):
    """Signals a run whose result must not be published."""


@dataclass(frozen=True)
class Setup:
    """Model in every form that the sides of a benchmark need, and where the sides run the model."""

    checkpoint: Path
    """Checkpoint, in transformers' format."""
    exported: Path
    """Export of the model, which `florence_onnx` runs."""
    home: Path
    """Folder for the files that a side makes of the checkpoint."""
    provider: str
    """ONNX Runtime's name of the provider, which also decides the device of PyTorch."""
    threads: int
    """Threads inside an operator, on every side."""

    @property
    def device(self) -> str:
        """PyTorch's name of the device of the provider."""
        return "cuda" if self.provider == CUDA else "cpu"

    @property
    def providers(self) -> list[str]:
        """Providers that ONNX Runtime is asked for."""
        return [self.provider] if self.provider == CPU else [self.provider, CPU]


def make_parser(description: str, repeats: int, precisions: bool = True) -> argparse.ArgumentParser:
    """Makes a parser with the options of all scripts.

    Args:
        description: Description of the script.
        repeats: Default of ``--repeats``.
        precisions: Whether the script takes a list of our precisions.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--model",
        default="base",
        help="base, large or tiny: random weights in a released geometry or in one for tests; "
        "or the folder of a checkpoint in transformers' format (default: base)",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=ROOT / "build" / "benchmarks",
        help="folder where the checkpoint and its export are made once (default: build/benchmarks)",
    )
    parser.add_argument("--provider", default=CPU, help=f"ONNX Runtime provider (default: {CPU})")
    parser.add_argument(
        "--threads", type=_positive, default=available_threads(), help="threads of every side"
    )
    parser.add_argument(
        "--repeats", type=_positive, default=repeats, help=f"counted rounds (default: {repeats})"
    )
    if precisions:
        parser.add_argument(
            "--precision", nargs="+", default=["fp32"], help="our precisions (default: fp32)"
        )
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--out", type=_result_file, help="JSON file (default: in benchmarks/results)"
    )
    output.add_argument("--json", action="store_true", help="print the JSON and write no file")
    return parser


def fidelity_notes(setup: Setup, precisions: Sequence[str]) -> list[str]:
    """Makes a line per precision but float32, with the errors and the mixed precision."""
    report = json.loads((setup.exported / "export_report.json").read_text(encoding="utf-8"))
    return [
        "ours {name} differs from float32 by {image_features:.2%} in the image features and by "
        "{first_logits:.2%} in the first logits. {token_agreement:.1%} of the tokens of {requests} "
        "greedy answers are equal. {mixed} matmuls have more bits than the others.".format(
            name=name,
            mixed=sum(len(methods) for methods in entry["mixed_precision"].values()),
            **entry["fidelity"],
        )
        for name, entry in report["precisions"].items()
        if name in precisions
    ]


def make_picture(width: int = 1280, height: int = 960, seed: int = 0) -> Picture:
    """Makes random pixels, because speed does not depend on the content of a picture."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def progress(message: str) -> None:
    """Prints a line about the progress on stderr."""
    print(message, file=sys.stderr, flush=True)


def publish(
    name: str,
    arguments: argparse.Namespace,
    argv: Sequence[str],
    content: Mapping[str, Any],
    provider: str = CPU,
) -> None:
    """Prints or writes the measurements of a script, with a description of the environment.

    Args:
        name: Name of the script.
        arguments: Parsed options of the script.
        argv: Options of the script, as given.
        content: Measurements.
        provider: Provider on which our side ran.
    """
    from florence_onnx.files import write_whole

    command = f"python -m benchmarks.{name} {shlex.join(argv)}".strip()
    record = {
        "benchmark": name,
        "environment": environment(command, provider, arguments.threads),
        "model": Path(arguments.model).name,
        "repeats": arguments.repeats,
        **content,
    }
    if arguments.json:
        json.dump(record, sys.stdout, indent=1)
        print()
        return
    device = provider.removesuffix("ExecutionProvider").lower()
    path = arguments.out or RESULTS / f"{name}-{device}.json"
    write_whole(path, json.dumps(record, indent=1) + "\n")
    progress(f"wrote {path}")


def _result_file(text: str) -> Path:
    """Reads the name of a file to write, which may replace a result but no other file."""
    path = Path(text)
    try:
        if path.exists() and "benchmark" not in json.loads(path.read_bytes()):
            raise ValueError
    except (OSError, ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{text} exists and is no result") from error
    return path


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value
