"""Error, time and size of every way to quantise a model's weights, as a table.

::

    python -m florence_onnx_export.choices MODEL
    python -m florence_onnx_export.choices MODEL --weights
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from florence_onnx import graphs
from florence_onnx_export.methods import FP32, METHODS, STORED
from florence_onnx_export.quantize import SAMPLES, Reference

QUANTIZED = (graphs.VISION_ENCODER, graphs.ENCODER, graphs.DECODER)


@dataclass(frozen=True)
class Row:
    """A graph some of whose weights are quantised."""

    graph: str
    """Graph name."""
    weight: str
    """Name of the one weight that is quantised, or ``all``."""
    method: str
    """How it is computed."""
    error: float
    """Relative error of the graph's outputs."""
    seconds: float
    """Of one run, on this machine."""
    megabytes: float
    """Size of the graph's file."""


def measure_choices(folder: Path, alone: bool) -> Iterator[Row]:
    """Measures every method on all weights that it is for, or on each of them alone.

    Args:
        folder: A model folder with float32 graphs.
        alone: Whether each weight is measured alone.
    """
    reference = Reference(folder, SAMPLES)
    for graph in QUANTIZED:
        measured = reference.measured(graph)
        if not alone:
            size = measured.model.ByteSize() / 1e6
            yield Row(graph, "all", FP32, 0.0, measured.seconds({}), size)
        for method in (*METHODS, STORED):
            names = measured.stored if method == STORED else measured.products
            for chosen in ([name] for name in names) if alone else [names] if names else []:
                methods = dict.fromkeys(chosen, method)
                label = "all" if chosen is names else chosen[0]
                size = measured.quantized(methods).ByteSize() / 1e6
                error, seconds = measured.error(methods), measured.seconds(methods)
                yield Row(graph, label, method, error, seconds, size)


def main() -> None:
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL", type=Path, help="model folder with fp32 graphs")
    parser.add_argument("--weights", action="store_true", help="each weight alone")
    arguments = parser.parse_args()
    print("| graph | weight | method | error | ms | MB |\n|---|---|---|---:|---:|---:|")
    for row in measure_choices(arguments.model, arguments.weights):
        print(
            f"| {row.graph} | {row.weight} | {row.method} | {row.error:.2%} | "
            f"{1000 * row.seconds:.1f} | {row.megabytes:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
