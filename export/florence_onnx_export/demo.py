"""Export of the demo model that the wheel carries.

    python -m florence_onnx_export.demo CHECKPOINT OUT

The graphs compute in float32. The weights are stored in float16, as in the checkpoint, and
converted to float32 when ONNX Runtime opens a graph: half the size, the same values.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from florence_onnx.assets.report import REPORT
from florence_onnx.engine import contract
from florence_onnx.errors import FlorenceError
from florence_onnx.staging import staged_folder
from florence_onnx_export.exporter import export
from florence_onnx_export.graphs.files import load_graph, save_graph
from florence_onnx_export.graphs.half_storage import store_half


def make_demo(checkpoint: Path, out: Path) -> None:
    """Exports a checkpoint and stores weights in float16 where float16 is exact.

    Raises:
        OutputExistsError: ``out`` exists.
        FlorenceError: The checkpoint cannot be exported.
    """
    with tempfile.TemporaryDirectory() as temporary, staged_folder(out) as folder:
        made = Path(temporary) / "demo"
        export(checkpoint, made)
        (made / REPORT).unlink()  # The report names the machine of the export.
        shutil.copytree(made, folder, dirs_exist_ok=True)
        for graph in contract.GRAPHS:
            path = folder / contract.graph_file(graph, "fp32")
            model = load_graph(path)
            store_half(model.graph)
            save_graph(model, path)


def main() -> int:
    """Runs the module. Returns the exit status: 2, after a line on stderr, for a known error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="folder that the training wrote")
    parser.add_argument("out", type=Path, help="model folder to write")
    arguments = parser.parse_args()
    try:
        make_demo(arguments.checkpoint, arguments.out)
    except (FlorenceError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
