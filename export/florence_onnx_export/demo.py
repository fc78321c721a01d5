"""The demo model that the wheel carries, from its checkpoint.

    python -m florence_onnx_export.demo CHECKPOINT OUT

The graphs compute in float32. Their weights, which the checkpoint holds in float16, are stored as
they are there and made float32 when ONNX Runtime opens a graph: half the size, the same values.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from florence_onnx.engine import contract
from florence_onnx.errors import FlorenceError
from florence_onnx_export.exporter import export
from florence_onnx_export.graphs.files import save_graph
from florence_onnx_export.report import REPORT

_LEAST = 1024
"""Values below which a weight is not worth an operator."""


def make_demo(checkpoint: Path, out: Path) -> None:
    """Exports a checkpoint and stores the weights of its graphs in float16 where that is exact.

    What else is in ``out``, such as the model's card, stays.

    Raises:
        FlorenceError: The checkpoint cannot be exported.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "demo"
        export(checkpoint, made)
        for graph in contract.GRAPHS:
            path = made / contract.graph_file(graph, "fp32")
            model = onnx.load(str(path))
            store_half(model.graph)
            save_graph(model, path)
        (made / REPORT).unlink()  # It names the machine that exported.
        shutil.copytree(made, out, dirs_exist_ok=True)


def store_half(graph: onnx.GraphProto) -> None:
    """Stores the float32 weights that float16 holds exactly as such, with a Cast behind each."""
    for tensor in list(graph.initializer):
        weight = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or weight.size < _LEAST:
            continue
        half = weight.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), weight):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        cast = helper.make_node(
            "Cast", [tensor.name], [name], name=f"{name}.float", to=TensorProto.FLOAT
        )
        graph.node.insert(0, cast)


def main() -> int:
    """Run; 2 and one line on stderr for a known error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="folder that the training wrote")
    parser.add_argument("out", type=Path, help="model folder to write")
    arguments = parser.parse_args()
    try:
        make_demo(arguments.checkpoint, arguments.out)
    except FlorenceError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
