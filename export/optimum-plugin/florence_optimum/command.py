"""``optimum-cli export onnx`` for Florence-2: a folder in the hub's layout, traced by optimum."""

import sys
from argparse import Namespace
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from optimum.exporters.onnx import onnx_export_from_model
from optimum.utils import DEFAULT_DUMMY_SHAPES
from transformers import PretrainedConfig

from florence_onnx import Florence2, exporting
from florence_onnx.assets.reading import Assets
from florence_onnx.checkpoints.checkpoint import Checkpoint
from florence_onnx.engine.layouts import SPLIT, WITH_PAIR
from florence_onnx.errors import ExportError, FlorenceError
from florence_onnx.hub import Access
from florence_onnx_export.graphs.reference import transformers_model
from florence_onnx_export.weights import torch_weights
from florence_optimum.graphs import PARTS, GraphConfig, Part

TASK = "image-text-to-text"
TASKS = (TASK, f"{TASK}-with-past", "auto")
OPTIONS = {"opset", "optimize", "no_post_process", "atol", "device", "no_dynamic_axes", "slim"}
OPTIONS |= {*DEFAULT_DUMMY_SHAPES}
"""Those of the command that its function takes by the same names."""


def is_florence2(args: Namespace) -> bool:
    """Tells whether the folder or hub id is a Florence-2, in either format."""
    try:
        content, _ = PretrainedConfig.get_config_dict(args.model, cache_dir=args.cache_dir)
    except OSError:
        return False  # optimum says why.
    return content.get("model_type") == "florence2"


def export(args: Namespace) -> None:
    """Exports a checkpoint, read by florence_onnx; an error is one line.

    Transformers would draw new weights for a checkpoint in Microsoft's format, and optimum would
    compare the graphs with these.
    """
    try:
        if args.task not in TASKS or args.monolith or args.dtype not in (None, "fp32"):
            raise ExportError(
                f"optimum exports Florence-2 for the task {TASK} alone, in fp32, without "
                "--monolith; florence-onnx export --layout transformers.js has other precisions"
            )
        with suppress(OSError):
            Path(args.output).rmdir()  # It goes only if it is empty.
        exporting.export(
            args.model,
            Path(args.output),
            partial(_write_graphs, args),
            access=Access(cache_dir=Path(args.cache_dir)),
            force=True,  # as optimum; files that are not of an export stay
            layout=SPLIT if args.no_post_process else WITH_PAIR,
            progress=partial(print, file=sys.stderr),
        )
    except FlorenceError as error:
        sys.exit(f"optimum-cli: {error}")


def _write_graphs(
    args: Namespace, checkpoint: Checkpoint, folder: Path, steps: exporting.Steps
) -> dict[str, Any]:
    """Has optimum write and validate the graphs; see `exporting.WriteGraphs`."""
    model = transformers_model(checkpoint.config, torch_weights(checkpoint))
    size = Assets.read(folder).preprocessor.size
    graphs = folder / "onnx"
    with steps.step("optimum", "exporting the graphs with optimum"):
        onnx_export_from_model(
            model,
            graphs,
            custom_onnx_configs={name: GraphConfig(model.config, name, size) for name in PARTS},
            fn_get_submodels=lambda model: {name: Part(model, *PARTS[name][:1]) for name in PARTS},
            task=TASK,
            do_constant_folding=not args.no_constant_folding,
            **{name: value for name, value in vars(args).items() if name in OPTIONS},
        )
    for path in graphs.glob("*.json"):
        path.unlink()  # The hub has them beside the folder of the graphs, where they are complete.
    Florence2.load(folder)  # Outputs that are missing are only a warning of optimum.
    packages = ("optimum-onnx", "transformers", "torch")
    return {"versions": {name: metadata.version(name) for name in packages}}
