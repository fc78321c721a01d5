"""``florence-onnx export``: a PyTorch checkpoint to a model folder."""

import argparse
import importlib
import importlib.util
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from florence_onnx import graphs
from florence_onnx.errors import MissingDependencyError

NAME = "export"
SUMMARY = "Export a Florence-2 checkpoint to ONNX (needs the [export] extra)."
EXAMPLES = """examples:
  florence-onnx export microsoft/Florence-2-base base-onnx
  florence-onnx export ./my-fine-tune my-onnx --force

CHECKPOINT is in Microsoft's or transformers' format, .bin or safetensors. OUT appears whole or
not at all; OUT/export_report.json says how far each output is from PyTorch.
"""

_NEEDED = ("torch", "transformers", "onnx", "onnxscript", "safetensors", "onnxruntime")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="folder or hub id")
    parser.add_argument("out", metavar="OUT", type=Path, help="model folder to write")
    parser.add_argument(
        "--precision",
        default="fp32",
        metavar="P",
        help=f"precision to write: {', '.join(graphs.PRECISIONS)} (default fp32)",
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")


def execute(arguments: argparse.Namespace) -> int:
    """Runs the command; see `main` for the exit status."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"exporting needs {', '.join(missing)}; run pip install 'florence-onnx[export]'"
        )
    start = time.perf_counter()

    def progress(message: str) -> None:
        print(f"[{time.perf_counter() - start:6.1f} s] {message}", file=sys.stderr, flush=True)

    with _exit_on_termination():
        exporter = importlib.import_module("florence_onnx_export.exporter")
        report = exporter.export(
            arguments.checkpoint,
            arguments.out,
            precisions=[arguments.precision],
            force=arguments.force,
            progress=progress,
        )
    worst = max(check["max_rel_diff"] for check in report["graphs_against_pytorch"])
    size = sum(report["bytes"].values()) / 1e6
    print(f"{arguments.out}: {size:.0f} MB, at most {worst:.1e} from PyTorch (relative)")
    return 0


@contextmanager
def _exit_on_termination() -> Iterator[None]:
    """Turns a plain kill into an exception, so that the half-written folder is removed."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
