"""Models to run on a GPU: a checkpoint, and its float32 and float16 graphs."""

from pathlib import Path

from benchmarks.harness.checkpoint import random_checkpoint
from benchmarks.harness.common import Setup, progress
from florence_onnx import exporting
from florence_onnx.engine import contract
from florence_onnx.engine.layouts import SLOTS
from florence_onnx.skeletons.filling import find_skeleton
from florence_onnx.skeletons.writing import write_graphs


def make_setup(name: str, work: Path, provider: str, threads: int) -> Setup:
    """Makes a random checkpoint of a geometry and its export in ``work``.

    A released geometry is filled without torch. The bounds of float16 are not checked here but in
    `benchmarks.gpu.checks`, on the provider.

    Args:
        name: ``base``, ``large`` or ``tiny``.
        work: An existing folder.
        provider: ONNX Runtime's name of the provider that runs the graphs.
        threads: Threads of every side.
    """
    home = random_checkpoint(name, work)
    checkpoint, out = home / "checkpoint", home / "gpu"
    if not out.is_dir():
        progress(f"exporting {name}")
        exporting.export(checkpoint, out, _writer(checkpoint), progress=progress)
    add_half(out)
    return Setup(checkpoint, out, home, provider, threads)


def _writer(checkpoint: Path) -> exporting.WriteGraphs:
    from florence_onnx.checkpoints.checkpoint import read_checkpoint

    if find_skeleton(read_checkpoint(checkpoint).config):
        return write_graphs
    from florence_onnx_export.exporter import trace_graphs

    return trace_graphs


def add_half(folder: Path) -> None:
    """Adds float16 graphs to a model folder, without an entry in the report."""
    from florence_onnx_export.graphs.files import save_graph
    from florence_onnx_export.graphs.half_storage import load_float32
    from florence_onnx_export.quantization.float16 import to_half

    for graph in contract.GRAPHS:
        path = folder / contract.graph_file(graph, "fp16")
        if not path.exists():
            model = load_float32(SLOTS.path(folder, graph, "fp32"))
            to_half(model)
            save_graph(model, path)
