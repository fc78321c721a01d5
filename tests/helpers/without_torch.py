"""Exports a checkpoint and answers every task where what only the exporter needs is banned.

Run as a script with the folder of the skeletons, the checkpoint, and the model folder to write;
prints a line for every task.
"""

import sys
from pathlib import Path
from typing import Any


class Ban:
    """Stops imports of the exporter's packages."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in ("torch", "transformers", "onnx", "onnxscript", "safetensors"):
            raise AssertionError(f"{name} is imported")


def main(skeletons: str, checkpoint: str, out: str) -> None:
    sys.meta_path.insert(0, Ban())
    import numpy as np

    from florence_onnx import Florence2, Task
    from florence_onnx.cli.program import main
    from florence_onnx.skeletons import filling

    filling.SKELETONS = Path(skeletons)
    assert main(["export", checkpoint, out]) == 0
    model = Florence2.load(out)
    image = np.arange(64 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(64, 64, 3)
    kinds: dict[str, dict[str, Any]] = {
        "text": {"text": "cat"},
        "region": {"region": (1, 2, 30, 40)},
    }
    for task in Task:
        given = kinds.get(task.input_kind, {})
        print(task, model(image, task, max_new_tokens=8, **given).token_ids)


if __name__ == "__main__":
    main(*sys.argv[1:])
