"""Writing and smoke check of a checkpoint's graphs, without torch."""

from pathlib import Path
from typing import Any

import numpy as np

from florence_onnx.checkpoints.checkpoint import Checkpoint
from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.engine.layouts import SLOTS, Layout
from florence_onnx.errors import CheckpointError
from florence_onnx.exporting import Steps, needed_bytes
from florence_onnx.skeletons.filling import fill, find_skeleton, skeletons
from florence_onnx.skeletons.smoke_check import smoke_check
from florence_onnx.terminal import progress_bar


def write_graphs(
    checkpoint: Checkpoint, folder: Path, steps: Steps, layout: Layout = SLOTS
) -> dict[str, Any]:
    """Fills the graphs of a checkpoint of a released geometry, and makes a smoke check.

    See `florence_onnx.exporting.WriteGraphs`.

    Raises:
        CheckpointError: The geometry is not a released one.
    """
    skeleton = require_skeleton(checkpoint.config, str(checkpoint.folder), layout)
    message = f"filling the graphs of the geometry {skeleton.name}, without torch"
    with steps.step("fill", message), progress_bar(needed_bytes(checkpoint.config)) as advance:
        fill(skeleton, checkpoint, folder, advance, layout)
    with steps.step("check", "asking the model a question"):
        smoke_check(folder)
    return {"skeleton": skeleton.name, "versions": {"numpy": np.__version__}}


def require_skeleton(config: ModelConfig, name: str, layout: Layout = SLOTS) -> Path:
    """Finds the folder of the skeleton for a geometry.

    Args:
        config: The geometry.
        name: Name of the checkpoint in the message.
        layout: The layout of the graphs that are wanted.

    Raises:
        CheckpointError: The geometry is not a released one.
    """
    skeleton = find_skeleton(config, layout)
    if skeleton is None:
        names = " or ".join(folder.name for folder in skeletons(layout))
        raise CheckpointError(
            f"{name} has a geometry of its own, not that of {names}; "
            "export it where torch is: pip install 'florence-onnx[export]', then florence-onnx "
            "export"
        )
    return skeleton
