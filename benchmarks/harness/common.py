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

from benchmarks.harness.environment import available_threads, environment

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
DEMO = ROOT / "tests" / "fixtures" / "demo"
"""The checkpoint of the demo model."""
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
BEAMS = 3

Picture = npt.NDArray[np.uint8]
"""A decoded picture, uint8 [H,W,3]."""


class BenchmarkError(Exception):
    """A run whose result must not be published."""


@dataclass(frozen=True)
class Setup:
    """Model in every form that the sides of a benchmark need, and where the sides run the model."""

    checkpoint: Path
    """The checkpoint, in transformers' format."""
    exported: Path
    """Export of the model, which `florence_onnx` runs."""
    home: Path
    """Folder for what a side makes of the checkpoint."""
    provider: str
    """ONNX Runtime's name of the provider; it also says where PyTorch runs."""
    threads: int
    """Threads inside an operator, on every side."""

    @property
    def device(self) -> str:
        """PyTorch's name of where the provider runs."""
        return "cuda" if self.provider == CUDA else "cpu"

    @property
    def providers(self) -> list[str]:
        """Providers that ONNX Runtime is asked for."""
        return [self.provider] if self.provider == CPU else [self.provider, CPU]


def make_parser(description: str, repeats: int, precisions: bool = True) -> argparse.ArgumentParser:
    """A parser with the options that all scripts take.

    Args:
        description: What the script measures.
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
    """A line per precision but float32: how far its files are from float32, and what is mixed."""
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
    """Random pixels: speed does not depend on what a picture shows."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def progress(message: str) -> None:
    """Says on stderr what is going on."""
    print(message, file=sys.stderr, flush=True)


def publish(
    name: str,
    arguments: argparse.Namespace,
    argv: Sequence[str],
    content: Mapping[str, Any],
    provider: str = CPU,
) -> None:
    """Prints or writes what a script measured, with the environment it was measured in.

    Args:
        name: The script's name.
        arguments: Its parsed options.
        argv: Its options as given.
        content: What it measured.
        provider: Where our side ran.
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
    """A file to write, which may replace a result but nothing else."""
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
