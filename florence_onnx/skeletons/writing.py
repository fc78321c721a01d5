"""The graphs of a checkpoint, written and tried without torch."""

from pathlib import Path
from typing import Any

import numpy as np

from florence_onnx.checkpoints.checkpoint import Checkpoint
from florence_onnx.checkpoints.config import ModelConfig
from florence_onnx.errors import CheckpointError
from florence_onnx.exporting import Steps, needed_bytes
from florence_onnx.skeletons.filling import fill, find_skeleton, released_names
from florence_onnx.skeletons.smoke_check import smoke_check
from florence_onnx.terminal import progress_bar


def write_graphs(checkpoint: Checkpoint, folder: Path, steps: Steps) -> dict[str, Any]:
    """Fills the graphs of a checkpoint of a released geometry, and asks the model a question.

    See `florence_onnx.exporting.WriteGraphs`.

    Raises:
        CheckpointError: The geometry is not a released one.
    """
    skeleton = require_skeleton(checkpoint.config, str(checkpoint.folder))
    message = f"filling the graphs of the geometry {skeleton.name}, without torch"
    with steps.step("fill", message), progress_bar(needed_bytes(checkpoint.config)) as advance:
        fill(skeleton, checkpoint, folder, advance)
    with steps.step("check", "asking the model a question"):
        smoke_check(folder)
    return {"skeleton": skeleton.name, "versions": {"numpy": np.__version__}}


def require_skeleton(config: ModelConfig, name: str) -> Path:
    """The folder of the skeleton for a geometry.

    Args:
        config: The geometry.
        name: What the message calls the checkpoint.

    Raises:
        CheckpointError: The geometry is not a released one.
    """
    skeleton = find_skeleton(config)
    if skeleton is None:
        raise CheckpointError(
            f"{name} has a geometry of its own, not that of {' or '.join(released_names())}; "
            "export it where torch is: pip install 'florence-onnx[export]', then florence-onnx "
            "export"
        )
    return skeleton
